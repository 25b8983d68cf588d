"""openai-python, synchronous: completions, several choices, models, errors by their kinds."""

from collections.abc import Callable
from typing import Any

import openai
from report import BASE_URL, KEY, MESSAGES, PROBLEM, reads_answer, tell


def refusal(call: Callable[[], object]) -> openai.APIStatusError:
    """The error by which the call is refused."""
    try:
        call()
    except openai.APIStatusError as error:
        return error
    raise AssertionError("it was not refused")


client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, timeout=120)
assert [each.id for each in client.models.list()] == ["ratchet", "ratchet-fast", "ratchet-max"]
assert client.models.retrieve("ratchet").id == "ratchet"

found = client.chat.completions.create(model="ratchet", messages=MESSAGES, seed=1)
reads_answer(found.choices[0].message.content)
assert found.choices[0].finish_reason == "stop"
assert found.choices[0].message.reasoning_content
usage = found.usage
assert usage is not None
assert usage.completion_tokens_details is not None
assert usage.prompt_tokens > 0
assert usage.completion_tokens == usage.completion_tokens_details.reasoning_tokens > 0

parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": PROBLEM}]}]
several = client.chat.completions.create(
    model="ratchet",
    messages=parts,
    n=2,
    seed=1,
    max_completion_tokens=2000,
    stop=["\n####"],
    extra_body={"ratchet": {"require": "execution"}},
)
assert len(several.choices) == 2
assert all((each.message.content or "").startswith("The answer is ") for each in several.choices)
assert all("####" not in (each.message.content or "") for each in several.choices)

tools: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
refused = refusal(lambda: client.chat.completions.create(model="ratchet", messages=MESSAGES, tools=tools))
assert isinstance(refused, openai.UnprocessableEntityError)
assert refused.param == "tools", refused.body
refused = refusal(lambda: client.models.retrieve("gpt-4"))
assert isinstance(refused, openai.NotFoundError)
assert refused.code == "model_not_found", refused.body
stranger = openai.OpenAI(base_url=BASE_URL, api_key="wrong", max_retries=0)
refused = refusal(lambda: stranger.models.list())
assert isinstance(refused, openai.AuthenticationError)
assert refused.code == "invalid_api_key", refused.body
tell(
    "openai",
    [
        "models",
        "completion",
        "n=2 of a text part with stop, max_completion_tokens, extra_body",
        "three errors",
    ],
)
