"""Does this request come from where it should? Host against DNS rebinding, Origin against other sites in the same browser."""

import ipaddress
import re
from collections.abc import Mapping

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SERVICE_NAMES = frozenset({"policy", "prm", "sandbox", "search", "search-worker", "trainer"})
"""What containers call the services. No page can have a name without a dot, so none can rebind one."""
OWN_SITES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of a page of ours, and of a person who typed the address."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server that binds `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(bound: str, more: tuple[str, ...] = ()) -> frozenset[str]:
    """The names by which a service that binds the address `bound` may be asked."""
    return LOOPBACK_NAMES | SERVICE_NAMES | {bound.lower()} | {name.lower() for name in more}


def _authority(text: str) -> tuple[str, str] | None:
    """Host, without brackets, and port of `host[:port]`; None for anything else."""
    found = _AUTHORITY.fullmatch(text)
    return None if found is None else (found[1].strip("[]").lower(), found[2] or "")


def is_own_host(headers: Mapping[bytes, bytes], allowed: frozenset[str]) -> bool:
    """Whether the Host header names us. The port is not compared: it may be published under another one."""
    named = _authority(headers.get(b"host", b"").decode("latin-1"))
    return named is not None and named[0] in allowed


def is_navigation(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser sends this to show the answer in a window of its own, in nobody's frame (Fetch Metadata)."""
    return (
        headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and b"origin" not in headers
    )


def is_own_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether no browser sends this from another site: Fetch standard, headers Origin and Sec-Fetch-Site."""
    if headers.get(b"sec-fetch-site", b"none").decode("latin-1") not in OWN_SITES:
        return False
    origin = headers.get(b"origin")
    if origin is None:
        return True
    _, found, own = origin.decode("latin-1").partition("://")
    named = _authority(own)
    return (
        bool(found) and named is not None and named == _authority(headers.get(b"host", b"").decode("latin-1"))
    )
