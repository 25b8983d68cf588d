"""Sessions of the sandbox: what a tree of snapshots gives is what a re-execution from nothing gives, whatever is lost."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox_server import Sandbox, busy_processes, running_sandbox, sandbox

__all__ = ["sandbox"]


class Session:
    """A session of the service, and a client for it."""

    def __init__(self, sandbox: Sandbox, **request: Any) -> None:
        self.http = sandbox.http
        response = self.http.post("/sessions", json=request)
        assert response.status_code == 201, response.text
        self.id = response.json()["id"]

    def run(self, parent: str, code: str) -> dict[str, Any]:
        """One step after a node."""
        answer = self._post(f"nodes/{parent}/run", {"code": code})
        step: dict[str, Any] = answer["step"]
        return step | {"run": answer["status"], "message": answer["message"]}

    def chains(self, *chains: list[str], parent: str = "root") -> list[dict[str, Any]]:
        """Chains of steps side by side."""
        body = {"chains": [{"parent": parent, "steps": steps} for steps in chains]}
        found: list[dict[str, Any]] = self._post("batch", body)["chains"]
        return found

    def chain(self, *steps: str) -> list[dict[str, Any]]:
        """One chain from the root; what its steps did."""
        found: list[dict[str, Any]] = self.chains(list(steps))[0]["steps"]
        return found

    def view(self) -> dict[str, Any]:
        """What the service says of it."""
        found: dict[str, Any] = self.http.get(f"/sessions/{self.id}").json()
        return found

    def close(self) -> None:
        """End it."""
        assert self.http.delete(f"/sessions/{self.id}").status_code == 200

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self.http.post(f"/sessions/{self.id}/{path}", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A service that keeps two snapshots, so that nearly every state has to be made again."""
    log = tmp_path_factory.mktemp("forgetful") / "log"
    with running_sandbox(log, workers="2", max_snapshots="2") as running:
        yield running


