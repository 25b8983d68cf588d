"""LiteLLM: a completion and a stream, through its provider for OpenAI-compatible services."""

import litellm
from report import BASE_URL, KEY, MESSAGES, reads_answer, tell

asked = {
    "model": "openai/ratchet",
    "api_base": BASE_URL,
    "api_key": KEY,
    "messages": MESSAGES,
    "timeout": 120,
}
found = litellm.completion(**asked, seed=1)
reads_answer(found.choices[0].message.content)
assert found.choices[0].message.reasoning_content
assert found.usage.completion_tokens > 0

content, reasoning = "", ""
for chunk in litellm.completion(**asked, seed=1, stream=True, stream_options={"include_usage": True}):
    if not chunk.choices:
        # The last chunk, with the usage.
        continue
    delta = chunk.choices[0].delta
    content += delta.content or ""
    reasoning += getattr(delta, "reasoning_content", None) or ""
reads_answer(content)
assert "[step 1" in reasoning
tell("litellm", ["completion", "stream with reasoning_content"])
