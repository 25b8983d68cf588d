"""Completions and their chunks, as the Chat Completions API has them; each choice is a search. Pure.

`usage` is that of the whole search: all prompts that the policy read, all tokens that it generated. The policy writes steps,
and the content is put together from them, so all that it generated is reasoning.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, Self

import orjson
from pydantic import Field

from ratchet.contracts.base import Contract
from ratchet.contracts.search import SearchResult, Verification
from ratchet.states import SearchState
from services.search.facade.words import content_of, cut_at, reasoning_of

FinishReason = Literal["stop", "length"]


class CompletionTokens(Contract):
    """Of the completion's tokens, those of the reasoning."""

    reasoning_tokens: int


class CompletionUsage(Contract):
    """Tokens of all searches of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: CompletionTokens

    @classmethod
    def of(cls, results: Iterable[SearchResult]) -> Self:
        """The sum over the searches."""
        costs = [result.usage.policy for result in results]
        read, written = sum(each.prompt_tokens for each in costs), sum(each.tokens for each in costs)
        return cls(
            prompt_tokens=read,
            completion_tokens=written,
            total_tokens=read + written,
            completion_tokens_details=CompletionTokens(reasoning_tokens=written),
        )


class ChoiceSearch(Contract):
    """The search behind a choice: what OpenAI's API has no words for."""

    search: str = Field(description="Its id: GET /search/{id}, and /tree, /proof and /events below it.")
    state: SearchState
    answer: str | None
    verification: Verification | None
    seed: int
    models: dict[str, str]

    @classmethod
    def of(cls, result: SearchResult) -> Self:
        """Of a search that is over."""
        return cls(
            search=result.id,
            state=result.state,
            answer=result.answer,
            verification=result.verification,
            seed=result.seed,
            models=result.models,
        )


class AnswerMessage(Contract):
    """What the solver says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    reasoning_content: str | None
    reasoning: str | None = Field(description="The same: clients look for either name.")


class Choice(Contract):
    """One search's answer."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None
    ratchet: ChoiceSearch


class ChatCompletion(Contract):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    system_fingerprint: str | None = Field(description="The policy that answered.")


class Delta(Contract):
    """What a chunk adds to a choice; what is not set is left out."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChunkChoice(Contract):
    """A chunk of one choice."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    ratchet: ChoiceSearch | None = None


class Chunk(Contract):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


def finish_reason(result: SearchResult) -> FinishReason:
    """`length` where the budget ended without an answer."""
    return "length" if result.state is SearchState.BUDGET_EXHAUSTED else "stop"


def completion_id(search: str) -> str:
    """Of a completion, from its first search."""
    return f"chatcmpl-{search}"


def completion_of(model: str, results: Sequence[SearchResult], stops: Sequence[str]) -> ChatCompletion:
    """A completion of searches that are over, the choices in their order."""
    first = results[0]
    choices = []
    for index, result in enumerate(results):
        reasoning = reasoning_of(result)
        message = AnswerMessage(
            content=cut_at(content_of(result), stops), reasoning_content=reasoning, reasoning=reasoning
        )
        choices.append(
            Choice(
                index=index,
                message=message,
                finish_reason=finish_reason(result),
                ratchet=ChoiceSearch.of(result),
            )
        )
    return ChatCompletion(
        id=completion_id(first.id),
        created=_seconds(first.created_at),
        model=model,
        choices=choices,
        usage=CompletionUsage.of(results),
        system_fingerprint=first.models.get("policy"),
    )


class ChunkWriter:
    """Writes the chunks of one stream, as the JSON of their events."""

    def __init__(self, model: str, search: str, created: int, *, usage: bool) -> None:
        self._model = model
        self._id = completion_id(search)
        self._created = created
        self._usage = usage

    def role(self, index: int) -> str:
        """The first chunk of a choice."""
        return self._write(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))

    def reasoning(self, index: int, text: str) -> str:
        """A step that was found."""
        return self._write(ChunkChoice(index=index, delta=Delta(reasoning_content=text, reasoning=text)))

    def content(self, index: int, result: SearchResult, stops: Sequence[str]) -> list[str]:
        """Content and end of a choice."""
        told = ChunkChoice(index=index, delta=Delta(content=cut_at(content_of(result), stops)))
        ended = ChunkChoice(
            index=index,
            delta=Delta(),
            finish_reason=finish_reason(result),
            ratchet=ChoiceSearch.of(result),
        )
        return [self._write(told), self._write(ended)]

    def usage(self, results: Iterable[SearchResult]) -> str:
        """The last chunk, where the client asked for it."""
        return self._write(usage=CompletionUsage.of(results))

    def _write(self, *choices: ChunkChoice, usage: CompletionUsage | None = None) -> str:
        chunk = Chunk(
            id=self._id, created=self._created, model=self._model, choices=list(choices), usage=usage
        )
        document: dict[str, Any] = chunk.model_dump(mode="json", exclude={"usage"})
        for choice in document["choices"]:
            choice["delta"] = {name: value for name, value in choice["delta"].items() if value is not None}
            choice["logprobs"] = None
            if choice["ratchet"] is None:
                del choice["ratchet"]
        if self._usage:
            document["usage"] = None if usage is None else usage.model_dump(mode="json")
        return orjson.dumps(document).decode()


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
