"""Nonsense on every wire: what a hostile child says on its control socket, and what a caller sends. No crash, no hang."""

import socket
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.sandbox_server import BEARER, Sandbox, sandbox

__all__ = ["sandbox"]

SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# The protocol's own letters are likelier than others to lead somewhere.
WORDS = st.lists(
    st.one_of(st.sampled_from([b"r", b"k", b"u", b"e", b"n", b"x", b"f"]), st.binary(max_size=40)), max_size=6
)
ENDS = st.sampled_from(
    [
        *("", "os._exit(0)", "os.close(3)", "os.closerange(0, 64)", "os.dup2(1, 3)", "time.sleep(60)"),
        *(
            "os.read(3, 1)",
            "os.read(3, 5)",
            "raise SystemExit(1)",
            "os.dup2(3, 1)",
            "while True: os.write(3, b'k')",
        ),
    ]
)
SECONDS = 0.4
OPENED = f"POST /run_code HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\n".encode()
"""The beginning of a request that the door lets in."""


def _hostile(words: list[bytes], end: str) -> str:
    return f"import os, time\nfor word in {words!r}: os.write(3, word)\n{end}\n"


def _alive(sandbox: Sandbox) -> None:
    began = time.monotonic()
    assert sandbox.stdout("print(6 * 7)") == "42\n"
    assert time.monotonic() - began < 10


@SETTINGS
@given(words=WORDS, end=ENDS)
def test_a_program_may_say_anything(sandbox: Sandbox, words: list[bytes], end: str) -> None:
    answer = sandbox.code(_hostile(words, end), run_timeout=SECONDS)
    assert answer["status"] in ("Success", "Failed")
    _alive(sandbox)


@SETTINGS
@given(words=WORDS, end=ENDS)
def test_a_step_may_say_anything(sandbox: Sandbox, words: list[bytes], end: str) -> None:
    began = time.monotonic()
    answer = sandbox.steps("x = 1", _hostile(words, end), "print(x)", run_timeout=SECONDS)
    assert answer["steps"][0]["status"] == "ok"
    assert time.monotonic() - began < 10
    _alive(sandbox)


@SETTINGS
@given(words=WORDS, end=ENDS)
def test_a_node_of_a_session_may_say_anything_and_its_siblings_live(
    sandbox: Sandbox, words: list[bytes], end: str
) -> None:
    session = sandbox.http.post("/sessions", json={"run_timeout": SECONDS}).json()["id"]

    def run(parent: str, code: str) -> dict[str, str]:
        response = sandbox.http.post(f"/sessions/{session}/nodes/{parent}/run", json={"code": code})
        assert response.status_code == 200, response.text
        step: dict[str, str] = response.json()["step"]
        return step

    parent = run("root", "x = 5")["node"]
    hostile = run(parent, _hostile(words, end))
    if hostile["status"] == "ok":
        # Whatever it said for its successors, each is answered, and by itself.
        for code in ("print(x)", "print(x + 1)"):
            assert run(hostile["node"], code)["status"] in ("ok", "error", "limit", "killed")
    assert run(parent, "print(x)")["stdout"] == "5\n"
    assert sandbox.http.delete(f"/sessions/{session}").status_code == 200


@SETTINGS
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda body: OPENED + body),
    )
)
def test_a_caller_may_send_anything(sandbox: Sandbox, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", sandbox.http.base_url.port or 0), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert sandbox.health()["ready"]
