"""The supervisor against real child processes: order, readiness, crashes, and that nothing is ever left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from ratchet.stack.errors import StackError
from ratchet.stack.logs import last_line, rotate, tail
from ratchet.stack.ports import free_port, free_ports
from ratchet.stack.supervisor import BACKOFF_CAP, ChildSpec, ChildState, ChildStatus, Supervisor, _backoff

SERVER = """
import http.server, os, pathlib, signal, subprocess, sys
port, stops, daemon, stubborn = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "stubborn"
if daemon:
    # A descendant that tries to get away: its own session, its parent gone.
    script = "import os, pathlib, subprocess, sys, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\n" \\
        f"pathlib.Path({daemon!r}).write_text(str(os.getpid()))\\ntime.sleep(600)"
    subprocess.run([sys.executable, "-c", script], check=True)

def stop(*_):
    if stubborn:
        return
    with open(stops, "a") as file:
        file.write(f"{port}\\n")
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
print("listening on", port, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def server(folder: Path, name: str, *after: str, daemon: bool = False, stubborn: bool = False) -> ChildSpec:
    port = free_port()
    return ChildSpec(
        name=name,
        argv=[
            sys.executable, "-I", "-c", SERVER, str(port), str(folder / "stops"),
            str(folder / f"{name}.daemon") if daemon else "", "stubborn" if stubborn else "",
        ],
        log=folder / f"{name}.log",
        ready=f"http://127.0.0.1:{port}/",
        after=after,
        url=f"http://127.0.0.1:{port}/",
        port=port,
        ready_timeout=30.0,
        stop_timeout=0.5 if stubborn else 10.0,
    )  # fmt: skip


def script(folder: Path, name: str, code: str, *after: str, **options: object) -> ChildSpec:
    argv = [sys.executable, "-I", "-c", code]
    return ChildSpec(name=name, argv=argv, log=folder / f"{name}.log", after=after, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def started(folder: Path, specs: Iterable[ChildSpec]) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(specs, mark=str(folder))
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


def child(supervisor: Supervisor, name: str) -> ChildStatus:
    return next(status for status in supervisor.status() if status.name == name)


async def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie that its new parent has not yet collected is dead."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def written_pid(file: Path) -> int:
    await until(lambda: file.exists() and file.read_text() != "")
    return int(file.read_text())


def marked(folder: Path) -> list[psutil.Process]:
    """Whatever lives of the folder's children, found by their environment and not by what the supervisor knows."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RATCHET_STACK_CHILD", "").startswith(f"{folder}::"):
                found.append(process)
    return found


async def test_a_child_starts_only_when_what_it_needs_is_ready(tmp_path: Path) -> None:
    first = server(tmp_path, "first")
    asks = f"import urllib.request; print(urllib.request.urlopen({first.url!r}).status)"
    async with started(tmp_path, [first, script(tmp_path, "second", asks, "first", once=True)]) as supervisor:
        assert child(supervisor, "first").state is ChildState.READY
        assert child(supervisor, "second").state is ChildState.DONE
        assert (tmp_path / "second.log").read_text() == "200\n"
        assert child(supervisor, "first").memory > 2**20
        assert len(marked(tmp_path)) == 2, "the child and its shim; the control for the tests of what is left"
    assert marked(tmp_path) == []


async def test_children_that_do_not_need_each_other_start_at_the_same_time(tmp_path: Path) -> None:
    nap = "import time; time.sleep(1.5)"
    began = time.monotonic()
    async with started(tmp_path, [script(tmp_path, name, nap, once=True) for name in ("a", "b", "c")]):
        assert time.monotonic() - began < 3.0


async def test_a_killed_child_comes_back_under_the_same_url(tmp_path: Path) -> None:
    async with started(tmp_path, [server(tmp_path, "only")]) as supervisor, httpx.AsyncClient() as client:
        before = child(supervisor, "only")
        for crash in (1, 2):
            pid = child(supervisor, "only").pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda crash=crash: child(supervisor, "only").restarts == crash)  # type: ignore[misc]
            assert child(supervisor, "only").state is ChildState.BACKING_OFF
            assert "SIGKILL" in child(supervisor, "only").note
            await until(lambda: child(supervisor, "only").state is ChildState.READY)
        after = child(supervisor, "only")
        assert (after.url, after.restarts) == (before.url, 2)
        assert after.pid != before.pid
        assert after.url is not None
        assert (await client.get(after.url)).status_code == 200


async def test_each_crash_in_a_row_waits_longer(tmp_path: Path) -> None:
    pauses: list[float] = []

    def listen() -> None:
        (status,) = supervisor.status()
        if status.state is ChildState.BACKING_OFF:
            pauses.append(float(status.note.split()[-2]))

    async def at_once() -> bool:
        return True

    crashes = script(tmp_path, "crashes", "import time; time.sleep(0.3)", ready=at_once)
    supervisor = Supervisor([crashes], mark=str(tmp_path), on_change=listen)
    try:
        await supervisor.start()
        await until(lambda: len(pauses) >= 3)
    finally:
        await supervisor.stop()
    assert pauses[0] < pauses[1] < pauses[2] < BACKOFF_CAP
    assert max(_backoff(crashes) for crashes in range(1, 200)) <= 1.25 * BACKOFF_CAP


async def test_a_child_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = script(
        tmp_path, "broken", "import sys; sys.exit('there is no such model: elephant')", "good", once=True
    )
    with pytest.raises(
        StackError, match=r"broken cannot start: it ended with code 1[\s\S]*no such model: elephant"
    ):
        async with started(tmp_path, [server(tmp_path, "good"), broken]):
            pass
    assert marked(tmp_path) == []


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = ChildSpec(name="missing", argv=["/no/such/program"], log=tmp_path / "missing.log")
    with pytest.raises(StackError, match=r"cannot start /no/such/program: No such file"):
        async with started(tmp_path, [missing]):
            pass


async def test_a_child_that_is_never_ready_is_given_up_and_stopped(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    slow = script(tmp_path, "slow", "print('still loading', flush=True); import time; time.sleep(600)",
                  ready=never, ready_timeout=1.0)  # fmt: skip
    with pytest.raises(
        StackError, match=r"slow cannot start: it was not ready after 1 s[\s\S]*still loading"
    ):
        async with started(tmp_path, [slow]):
            pass
    assert marked(tmp_path) == []


async def test_a_child_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    once = tmp_path / "killed"
    code = f"import os, pathlib\nif not os.path.exists({str(once)!r}):\n  open({str(once)!r}, 'w'); os.kill(os.getpid(), 9)"
    async with started(tmp_path, [script(tmp_path, "unlucky", code, once=True)]) as supervisor:
        assert child(supervisor, "unlucky").restarts == 1


async def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    specs = [server(tmp_path, "a"), server(tmp_path, "b", "a"), server(tmp_path, "c", "b")]
    async with started(tmp_path, specs):
        pass
    assert (tmp_path / "stops").read_text().split() == [str(spec.port) for spec in reversed(specs)]


async def test_a_child_that_ignores_the_stop_signal_is_killed_in_time(tmp_path: Path) -> None:
    async with started(tmp_path, [server(tmp_path, "deaf", stubborn=True, daemon=True)]):
        began = time.monotonic()
    assert 0.4 < time.monotonic() - began < 5.0
    assert marked(tmp_path) == []


async def test_what_a_killed_child_had_started_goes_with_it(tmp_path: Path) -> None:
    async with started(tmp_path, [server(tmp_path, "parent", daemon=True)]) as supervisor:
        daemon = await written_pid(tmp_path / "parent.daemon")
        assert alive(daemon)
        pid = child(supervisor, "parent").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: child(supervisor, "parent").restarts == 1)
        assert not alive(daemon)


async def test_a_killed_shim_leaves_nothing_and_the_child_comes_back(tmp_path: Path) -> None:
    async with started(tmp_path, [server(tmp_path, "parent", daemon=True)]) as supervisor:
        daemon = await written_pid(tmp_path / "parent.daemon")
        pid = child(supervisor, "parent").pid
        assert pid is not None
        psutil.Process(pid).parent().kill()  # type: ignore[union-attr]
        await until(lambda: child(supervisor, "parent").restarts == 1)
        assert not alive(daemon)
        await until(lambda: child(supervisor, "parent").state is ChildState.READY)
    assert marked(tmp_path) == []


async def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from tests.integration.test_supervisor import server, started\n"
        "async def main():\n  folder = Path(sys.argv[1])\n"
        "  specs = [server(folder, 'a', daemon=True), server(folder, 'deaf', stubborn=True)]\n"
        "  async with started(folder, specs):\n    print('up', flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-c", program, str(tmp_path), root]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "up\n"
        await until(lambda: len(marked(tmp_path)) == 5)  # two children, their shims, one descendant
        supervisor.kill()
    await until(lambda: marked(tmp_path) == [], timeout=8.0)


async def test_a_second_wish_to_stop_ends_all_at_once(tmp_path: Path) -> None:
    spec = server(tmp_path, "deaf", stubborn=True)
    supervisor = Supervisor([ChildSpec(**{**vars(spec), "stop_timeout": 60.0})], mark=str(tmp_path))
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop())
    await until(lambda: child(supervisor, "deaf").state is ChildState.STOPPING)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 10.0)
    assert marked(tmp_path) == []


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    for delay in (0.0, 0.01, 0.05, 0.3):
        spec = script(tmp_path, "slow", "import time; time.sleep(600)", ready=never)
        supervisor = Supervisor([spec], mark=str(tmp_path))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(supervisor.start(), delay)
        await supervisor.stop()
        assert marked(tmp_path) == []


def test_logs_rotate_by_size_and_keep_a_few(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for turn in range(6):
        log.write_text(f"{turn}" * 100)
        rotate(log, limit=100, keep=3)
    assert {path.name: path.read_text()[0] for path in tmp_path.iterdir()} == {
        "a.log.1": "5",
        "a.log.2": "4",
        "a.log.3": "3",
    }
    log.write_text("short")
    rotate(log, limit=100)
    assert log.exists()


def test_the_end_of_a_log_is_readable(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text('old\n{"event": "loading", "model": "small", "level": "info", "timestamp": "now"}\n')
    assert last_line(log) == "loading model=small"
    assert tail(log, since=log.stat().st_size) == "  (its log is empty)"
    log.write_text("start\nprogress 1\rprogress 2\n")
    assert last_line(log) == "progress 2"
    assert tail(log) == "  start\n  progress 2"


def test_ports_are_different_and_lie_below_those_of_outgoing_connections() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = free_ports(200)
    assert len(set(found)) == 200
    assert max(found) < low


async def test_a_child_that_is_stopped_is_killed_and_started_again(tmp_path: Path) -> None:
    spec = replace(server(tmp_path, "hanging"), hang_seconds=1.5)
    assert isinstance(spec.url, str)
    async with started(tmp_path, [replace(spec, live=spec.url)]) as supervisor:
        before = child(supervisor, "hanging")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGSTOP)
        await until(lambda: child(supervisor, "hanging").restarts == 1, 60)
        await until(lambda: child(supervisor, "hanging").state is ChildState.READY, 60)
        assert child(supervisor, "hanging").pid != before.pid
    assert marked(tmp_path) == []


@pytest.mark.parametrize(("body", "restarts"), [("busy", 0), ('{"alive":false,"silent":["sweep"]}', 1)])
async def test_a_child_that_is_busy_lives_and_one_that_says_otherwise_does_not(
    tmp_path: Path, body: str, restarts: int
) -> None:
    port = free_port()
    code = f"""
import http.server
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write({body.encode()!r} if self.path == "/livez" else b"")
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Answers).serve_forever()
"""
    url = f"http://127.0.0.1:{port}"
    spec = script(tmp_path, "child", code, ready=f"{url}/readyz", live=f"{url}/livez", hang_seconds=0.6)
    async with started(tmp_path, [spec]) as supervisor:
        if restarts:
            await until(lambda: child(supervisor, "child").restarts >= 1, 60)
        else:
            # Asked ten times and more.
            await asyncio.sleep(2.5)
            assert child(supervisor, "child").restarts == 0


async def test_a_stop_that_comes_as_a_look_ends_is_not_lost(tmp_path: Path) -> None:
    """Cancelled in the moment in which the child's probe answers; `asyncio.wait_for` swallowed that in Python 3.11."""
    armed = asyncio.Event()

    async def live() -> bool:
        if armed.is_set():
            armed.clear()
            life = supervisor._children["lively"].life
            assert life is not None
            asyncio.get_running_loop().call_soon(life.cancel)
        return True

    spec = script(tmp_path, "lively", "import time; time.sleep(600)", live=live, hang_seconds=0.3)
    async with started(tmp_path, [spec]) as supervisor:
        life = supervisor._children["lively"].life
        assert life is not None
        armed.set()
        await until(lambda: not armed.is_set())
        await until(life.done, timeout=5.0)
