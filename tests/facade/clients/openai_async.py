"""openai-python, asynchronous: completions at once, and one that is given up."""

import asyncio

import openai
from report import BASE_URL, KEY, LONG, MESSAGES, reads_answer, state_of, tell


async def main() -> None:
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, timeout=120) as client:
        asked = [client.chat.completions.create(model="ratchet", messages=MESSAGES, seed=s) for s in range(3)]
        for found in await asyncio.gather(*asked):
            reads_answer(found.choices[0].message.content)
        stream = await client.chat.completions.create(
            model="ratchet", messages=MESSAGES, seed=9, stream=True, extra_body=LONG
        )
        first = await anext(aiter(stream))
        search = first.id.removeprefix("chatcmpl-")
        await stream.close()
        async with asyncio.timeout(60):
            while await asyncio.to_thread(state_of, search) != "cancelled":
                await asyncio.sleep(0.1)
    tell(
        "openai", ["three completions at once", "a stream that was given up, and whose search was cancelled"]
    )


asyncio.run(main())
