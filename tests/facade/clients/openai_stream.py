"""openai-python, streaming: steps while the search runs, and the true usage at the end."""

import time

import openai
from report import BASE_URL, KEY, LONG, MESSAGES, reads_answer, state_of, tell

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, timeout=120)
began = time.monotonic()
stream = client.chat.completions.create(
    model="ratchet",
    messages=MESSAGES,
    seed=2,
    stream=True,
    stream_options={"include_usage": True},
    extra_body=LONG,
)
content, steps, role_seconds, state, usage, arrived = "", 0, None, None, None, set[float]()
for chunk in stream:
    usage = chunk.usage or usage
    if not chunk.choices:
        continue
    delta = chunk.choices[0].delta
    if role_seconds is None:
        assert delta.role == "assistant"
        role_seconds = time.monotonic() - began
    reasoning = getattr(delta, "reasoning_content", None)
    if reasoning:
        assert reasoning == delta.reasoning
        arrived.add(round(time.monotonic() - began, 1))
        steps += 1
        state = state or state_of(chunk.id.removeprefix("chatcmpl-"))
    content += delta.content or ""
assert role_seconds is not None
reads_answer(content)
assert usage is not None
assert usage.completion_tokens > 0
assert usage.prompt_tokens > 0
assert state == "running", f"at the first step the search was {state}"
tell(
    "openai",
    ["a stream with include_usage"],
    incremental=len(arrived) > 1,
    role_seconds=round(role_seconds, 3),
    steps=steps,
    first_step_seconds=min(arrived),
    seconds=round(time.monotonic() - began, 2),
)
