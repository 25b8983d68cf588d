"""Errors under `/v1`, where OpenAI's clients ask: the problem document of all routes, and in it the object that they read.

Source: the OpenAI API reference, "Errors": `{"error": {"message", "type", "param", "code"}}`.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field

from ratchet.contracts.base import Contract, FieldError, ProblemDocument

PREFIX: Final = "/v1/"
_CODES: Final = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded", 504: "timeout"}
SERVER_ERROR: Final = 500


class OpenAIError(Contract):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The field that is wrong.")
    code: str | None


class OpenAIProblemDocument(ProblemDocument):
    """A problem document with OpenAI's error in it."""

    error: OpenAIError


def openai_problem_schema() -> dict[str, Any]:
    """JSON schema of the document, for OpenAPI; it refers to what all services describe there."""
    schema = OpenAIProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["properties"]["error"] = schema.pop("$defs")["OpenAIError"]
    return schema


def openai_error(status: int, message: str, errors: Sequence[FieldError] = ()) -> OpenAIError:
    """The value of `error`."""
    param = errors[0].field if errors else None
    if status >= SERVER_ERROR:
        kind = "server_error"
    elif status == 429:
        kind = "requests"
    else:
        kind = "invalid_request_error"
    code = "model_not_found" if status == 404 and param == "model" else _CODES.get(status)
    return OpenAIError(message=message, type=kind, param=param, code=code)
