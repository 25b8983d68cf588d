"""The base of every contract: strict about unknown fields, and the problem document of RFC 9457."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_PROBLEM_CHARS = 20_000
MAX_CODE_CHARS = 100_000


class Contract(BaseModel):
    """A message between services. Unknown fields are refused, so that a typing mistake is not silently ignored."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


def _plain_text(value: str) -> str:
    # Postgres text cannot hold NUL, and UTF-8 cannot hold lone surrogates: refuse both at the door.
    if "\x00" in value:
        raise ValueError("must be text: it contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode text: it contains a lone surrogate") from error
    return value


def not_blank(value: str) -> str:
    """The text itself. Raises ValueError where it holds nothing but white space."""
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Text = Annotated[str, AfterValidator(_plain_text)]
ProblemText = Annotated[
    str,
    # The limits come first, so that their messages speak of a string.
    Field(min_length=1, max_length=MAX_PROBLEM_CHARS, description="The problem, in plain words."),
    AfterValidator(_plain_text),
    AfterValidator(not_blank),
]
StepText = Annotated[
    str,
    Field(max_length=MAX_CODE_CHARS, description="One step: comment lines of reasoning, then Python."),
    AfterValidator(_plain_text),
]


class FieldError(Contract):
    """One thing wrong with a request, and where."""

    field: str = Field(description="Path of the field, dots between the levels.", examples=["budget.tokens"])
    message: str = Field(examples=["Input should be greater than 0"])


class ProblemDocument(Contract):
    """An error as RFC 9457 problem details (`application/problem+json`)."""

    type: str = Field(default="about:blank", description="A URI reference that names the kind of problem.")
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str | None = Field(default=None, description="What is wrong here, and how to mend it.")
    instance: str | None = Field(default=None, description="The path that was asked for.")
    errors: list[FieldError] = Field(default_factory=list)


class Health(Contract):
    """Answer of `GET /health`: the process lives and its parts are ready (200), or not yet (503)."""

    service: str = Field(examples=["sandbox"])
    ready: bool
    version: str
    detail: dict[str, str | int | float | bool | list[str] | None] = Field(
        default_factory=dict, description="What is in force: model version, isolation level, and the like."
    )
