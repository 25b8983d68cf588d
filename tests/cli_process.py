"""`ratchet` as a process for each call, without its imports each time: forked from a process that has them.

A call has its own pid, working folder, standard streams and exit code, as if a shell had started it. What is not covered is the
start itself; the tests of interrupts start real processes. `python -m tests.cli_process FD` is the process that is forked.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
CALL_SECONDS = 120.0
MOST_BYTES = 2**20


def ratchet(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `ratchet ARGUMENTS`. No command may end in a traceback."""
    with tempfile.TemporaryFile() as put, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        put.write(stdin)
        put.seek(0)
        call = json.dumps({"arguments": arguments, "cwd": str(cwd or Path.cwd())}).encode()
        socket.send_fds(_zygote(), [call], [put.fileno(), out.fileno(), said.fileno()])
        code = int(_zygote().recv(MOST_BYTES))
        out.seek(0)
        said.seek(0)
        done = subprocess.CompletedProcess(arguments, code, out.read().decode(), said.read().decode())
    assert "Traceback" not in done.stderr, done.stderr
    return done


@cache
def _zygote() -> socket.socket:
    """The way to the process that is forked; it ends when this process does, and its end of the socket closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(CALL_SECONDS)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.cli_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=ENVIRONMENT,
            cwd=ROOT,
        )
    return ours


def serve(calls: socket.socket) -> None:
    """Fork for each call, and answer with the exit code, until the caller has gone."""
    from ratchet.cli.main import app

    def child(call: dict[str, object], streams: list[int]) -> NoReturn:
        code: object = 1
        try:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            calls.close()
            os.chdir(str(call["cwd"]))
            app(call["arguments"], prog_name="ratchet")
        except SystemExit as end:
            code = end.code
        except Exception:  # noqa: BLE001 - the traceback is what the caller looks for
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    while True:
        message, streams, _, _ = socket.recv_fds(calls, MOST_BYTES, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            child(json.loads(message), streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(pid, 0)
        calls.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
