"""What a model writes may end lines for Unicode: events stay whole for our client, and for readers that split text anyhow."""

import json
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from ratchet.clients import SearchClient
from ratchet.web.event_data import on_one_line
from tests.http_double import serving

ENDS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh"


def test_json_is_on_one_line_for_all_readers_and_says_the_same() -> None:
    plain = json.dumps({"text": ENDS, "ö": 1}, ensure_ascii=False)
    assert len(plain.splitlines()) == 4
    [line] = on_one_line(plain).splitlines()
    assert json.loads(line) == {"text": ENDS, "ö": 1}


async def test_events_with_such_text_reach_the_client_whole_however_they_are_cut() -> None:
    data = json.dumps({"text": ENDS}, ensure_ascii=False)
    stream = f"id: 1-0\r\nevent: end\r\ndata: {data}\r\n\r\n".encode()
    app = FastAPI()

    @app.get("/search/s/events")
    async def events(last: str | None = None) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for place in range(len(stream)):
                yield stream[place : place + 1]

        return StreamingResponse(pieces(), media_type="text/event-stream")

    with serving() as serve:
        async with SearchClient(serve(app)) as client:
            [event] = [event async for event in client.events("s")]
    assert event.data == {"text": ENDS}
