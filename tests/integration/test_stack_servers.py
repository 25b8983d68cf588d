"""The local stack's databases, the data folder and `ratchet up`, for real: as root, as an ordinary user, after kill -9."""

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from ratchet.clients import TrainerClient
from ratchet.contracts.rounds import RoundRequest
from ratchet.stack import local, postgres, unprivileged, valkey
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.data_folder import last_model, remember_model, running_stack
from ratchet.stack.errors import StackError
from ratchet.stack.local import local_stack
from ratchet.stack.supervisor import ChildState, ChildStatus
from tests.cli_process import ratchet

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]
UP = "import typer; from ratchet.cli import up; app = typer.Typer(); up.register(app); app.callback()(lambda: None); app()"


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def remember(urls: StackUrls, what: str) -> None:
    async with connected(urls.database) as connection:
        await connection.execute("create table if not exists kept (what text)")
        await connection.execute("insert into kept values ($1)", what)
    async with redis.asyncio.from_url(urls.redis) as client:
        await client.rpush("kept", what)


async def remembered(urls: StackUrls) -> tuple[list[str], list[str]]:
    async with connected(urls.database) as connection:
        rows = [row["what"] for row in await connection.fetch("select what from kept")]
    async with redis.asyncio.from_url(urls.redis) as client:
        return rows, [
            item.decode() if isinstance(item, bytes) else item for item in await client.lrange("kept", 0, -1)
        ]


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def marked(data: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RATCHET_STACK_CHILD", "").startswith(f"{data}::"):
                found.append(process.name())
    return found


def databases(data: Path) -> StackConfig:
    return StackConfig(data=data, services=())


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ratchet up` with these arguments; killed at the end if it still runs."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", UP, "up", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_until_up(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ratchet is up"):
            return said
    raise AssertionError(f"it did not come up: {said}{process.communicate()[1]}")


@dataclass(frozen=True)
class Running:
    """The databases of a stack that is up, and what it last said of its children."""

    data: Path
    urls: StackUrls
    seen: dict[str, ChildStatus]
    modes_before: dict[str, tuple[int, int, int]]


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One stack for the tests that leave it as it was; in a home that is closed to others."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    seen: dict[str, ChildStatus] = {}
    before = modes(*places(home))
    async with local_stack(
        databases(home / "data"), lambda children: seen.update({child.name: child for child in children})
    ) as urls:
        yield Running(home / "data", urls, seen, before)


async def test_what_is_stored_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    config = databases(tmp_path / "data")
    async with local_stack(config) as urls:
        await remember(urls, "kept")
        assert running_stack(config.data) == urls
    assert running_stack(config.data) is None
    assert marked(config.data) == []
    async with local_stack(config) as urls:
        assert await remembered(urls) == (["kept"], ["kept"])
        async with connected(urls.database) as connection:
            assert await connection.fetchval("select count(*) from searches") == 0, "the migrations have run"


async def test_killed_servers_come_back_with_their_data_under_the_same_urls(stack: Running) -> None:
    await remember(stack.urls, "kept")
    before = await remembered(stack.urls)
    assert "kept" in before[0]
    for name in ("postgres", "valkey"):
        pid = stack.seen[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    for name in ("postgres", "valkey"):
        await until(lambda name=name: stack.seen[name].restarts == 1)  # type: ignore[misc]
        await until(lambda name=name: stack.seen[name].state is ChildState.READY)  # type: ignore[misc]
    assert await remembered(stack.urls) == before


async def test_a_killed_stack_leaves_nothing_and_its_folder_serves_again_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with command("--data", str(data), "--services", "") as process:
        wait_until_up(process)
        urls = running_stack(data)
        assert urls is not None
        await remember(urls, "before the kill")
        assert "postgres" in marked(data)
        process.kill()
        process.wait()
        assert running_stack(data) is None
        # At once: while what the killed stack had started may still be stopping.
        async with local_stack(databases(data)) as again:
            assert await remembered(again) == (["before the kill"], ["before the kill"])
    assert marked(data) == []


async def test_a_data_folder_serves_one_stack_and_two_folders_two(stack: Running, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=rf"data is in use by the stack of process {os.getpid()}.*--data"):
        async with local_stack(databases(stack.data)):
            pass
    async with local_stack(databases(tmp_path / "two")) as second:
        await remember(stack.urls, "one")
        await remember(second, "two")
        assert "two" not in (await remembered(stack.urls))[0]
        assert await remembered(second) == (["two"], ["two"])
    assert running_stack(stack.data) == stack.urls


async def test_secrets_are_for_us_alone_and_the_servers_ask_for_them(stack: Running) -> None:
    data, urls = stack.data, stack.urls
    closed = (
        ".",
        "stack.json",
        "postgres/password",
        "valkey/password",
        "valkey/valkey.conf",
        "postgres/cluster",
        "secrets",
        "secrets/admin_key",
        "secrets/admin_header",
        "secrets/service_token",
    )
    for name in closed:
        assert stat.S_IMODE((data / name).stat().st_mode) & 0o077 == 0, name
    passwords = {(data / name / "password").read_text().strip() for name in ("postgres", "valkey")}
    assert all(password in urls.database + urls.redis for password in passwords)
    assert len({urls.key, urls.token, *passwords}) == 4
    secrets = {urls.key, urls.token, *passwords}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert not any(secret in part for part in process.cmdline() for secret in secrets)
    wrong = urls.database.replace(urls.database.split(":")[2].split("@")[0], "guess")
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with connected(wrong):
            pass
    async with redis.asyncio.from_url("redis://127.0.0.1:" + urls.redis.split(":")[3]) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.ping()


def places(home: Path) -> tuple[Path, ...]:
    """Where the stack's programs and data lie."""
    return postgres.binaries(), valkey.binary().parent, Path(sys.executable).parent, home


def modes(*roots: Path) -> dict[str, tuple[int, int, int]]:
    """Mode and owner of the folders, of all that leads to them, and of the programs in them."""
    paths = {parent for root in roots for parent in [root, *root.parents]}
    paths |= {path for root in roots for path in root.iterdir()}
    return {str(path): (s.st_mode, s.st_uid, s.st_gid) for path in sorted(paths) for s in [path.lstat()]}


async def test_no_permission_outside_the_data_folder_is_changed(stack: Running) -> None:
    after = modes(*places(stack.data.parent))
    assert {path: mode for path, mode in after.items() if path in stack.modes_before} == stack.modes_before
    # All that the servers wrote is ours.
    owners = {path.lstat().st_uid for path in stack.data.rglob("*")}
    assert owners == {os.geteuid()} or (ROOT and not postgres.namespaces_allowed())


@pytest.mark.skipif(not ROOT, reason="only root has to give up its uid")
async def test_without_user_namespaces_root_serves_under_another_uid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    kept = closed / "made with namespaces"
    with postgres.running_postgres(kept, durable=False) as server:
        assert postgres.ensure_database(server, "kept")
    monkeypatch.setattr(postgres, "namespaces_allowed", lambda: False)
    for folder in (closed / "fresh", kept):
        with postgres.running_postgres(folder, durable=False) as server:
            uid = server.cluster.stat().st_uid
            assert uid == unprivileged.unprivileged_uid() != 0
            pid = int((server.cluster / "postmaster.pid").read_text().split()[0])
            assert psutil.Process(pid).uids().effective == uid
            async with connected(server.url()) as connection:
                assert await connection.fetchval("select 1") == 1


@pytest.mark.skipif(not ROOT, reason="this is an ordinary user already")
async def test_an_ordinary_user_has_a_stack_too(tmp_path: Path) -> None:
    # Some other uid, and only the capability to read: pytest's environment may lie in root's closed home.
    uid = next(
        entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid not in (0, unprivileged.unprivileged_uid())
    )
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    program = (
        "import asyncio, os, sys; from pathlib import Path; from ratchet.stack.local import *\n"
        "async def main():\n"
        "  assert os.geteuid() != 0\n"
        "  async with local_stack(StackConfig(data=Path(sys.argv[1]), services=())) as urls: print(urls.database)\n"
        "asyncio.run(main())"
    )
    argv = [
        sys.executable,
        "-I",
        "-S",
        unprivileged.__file__,
        str(uid),
        sys.executable,
        "-c",
        program,
        str(home / "data"),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = await asyncio.to_thread(
        subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=120, cwd=home
    )
    assert done.stdout.startswith("postgresql+asyncpg://"), done.stderr
    assert {path.lstat().st_uid for path in (home / "data").rglob("*")} == {uid}
    # What it made is not root's to write in.
    with pytest.raises(StackError, match=f"belongs to uid {uid}, and this is uid 0"):
        async with local_stack(StackConfig(data=home / "data", services=())):
            pass


def test_an_interrupted_initdb_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").write_text("18\n")
    (tmp_path / "cluster.new").mkdir()
    with postgres.running_postgres(tmp_path, durable=False) as server:
        assert postgres.ensure_database(server, "works")


def test_a_lock_left_by_a_killed_postgres_does_not_count_when_its_pid_is_somebody_elses(
    tmp_path: Path,
) -> None:
    with postgres.running_postgres(tmp_path, durable=False):
        left = (tmp_path / "cluster" / "postmaster.pid").read_text()
    lines = [str(os.getpid()), *left.splitlines()[1:]]
    (tmp_path / "cluster" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with postgres.running_postgres(tmp_path, durable=False) as server:
        assert postgres.ensure_database(server)


def test_a_cluster_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cluster" / "global").mkdir(parents=True)
    (tmp_path / "cluster" / "global" / "pg_control").write_bytes(b"x")
    (tmp_path / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match="made by Postgres 9"):
        postgres.prepare(postgres.Postgres(tmp_path, 1))
    assert (tmp_path / "cluster" / "global" / "pg_control").read_bytes() == b"x"


async def test_up_says_where_it_is_and_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with command("--data", str(data), "--services", "") as process:
        said = wait_until_up(process)
        assert "postgres: ready port" in said
        assert "migrate: done" in said
        assert json.loads((data / "stack.json").read_text())["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert (process.returncode, err) == (0, ""), out
    assert marked(data) == []
    assert not (data / "stack.json").exists()


async def test_up_stops_cleanly_on_sigterm_while_it_still_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with command("--data", str(data), "--services", "") as process:
        await until(lambda: (data / "postgres").exists())
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert (process.returncode, err) == (0, "")
    assert marked(data) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "{file}"], "cannot be used"),
        (["--data", "{folder}", "--services", "serch"], "Unknown service: serch"),
        (["--data", "{folder}", "--port", "{taken}"], "Port {taken} for search cannot be bound"),
    ],
)
def test_up_says_what_is_wrong_and_how_to_mend_it(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"file": file, "folder": tmp_path / "data", "taken": taken.getsockname()[1]}
        done = ratchet("up", *(argument.format(**values) for argument in arguments))
    assert done.returncode == 1
    assert complaint.format(**values) in done.stderr
    assert done.stderr.startswith("ratchet: ")


@pytest.mark.parametrize(
    ("command", "service"), [("rounds", "trainer"), ("models", "trainer"), ("searches", "search")]
)
def test_a_look_at_what_is_stored_starts_no_model_and_no_worker(
    tmp_path: Path, command: str, service: str
) -> None:
    done = ratchet(command, "list", "--data", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert sorted(line.split(":")[0] for line in done.stderr.splitlines()) == sorted(
        ["postgres", "valkey", "migrate", service]
    )


async def test_a_round_waits_for_a_stack_that_is_meant_to_work_on_it(tmp_path: Path) -> None:
    splits = {
        name: {"spec": f"nano:{name}?count=6", "count": 6} for name in ("train", "development", "held_out")
    }
    asked = RoundRequest.model_validate({"run": "waits", "config": splits})

    async def taken_up(seconds: float, *, work: bool) -> bool:
        config = StackConfig(
            data=tmp_path / "data", services=("trainer",), env={"RATCHET_WORK_ON_ROUNDS": str(work).lower()}
        )
        async with local_stack(config) as urls, TrainerClient(urls.trainer, key=urls.key) as trainer:
            if not await trainer.rounds("waits"):
                await trainer.create_round(asked)
            deadline = time.monotonic() + seconds
            log = tmp_path / "data" / "logs" / "trainer.log"
            while not (told := "round taken up" in log.read_text()) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            return told

    assert not await taken_up(3.0, work=False)
    assert await taken_up(60.0, work=True)


def test_a_folder_remembers_the_model_that_was_named_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert last_model(tmp_path) is None
    remember_model(tmp_path, "small")
    assert last_model(tmp_path) == "small"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    remember_model(tmp_path, "mine")
    assert last_model(tmp_path) == str(tmp_path / "mine"), "found from every folder"


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def full(path: Path, flags: int, mode: int) -> int:
        """What is written next finds no space."""
        return opened("/dev/full", os.O_WRONLY) if path.name.endswith(".new") else opened(path, flags, mode)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StackError, match="No space left on device"):
        remember_model(tmp_path, "small")
    with pytest.raises(StackError, match="No space left on device"):
        valkey.prepare(valkey.Valkey(tmp_path / "valkey", 1))
    with pytest.raises(StackError, match="No space left on device"):
        postgres.ensure_password(postgres.Postgres(tmp_path / "postgres", 1))


def test_a_port_range_of_the_user_namespace_swaps_only_root_and_nobody() -> None:
    assert unprivileged.swapped_map("0 0 4294967295\n", 65_534).splitlines() == [
        "65534 0 1", "0 65534 1", "1 1 65533", "65535 65535 4294901760",
    ]  # fmt: skip
    assert unprivileged.swapped_map("0 1000 1\n", 65_534) == "65534 0 1\n"


def test_ports_of_parts_that_do_not_exist_are_refused() -> None:
    with pytest.raises(StackError, match="Unknown part in ports: web"):
        local._choose_ports(StackConfig(ports={"web": 80}))
