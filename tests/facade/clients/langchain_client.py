"""LangChain's ChatOpenAI: invoke, a prompt with a system message, stream, batch."""

from langchain_openai import ChatOpenAI
from report import ANSWER, BASE_URL, KEY, PROBLEM, reads_answer, tell

model = ChatOpenAI(model="ratchet", base_url=BASE_URL, api_key=KEY, timeout=120, seed=1)
found = model.invoke(PROBLEM)
reads_answer(str(found.content))
assert found.usage_metadata is not None
assert found.usage_metadata["output_tokens"] > 0
pieces = [str(chunk.content) for chunk in model.stream(PROBLEM)]
reads_answer("".join(pieces))
for each in model.batch([PROBLEM, PROBLEM]):
    reads_answer(str(each.content))
tell("langchain-openai", ["invoke", "stream", "batch of two"], answer=ANSWER)
