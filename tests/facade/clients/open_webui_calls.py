"""Open WebUI's calls, replayed as its backend sends them (backend/open_webui/routers/openai.py): it is too large to install
for a test. The check of a connection, the list of models, a chat as a stream whose lines it reads, a title without one."""

import asyncio
import json
from typing import Any

import aiohttp
from report import BASE_URL, KEY, MESSAGES, reads_answer, tell

HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


async def main() -> None:
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(total=120)) as session:
        async with session.get(f"{BASE_URL}/models", headers=HEADERS) as response:
            assert response.status == 200
            models = await response.json()
            assert "error" not in models
            assert models["data"][0]["id"] == "ratchet"
        payload: dict[str, Any] = {
            "model": "ratchet",
            "messages": MESSAGES,
            "stream": True,
            "seed": 1,
            "stream_options": {"include_usage": True},
        }
        content, usage, done = "", None, False
        async with session.post(
            f"{BASE_URL}/chat/completions", data=json.dumps(payload), headers=HEADERS
        ) as response:
            assert response.status == 200
            assert "text/event-stream" in response.headers["Content-Type"]
            async for raw in response.content:
                line = raw.decode().strip()
                if not line.startswith("data: "):
                    continue
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    done = True
                    continue
                chunk = json.loads(data)
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    content += choice["delta"].get("content") or ""
        reads_answer(content)
        assert done
        assert usage is not None
        answer = {"role": "assistant", "content": content}
        title = {
            "model": "ratchet-fast",
            "messages": [*MESSAGES, answer, {"role": "user", "content": "A title of five words."}],
            "stream": False,
            "max_tokens": 50,
        }
        async with session.post(
            f"{BASE_URL}/chat/completions", data=json.dumps(title), headers=HEADERS
        ) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["choices"][0]["message"]["content"]
        async with session.get(f"{BASE_URL}/models", headers={"Authorization": "Bearer none"}) as response:
            assert response.status == 401
            assert "message" in (await response.json())["error"]
    tell("aiohttp", ["Open WebUI: models, chat as a stream, title, wrong key (its calls replayed)"])


asyncio.run(main())