def test_a_step_goes_on_from_its_parent_and_leaves_it_as_it_was(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    first = session.run("root", "x = [1]\nprint('first')")
    assert (first["status"], first["stdout"], first["run"]) == ("ok", "first\n", "Success")
    left = session.run(first["node"], "x.append(2)\nprint(x)")
    right = session.run(first["node"], "x.append(3)\nprint(x)")
    assert (left["stdout"], right["stdout"]) == ("[1, 2]\n", "[1, 3]\n")
    assert session.run(left["node"], "print(x)")["stdout"] == "[1, 2]\n"
    assert session.view() == {"id": session.id, "nodes": 4, "snapshots": 4, "executed": 4, "replayed": 0}
    session.close()


def test_what_another_branch_holds_is_not_held_against_a_step(tmp_path: Path) -> None:
    """The kernel kills in a session that is full; a step that held little by itself is run again, alone."""
    filling = "held = bytearray(b'x') * (300 * 2**20)\nprint(len(held))"
    waiting = "import time\ntime.sleep(1.2)\n"
    with running_sandbox(tmp_path / "log", workers="3", session_memory_mb="256") as sandbox:
        layers = sandbox.health()["detail"]["layers"]
        if not {"cgroup-v1-memory", "cgroup-v2-memory"} & set(layers):
            pytest.skip("no cgroup bounds a session's memory here")
        session = Session(sandbox, run_timeout=4.0, memory_limit_MB=512)
        steps = [filling], [waiting + "undefined"], [waiting + "print(40 + 2)", "print('next')"]
        [[filled], [raised], [printed, following]] = [chain["steps"] for chain in session.chains(*steps)]
        assert (filled["status"], filled["stdout"]) == ("ok", f"{300 * 2**20}\n"), (
            "it is within its own limit"
        )
        assert (raised["status"], raised["measured"]["limit"]) == ("error", None), raised
        assert "NameError" in raised["stderr"]
        assert (printed["stdout"], following["stdout"]) == ("42\n", "next\n")
        assert "step run again by itself" in (tmp_path / "log").read_text(), "nothing was filled"


def test_a_step_that_is_known_is_answered_from_memory(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    draw = "import time\nprint(time.time_ns())"
    one, again = session.run("root", draw), session.run("root", draw)
    assert one == again
    failing = "print(time.time_ns()); 1 / 0"
    assert session.run(one["node"], failing) == session.run(one["node"], failing)
    assert session.view()["executed"] == 2


def test_each_step_says_whether_its_own_output_was_cut(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    found = session.chain("\ufeffx = 5", "print('a' * 100_000)\nprint(x)", "print(x)")
    assert [step["stdout_truncated"] for step in found] == [False, True, False]
    assert [step["measured"]["stdout_truncated"] for step in found] == [False, True, False]
    assert found[1]["stdout"].endswith("aa\n5\n")
    assert found[2]["stdout"] == "5\n"
    session.close()


def test_the_same_chain_asked_for_at_once_is_run_once(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    steps = ["import time\ntime.sleep(0.2)\na = time.time_ns()", "print(a)"]
    chains = session.chains(*[steps] * 8)
    assert len({chain["steps"][1]["stdout"] for chain in chains}) == 1
    assert session.view()["executed"] == 2


def test_the_first_step_that_fails_ends_its_chain_alone(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    failed, fine = session.chains(["x = 1", "1 / 0", "print(x)"], ["x = 1", "print(x)"])
    assert [step["status"] for step in failed["steps"]] == ["ok", "error", "not_run"]
    assert (failed["status"], fine["status"], fine["steps"][1]["stdout"]) == ("Failed", "Success", "1\n")
    node = failed["steps"][1]["node"]
    response = sandbox.http.post(f"/sessions/{session.id}/nodes/{node}/run", json={"code": "print(1)"})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_limits_hold_in_sessions_and_the_parent_goes_on(sandbox: Sandbox) -> None:
    session = Session(sandbox, run_timeout=1.0, memory_limit_MB=128)
    parent = session.run("root", "x = 7")["node"]
    spun = session.run(parent, "print('begun')\nwhile True: pass")
    assert (spun["status"], spun["measured"]["limit"], spun["stdout"]) == ("limit", "wall", "begun\n")
    hungry = session.run(parent, "kept = bytearray(10**9)")
    assert hungry["status"] in ("error", "limit")
    assert hungry["measured"]["limit"] == "memory" or "MemoryError" in hungry["stderr"]
    flooded = session.run(parent, "while True: print('x' * 10_000)")
    assert (flooded["status"], flooded["measured"]["limit"]) == ("limit", "output")
    left = session.run(parent, "print(1)\nimport os; os._exit(3)")
    assert (left["status"], left["stdout"], left["measured"]["limit"]) == ("killed", "1\n", None)
    assert session.run(parent, "print(x)")["stdout"] == "7\n"


def test_the_time_limit_is_for_all_steps_on_the_way(sandbox: Sandbox) -> None:
    session = Session(sandbox, run_timeout=1.0)
    nap = "import time; time.sleep(0.4)"
    assert [step["status"] for step in session.chain(nap, nap + " ", nap + "  ")] == ["ok", "ok", "limit"]


THREAD = """
import threading, time
seen = []
threading.Thread(target=lambda: (time.sleep(0.3), seen.append(1)), daemon=True).start()
"""


def test_a_state_that_cannot_be_forked_is_made_anew(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    first = session.run("root", THREAD)["node"]
    waited = session.run(first, "time.sleep(0.6)\nprint(seen)")
    assert waited["stdout"] == "[1]\n"
    opened = session.run("root", "import os\nfile = open(os.__file__)")["node"]
    one, two = (session.run(opened, f"print(repr(file.readline())){blank}") for blank in ("", " "))
    assert one["stdout"] == two["stdout"]
    assert len(one["stdout"]) > 10
    # Neither of the two first states was kept.
    assert session.view()["replayed"] == 3


def test_generators_are_seeded_once_and_drawn_from_as_in_one_run(sandbox: Sandbox) -> None:
    steps = [
        "import random, numpy\nprint(random.random(), numpy.random.rand())",
        "print(random.random(), numpy.random.default_rng().integers(10**9), numpy.random.rand())",
        "random.seed(3)\nprint(random.random())",
        "print(random.random())",
    ]
    session, other = Session(sandbox, seed=5), Session(sandbox, seed=6)
    printed = [step["stdout"] for step in session.chain(*steps)]
    assert printed == [step["stdout"] for step in sandbox.steps(*steps, seed=5)["steps"]]
    assert printed[0] != other.chain(*steps)[0]["stdout"]
    node, one_by_one = "root", []
    again = Session(sandbox, seed=5)
    for step in steps:
        done = again.run(node, step)
        node = done["node"]
        one_by_one.append(done["stdout"])
    assert printed == one_by_one


# Lines of steps: state of many kinds, output, failures, generators, and states that cannot be forked.
LINES = st.sampled_from(
    [
        *(
            "x = globals().get('x', 0) + 1",
            "y = [x] if 'x' in globals() else []",
            "print(x)",
            "y.append(len(y))",
        ),
        *("print(y)", "def f(n): return n * 2 + len(globals().get('y', []))", "print(f(3))", "x = f(x)"),
        *(
            "import random",
            "print(random.random())",
            "random.seed(4)",
            "import numpy as np",
            "print(np.random.rand(2))",
        ),
        *("z = (n * n for n in range(9))", "print(next(z))", "import sympy", "s = sympy.Symbol('s')"),
        *(
            "print(sympy.expand((s + 1) ** 3))",
            "print(sympy.solve(s**2 - x, s))",
            "print(np.arange(4).sum() / 3)",
        ),
        *(
            "class C:\n    n = 0\n    def up(self):\n        C.n += 1\n        return C.n",
            "print(C().up())",
            "del x",
        ),
        *(
            "import sys\nprint('e', file=sys.stderr)",
            "print('no end', end='')",
            "print('long ' * 14_000)",
            "print('\\u221a', '\\x00')",
            "1 / 0",
        ),
        *(
            "assert x < 3, x",
            "raise SystemExit(2)",
            "import os\nos._exit(0)",
            "open('/tmp/f', 'w')",
            "print(input())",
        ),
        *(
            "def g():\n    yield from range(3)\nh = g()",
            "print(next(h), list(h))",
            "file = open(sympy.__file__)",
        ),
        *(
            "print(file.readline())",
            "import threading\nt = threading.Thread(target=lambda: None); t.start(); t.join()",
        ),
        *(
            "from collections import Counter\nc = Counter('abca')",
            "c['a'] += 1\nprint(c.most_common(1))",
            "print((",
        ),
        *(
            "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b): print('hidden')",
            "print(b.tell())",
        ),
        *(
            "import signal\nsignal.alarm(1)",
            "import decimal\ndecimal.getcontext().prec = 5",
            "print(decimal.Decimal(1) / 3)",
        ),
        *(
            "print({'a', 'b'} | {str(globals().get('x'))})",
            "print(__name__, sorted(n for n in globals() if len(n) == 1))",
        ),
    ]
)
STEPS = st.lists(LINES, min_size=1, max_size=3).map("\n".join)
# A tree: each new step has a number that chooses its parent among the nodes that there are.
TREES = st.lists(st.tuples(st.integers(0, 100), STEPS), min_size=2, max_size=12)


def _agrees_with_reexecution(service: Sandbox, tree: list[tuple[int, str]], seed: int) -> None:
    session = Session(service, seed=seed)
    nodes: list[tuple[str, list[str]]] = [("root", [])]
    reexecuted: list[list[dict[str, Any]]] = []
    for number, code in tree:
        parent, path = nodes[number % len(nodes)]
        step = session.run(parent, code)
        again = service.steps(*path, code, seed=seed)["steps"]
        assert {name: step[name] for name in again[-1]} == again[-1], (path, code, step)
        if step["status"] == "ok":
            nodes.append((step["node"], [*path, code]))
            reexecuted.append(again)
    # And the same again as chains, in a session that knows nothing.
    fresh = Session(service, seed=seed)
    if reexecuted:
        chains = fresh.chains(*[path for _, path in nodes[1:]])
        for chain, again in zip(chains, reexecuted, strict=True):
            assert [{name: step[name] for name in again[0]} for step in chain["steps"]] == again
    session.close()
    fresh.close()


SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SETTINGS
@given(tree=TREES, seed=st.integers(0, 2**32 - 1))
def test_a_tree_of_snapshots_gives_what_a_reexecution_gives(
    sandbox: Sandbox, tree: list[tuple[int, str]], seed: int
) -> None:
    _agrees_with_reexecution(sandbox, tree, seed)


@SETTINGS
@given(tree=TREES, seed=st.integers(0, 2**32 - 1))
def test_and_so_it_does_when_snapshots_are_given_up(
    forgetful: Sandbox, tree: list[tuple[int, str]], seed: int
) -> None:
    _agrees_with_reexecution(forgetful, tree, seed)


def test_snapshots_beyond_the_number_allowed_are_given_up_the_oldest_first(forgetful: Sandbox) -> None:
    session = Session(forgetful)
    nodes = [session.run("root", f"n = {number}")["node"] for number in range(4)]
    assert session.view()["snapshots"] == 2
    assert [session.run(node, "print(n)")["stdout"] for node in nodes] == ["0\n", "1\n", "2\n", "3\n"]
    assert session.view()["replayed"] >= 2
    assert forgetful.health()["detail"]["snapshots_given_up"] >= 4


def test_a_step_that_does_not_run_twice_makes_what_follows_an_error(forgetful: Sandbox) -> None:
    session = Session(forgetful)
    once = "import time\nassert time.time() % 1000 < LIMIT"
    limit = time.time() % 1000 + 1.5
    flaky = session.run("root", once.replace("LIMIT", str(limit)))
    assert flaky["status"] == "ok"
    for number in range(3):
        session.run("root", f"n = {number}")
    time.sleep(1.7)
    after = session.run(flaky["node"], "print(1)")
    assert (after["status"], after["run"]) == ("error", "Failed")
    assert after["stderr"] == "an earlier step did not run again\n"


def _below(sandbox: Sandbox) -> set[int]:
    return {process.pid for process in psutil.Process(sandbox.process.pid).children(recursive=True)}


def test_the_end_of_a_session_leaves_no_process_behind(sandbox: Sandbox) -> None:
    warm = Session(sandbox)
    warm.chain("x = 1")
    warm.close()
    time.sleep(0.3)
    before = _below(sandbox)
    session = Session(sandbox)
    session.chains(*[[f"x = {n}", "y = x"] for n in range(20)], ["x = 1", THREAD])
    assert len(_below(sandbox)) > len(before) + 10
    session.close()
    time.sleep(0.5)
    assert len(_below(sandbox)) <= len(before)
    assert sandbox.http.get(f"/sessions/{session.id}").status_code == 404


def test_a_session_whose_processes_are_killed_goes_on(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    node = session.chain("import random\nx = random.random()", "print(x)")[0]["node"]
    expected = session.run(node, "print(x, 1)")["stdout"]
    for process in psutil.Process(sandbox.process.pid).children(recursive=True):
        # Those of a pid namespace end with its first.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "zygote.py" in " ".join(process.cmdline()[:6]):
                process.send_signal(signal.SIGKILL)
    time.sleep(0.3)
    assert session.run(node, "print(x,  1)")["stdout"] == expected
    assert session.view()["replayed"] >= 1
    assert sandbox.stdout("print('still here')") == "still here\n"


def test_an_idle_session_is_ended_and_too_many_are_refused(tmp_path: Path) -> None:
    with running_sandbox(
        tmp_path / "log", workers="1", max_sessions="2", session_idle_seconds="0.6"
    ) as small:
        first, _ = Session(small), Session(small)
        first.chain("x = 1")
        refused = small.http.post("/sessions", json={})
        assert refused.status_code == 503
        assert "2 sessions" in refused.json()["detail"]
        deadline = time.monotonic() + 20
        while small.http.get(f"/sessions/{first.id}").status_code != 404:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert Session(small).chain("print(1)")[0]["stdout"] == "1\n"


def test_a_caller_that_goes_away_ends_its_steps_and_the_session_stays(sandbox: Sandbox) -> None:
    session = Session(sandbox, run_timeout=60)
    node = session.run("root", "x = 3")["node"]
    with pytest.raises(httpx.ReadTimeout):
        sandbox.http.post(
            f"/sessions/{session.id}/nodes/{node}/run", json={"code": "while True: pass"}, timeout=0.5
        )
    began = time.monotonic()
    assert session.run(node, "print(x)")["stdout"] == "3\n"
    assert time.monotonic() - began < 5
    assert not busy_processes(sandbox)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/sessions/none/batch", {"chains": [{"steps": ["x"]}]}, 404),
        ("/sessions/none/nodes/root/run", {"code": "x"}, 404),
        ("/sessions/{id}/nodes/none/run", {"code": "x"}, 404),
        ("/sessions/{id}/batch", {"chains": []}, 422),
        ("/sessions/{id}/batch", {"chains": [{"steps": []}]}, 422),
        ("/sessions", {"run_timeout": -1}, 422),
        ("/sessions", {"memory_limit_MB": 1}, 422),
    ],
)
def test_bad_requests_are_refused(sandbox: Sandbox, path: str, body: dict[str, Any], status: int) -> None:
    session = Session(sandbox)
    response = sandbox.http.post(path.replace("{id}", session.id), json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
