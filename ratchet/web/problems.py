"""RFC 9457 problem documents as responses."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import Response

from ratchet.contracts.base import FieldError, ProblemDocument
from ratchet.web.openai_errors import PREFIX, OpenAIProblemDocument, openai_error

PROBLEM_JSON = "application/problem+json"


def problem_response(
    status: int,
    detail: str | None,
    instance: str,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An RFC 9457 problem document as a response."""
    body = ProblemDocument(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, errors=errors or []
    )
    if instance.startswith(PREFIX):
        error = openai_error(status, detail or body.title, body.errors)
        body = OpenAIProblemDocument(**body.model_dump(), error=error)
    return Response(body.model_dump_json(), status_code=status, media_type=PROBLEM_JSON, headers=headers)
