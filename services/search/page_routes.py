"""The page for people: its files as they lie in `page/`, given to anybody. What it shows it asks the API for, with a key.

Nothing is built, and nothing comes from another site. Files are looked up by strict names, so that no path leads elsewhere.
"""

import gzip
import hashlib
import re
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from fastapi.responses import Response

from ratchet.web.app import ProblemError
from ratchet.web.unavailable import problems

PAGE: Final = Path(__file__).parent / "page"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the ends of names. Types for the checker and licences are not."""
_NAME: Final = re.compile(r"(?:[a-z0-9][a-z0-9-]*/)?[a-z0-9][a-z0-9-]*(\.(?:css|html|js|svg))")
_GZIP: Final = re.compile(r"\b(?:gzip|x-gzip)\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content Security Policy (W3C, level 3): the page's own files, and no text that becomes code."""
HEADERS: Final = {
    # Asked for each time, and mostly answered by 304: an upgrade shows at once.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

MOST_COMPRESSED: Final = 256
"""Files that are held compressed; the page has fewer."""

AcceptEncoding = Annotated[str | None, Header(description="`gzip` gets it compressed.", max_length=1000)]
IfNoneMatch = Annotated[str | None, Header(description="`ETag`s that the browser has.", max_length=1000)]


def _documented(*types: str) -> dict[int | str, dict[str, Any]]:
    text = {name.partition(";")[0]: {"schema": {"type": "string"}} for name in types}
    return {
        200: {"description": "The file.", "content": text},
        304: {"description": "The browser has it."},
        **problems(_422="A header is not valid; `errors` names it."),
    }


router = APIRouter(tags=["page"])


@router.get(
    "/",
    summary="The page for people",
    response_class=Response,
    responses=_documented(TYPES[".html"]),
)
def page(if_none_match: IfNoneMatch = None, accept_encoding: AcceptEncoding = None) -> Response:
    """The page. It asks for a key, and keeps it in the browser."""
    return _file("index.html", if_none_match, accept_encoding)


@router.get(
    "/page/{path:path}",
    summary="A file of the page",
    response_class=Response,
    responses={**_documented(*TYPES.values()), **problems(_404="The page has no such file.")},
)
def page_file(
    path: str, if_none_match: IfNoneMatch = None, accept_encoding: AcceptEncoding = None
) -> Response:
    """A script, a style or an image of the page."""
    return _file(path, if_none_match, accept_encoding)


def _file(name: str, if_none_match: str | None, accept_encoding: str | None) -> Response:
    """The file as it lies on the disk now. Raises ProblemError (404) for any name that is none of the page's."""
    found = _NAME.fullmatch(name)
    try:
        content = (PAGE / name).read_bytes() if found else None
    except OSError:
        content = None
    if found is None or content is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "The page has no such file.")
    # Weak: compressed or not, it is the same file.
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": tag}
    if if_none_match is not None and _is_among(tag, if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if _GZIP.search(accept_encoding or ""):
        content, headers = _compressed(content), headers | {"Content-Encoding": "gzip"}
    return Response(content, headers=headers, media_type=TYPES[found[1]])


@lru_cache(MOST_COMPRESSED)
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _is_among(tag: str, tags: str) -> bool:
    """Whether an If-None-Match names this ETag: weakly compared (RFC 9110, section 13.1.2)."""
    known = {each.strip().removeprefix("W/") for each in tags.split(",")}
    return tags.strip() == "*" or tag.removeprefix("W/") in known
