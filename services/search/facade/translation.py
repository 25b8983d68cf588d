"""A chat completion as searches: one for each choice, each with a seed of its own."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from ratchet.contracts.base import FieldError
from ratchet.contracts.search import SearchRequest
from services.search.facade.models import SEARCHES
from services.search.facade.requests import ChatCompletionRequest, RatchetOptions, problem_text

SEEDS: Final = 2**31
"""A search has fewer seeds than the API: they are folded."""


class UnknownModelError(Exception):
    """No model of the façade has this name."""


class UntranslatableError(Exception):
    """The request is no search."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{each.field}: {each.message}" for each in errors))
        self.errors = errors


def search_requests(body: ChatCompletionRequest) -> list[SearchRequest]:
    """The searches that a completion asks for, one a choice. Raises UnknownModelError, UntranslatableError."""
    if body.model not in SEARCHES:
        raise UnknownModelError(f"There is no model {body.model}. There are: {', '.join(SEARCHES)}.")
    fields = _merged(SEARCHES[body.model], _told(body.ratchet))
    fields = _merged(fields, _sampling(body))
    budget: dict[str, Any] = fields.setdefault("budget", {})
    if body.tokens is not None:
        # Both are ceilings, so the lower one is.
        budget["tokens"] = min(body.tokens, _told_tokens(body.ratchet) or body.tokens)
    first = _first_seed(body)
    try:
        return [
            SearchRequest.model_validate(
                {**fields, "problem": problem_text(body.messages), "seed": (first + number) % SEEDS}
            )
            for number in range(body.n or 1)
        ]
    except ValidationError as error:
        raise UntranslatableError(
            [FieldError(field=_field_of(each["loc"]), message=each["msg"]) for each in error.errors()]
        ) from None


def _told(options: RatchetOptions | None) -> dict[str, Any]:
    """What the options say; what they leave out, or null, is the model's."""
    if options is None:
        return {}
    said = options.model_dump(exclude_unset=True)
    return {name: value for name, value in said.items() if value is not None}


def _told_tokens(options: RatchetOptions | None) -> int | None:
    if options is None or options.budget is None or "tokens" not in options.budget.model_fields_set:
        return None
    return options.budget.tokens


def _sampling(body: ChatCompletionRequest) -> dict[str, Any]:
    # A temperature of 0 is no temperature of a search: see ChatCompletionRequest.temperature.
    said = {"temperature": body.temperature or None, "top_p": body.top_p}
    return {"parameters": {name: value for name, value in said.items() if value is not None}}


def _first_seed(body: ChatCompletionRequest) -> int:
    if body.seed is not None:
        return body.seed
    return 0 if body.temperature == 0 else secrets.randbelow(SEEDS)


def _merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with those of `more`; nested ones are merged, as a budget of tokens says nothing of seconds."""
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}
    for name, value in more.items():
        known = merged.get(name)
        merged[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged


def _field_of(location: tuple[int | str, ...]) -> str:
    """The field of the completion that a field of the search came from."""
    if not location or location[0] == "problem":
        return "messages"
    return ".".join(str(part) for part in ("ratchet", *location))
