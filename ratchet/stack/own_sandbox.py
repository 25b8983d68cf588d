"""A sandbox service of our own: what checks proofs and grades answers without a stack."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from ratchet import secret_files
from ratchet.clients import SandboxClient
from ratchet.settings import read_secret
from ratchet.stack.ports import free_ports
from ratchet.stack.services import service_command, service_environment
from ratchet.stack.supervisor import ChildSpec, Supervisor


@contextlib.asynccontextmanager
async def local_sandbox() -> AsyncIterator[SandboxClient]:
    """A client of a sandbox service of our own, on a free loopback port. Raises StackError if it cannot start."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ratchet-sandbox-") as folder:
        secret_files.make(Path(folder), (secret_files.SERVICE_TOKEN,), secret_files.OF_OWNER)
        token = Path(folder) / secret_files.SERVICE_TOKEN
        child = ChildSpec(
            name="sandbox",
            argv=service_command("sandbox"),
            env={
                **service_environment(),
                "RATCHET_HOST": "127.0.0.1",
                "RATCHET_PORT": str(port),
                "RATCHET_SERVICE_TOKEN_FILE": str(token),
            },
            ready=f"{url}/health",
            url=url,
            port=port,
            log=Path(folder) / "sandbox.log",
        )
        supervisor = Supervisor([child], mark=folder)
        try:
            await supervisor.start()
            async with SandboxClient(url, key=read_secret(token)) as client:
                yield client
        finally:
            await supervisor.stop()
