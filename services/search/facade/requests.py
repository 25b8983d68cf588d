"""What a client of the Chat Completions API may send. What a search cannot honour is refused by its name.

Source: the OpenAI API reference, "Create chat completion". A field that says no more than the API's default is taken, as many
clients send them all.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from ratchet.contracts.base import Contract
from ratchet.contracts.search import (
    Budget,
    PinnedModels,
    Priority,
    StrategyName,
    StrategyParameters,
    VerificationLevel,
)

MAX_CHOICES = 16
MAX_MESSAGES = 200
MAX_STOPS = 16
"""OpenAI takes four; evaluation harnesses send more."""
MAX_TOKENS = 10_000_000
TEXT_PARTS = frozenset({"text", "input_text"})


def _refused(why: str, *neutral: object) -> AfterValidator:
    """Refuses all but null and what asks for nothing."""

    def check(value: object) -> None:
        if value is not None and not any(value == each and type(value) is type(each) for each in neutral):
            raise ValueError(f"cannot be honoured: {why}")

    return AfterValidator(check)


def _text(value: object) -> object:
    """The text of a message that comes in parts. Raises ValueError naming a part that is no text."""
    if value is None:
        raise ValueError("is empty: a message of text is needed")
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in TEXT_PARTS:
            raise ValueError(f"part {number} is of type {kind}: only text can be read")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"part {number} has no text")
        texts.append(part["text"])
    return "\n".join(texts)


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"enum": sorted(TEXT_PARTS)}, "text": {"type": "string"}},
            },
        },
    ]
}
MessageText = Annotated[str, BeforeValidator(_text), WithJsonSchema(_CONTENT_SCHEMA)]


class ChatMessage(Contract):
    """One message. What an assistant's message carries besides its content is read over, so that a client can send it back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: MessageText
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: Annotated[Any, _refused("a search cites nothing", [])] = None
    tool_calls: Annotated[Any, _refused("a search calls no tools", [])] = None
    function_call: Annotated[Any, _refused("a search calls no functions")] = None
    audio: Annotated[Any, _refused("a search hears nothing")] = None


class StreamOptions(Contract):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, _refused("chunks are not padded", False)] = None


class RatchetOptions(Contract):
    """What a search can be told and a chat completion cannot: the fields of `POST /search` of the same names."""

    strategy: StrategyName | None = None
    parameters: StrategyParameters | None = None
    budget: Budget | None = None
    models: PinnedModels | None = None
    require: Literal[VerificationLevel.AGREEMENT, VerificationLevel.EXECUTION] | None = None
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    priority: Priority | None = None
    reference_answer: Annotated[
        Any, _refused("a completion that was told the answer is no completion; POST /search takes it")
    ] = None


def _stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ChatCompletionRequest(Contract):
    """Body of `POST /v1/chat/completions`."""

    model: str = Field(
        min_length=1,
        max_length=200,
        description="`ratchet`, `ratchet-fast` or `ratchet-max`: GET /v1/models lists them.",
        examples=["ratchet"],
    )
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The last one, of role user, has the problem; those before it are read with it.",
        examples=[[{"role": "user", "content": "4 boxes hold 12 cups each. 5 are lost. How many are left?"}]],
    )
    n: int | None = Field(
        default=None, ge=1, le=MAX_CHOICES, description="So many searches, each of its own seed."
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="Null: a random one.")
    max_completion_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MAX_TOKENS,
        description="Most tokens that the policy generates in the whole search: its budget.",
    )
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS, description="The older name of it.")
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Of the policy's draws. 0 asks for the same answer each time: the search keeps its own temperature, as it "
        "lives on draws that differ, and its seed is 0 unless one is given.",
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None, BeforeValidator(_stops)
    ] = Field(default=None, max_length=MAX_STOPS, description="The content ends before the first of these.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ratchet: RatchetOptions | None = Field(
        default=None, description="What a search can be told besides; the SDKs send it by `extra_body`."
    )
    user: str | None = Field(default=None, description="Read over.")
    safety_identifier: str | None = Field(default=None, description="Read over.")
    prompt_cache_key: str | None = Field(default=None, description="Read over.")
    metadata: dict[str, str] | None = Field(default=None, description="Read over.")
    store: Annotated[Any, _refused("nothing is kept but the search itself", False)] = None
    service_tier: Annotated[Any, _refused("there is one tier", "auto", "default")] = None
    parallel_tool_calls: bool | None = Field(default=None, description="Read over: there are no tools.")
    tools: Annotated[Any, _refused("a search calls no tools", [])] = None
    tool_choice: Annotated[Any, _refused("a search calls no tools", "none", "auto")] = None
    functions: Annotated[Any, _refused("a search calls no functions", [])] = None
    function_call: Annotated[Any, _refused("a search calls no functions", "none", "auto")] = None
    response_format: Annotated[
        Any, _refused("the content is text, and its last line the answer", {"type": "text"})
    ] = None
    logprobs: Annotated[Any, _refused("the answer is not drawn token by token", False)] = None
    top_logprobs: Annotated[Any, _refused("the answer is not drawn token by token", 0)] = None
    logit_bias: Annotated[Any, _refused("the policy's draws are not biased", {})] = None
    frequency_penalty: Annotated[Any, _refused("the policy's draws are not penalised", 0, 0.0)] = None
    presence_penalty: Annotated[Any, _refused("the policy's draws are not penalised", 0, 0.0)] = None
    modalities: Annotated[Any, _refused("only text can be written", ["text"])] = None
    audio: Annotated[Any, _refused("only text can be written")] = None
    prediction: Annotated[Any, _refused("nothing is predicted")] = None
    web_search_options: Annotated[Any, _refused("a search asks no web")] = None
    reasoning_effort: Annotated[
        Any, _refused("how much is searched is the model's: ratchet-fast, ratchet, ratchet-max")
    ] = None
    verbosity: Annotated[Any, _refused("the content has one form", "medium")] = None

    @model_validator(mode="after")
    def _hangs_together(self) -> "ChatCompletionRequest":
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise ValueError(
                "max_tokens and max_completion_tokens are two names of one limit: send one of them"
            )
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true alone")
        if self.messages[-1].role != "user":
            raise ValueError("messages: the last one must be of role user, it has the problem")
        return self

    @property
    def tokens(self) -> int | None:
        """Most tokens of a search, where the client says so."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def problem_text(messages: Sequence[ChatMessage]) -> str:
    """The messages as one problem: its own text where there is one; otherwise all of them, in order."""
    if any(message.role == "assistant" for message in messages):
        said = {"user": "User: ", "assistant": "Assistant: "}
        return "\n\n".join(said.get(each.role, "") + each.content for each in messages)
    return "\n\n".join(message.content for message in messages)
