"""A call says for which search it is made, and the service's log lines say it too."""

import structlog
from fastapi import FastAPI

from ratchet.contracts.base import Contract
from ratchet.service_client import ServiceClient
from ratchet.web.on_behalf import OnBehalf
from tests.http_double import serving


class Context(Contract):
    """What every log line of a request has."""

    caller: str | None = None


class Client(ServiceClient):
    """Asks the app below."""

    async def context(self, headers: dict[str, str] | None = None) -> str | None:
        return (await self._call(Context, "GET", "/context", headers=headers)).caller


async def test_the_log_of_a_service_names_the_search_that_asks() -> None:
    app = FastAPI()
    app.add_middleware(OnBehalf)

    @app.get("/context")
    def context() -> Context:
        return Context.model_validate(structlog.contextvars.get_contextvars())

    with serving() as serve:
        async with Client(serve(app)) as client:
            assert await client.context() is None
            with structlog.contextvars.bound_contextvars(search="01a2196d-8b11", attempt=1):
                assert await client.context() == "01a2196d-8b11"
            with structlog.contextvars.bound_contextvars(run="my run\n"):
                assert await client.context() == "my%20run%0A"
            assert await client.context() is None, "nothing stays behind on the connection"
            for forged in ("a b", 'x" level="error', "y" * 201):
                assert await client.context({"x-caller": forged}) is None
