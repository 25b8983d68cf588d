"""Programs that other sandboxes were reported to run wrongly, and what is right. Most of them are from public issue threads."""

from typing import Any

import pytest

from tests.sandbox_server import Sandbox, sandbox

__all__ = ["sandbox"]

STARS = "string re collections copy math random statistics itertools functools operator io sys json builtins typing"
PRELUDE = "".join(f"from {module} import *\n" for module in STARS.split())


@pytest.mark.parametrize(
    ("code", "stdin", "printed"),
    [
        # Names of builtins, io and sys are shadowed in the program (verl's wrapper of star imports).
        (
            PRELUDE + "import sys, math\nprint(gcd(12, 18), math.comb(5, 2), sys.stdin.read().strip())",
            "7\n",
            "6 10 7\n",
        ),
        ("print(42, end='')", "", "42"),
        ("s = input()\nprint(s.replace('ầ', 'a'), len(s))", "thầu ao\n", "thau ao 7\n"),
        ("print(int(input()) + int(input()))", "3\r\n4\r\n", "7\n"),
        ("def f(g):\n    return lambda: 2 * g()\n@f\ndef v():\n    return 21\nprint(v())", "", "42\n"),
        (
            "d = {}\nfor a in range(2):\n    for b in range(2):\n"
            "        d[a, b] = [c * a + b for c in range(2) for e in range(1)]\nprint(d)",
            "",
            "{(0, 0): [0, 0], (0, 1): [1, 1], (1, 0): [0, 1], (1, 1): [1, 2]}\n",
        ),
        ("d = {'f': lambda x: x + 10}\nprint(d['f'](1))", "", "11\n"),
        ("def main():\n    print(36)\n\nif __name__ == '__main__':\n    main()", "", "36\n"),
        ("print(5)\nexit()\nprint(6)", "", "5\n"),
        ("print(sum(int(d) for d in str(2**20000)))", "", "26995\n"),
        (
            "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(20000))",
            "",
            "20000\n",
        ),
        (
            "import threading, time\ndef late():\n    time.sleep(0.1)\n    print('late')\n"
            "threading.Thread(target=late).start()\nprint('main')",
            "",
            "main\nlate\n",
        ),
        ("π = 3\nθ = π * 2\nprint(θ, 'résultat → √2')", "", "6 résultat → √2\n"),
        ("x = 6\r\nif x > 5:\r\n    print(x * 7)\r\n", "", "42\n"),
        ("import numpy as np\nprint([np.float64(3.0)], np.float64(3.0))", "", "[np.float64(3.0)] 3.0\n"),
    ],
)
def test_a_program_prints_what_python_prints(sandbox: Sandbox, code: str, stdin: str, printed: str) -> None:
    assert sandbox.stdout(code, stdin=stdin) == printed


def test_numpy_fits_into_the_least_memory(sandbox: Sandbox) -> None:
    assert (
        sandbox.stdout("import numpy as np\nprint(int(np.arange(10).sum()))", memory_limit_MB=128) == "45\n"
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import this_module_is_not_there\n" + "x = 1\n" * 9_000, "ModuleNotFoundError"),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(3)", "ModuleNotFoundError"),
        ("```python\nprint(1)\n```", "SyntaxError"),
    ],
)
def test_a_program_that_cannot_run_says_why_at_once(sandbox: Sandbox, code: str, error: str) -> None:
    # What it does not read of its input must not break the pipe.
    answer = sandbox.code(code, stdin="9" * 90_000)
    result = answer["run_result"]
    assert (answer["status"], result["status"], result["return_code"]) == ("Failed", "Finished", 1)
    assert result["stderr"].strip().rpartition("\n")[2].startswith(error)


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(A())\nprint(repr(A()))",
        "while True:\n    print('1234567890')",
        "from multiprocessing import Pool\nif __name__ == '__main__':\n    with Pool(2) as p:\n        print(p.map(abs, [0]))",
    ],
)
def test_a_program_that_breaks_its_limits_fails_and_harms_nobody(sandbox: Sandbox, code: str) -> None:
    answer = sandbox.code(code, run_timeout=5)
    assert answer["status"] == "Failed"
    assert len(answer["run_result"]["stdout"]) < 200_000
    assert sandbox.stdout("print(1)") == "1\n"


def test_all_bytes_may_be_printed_and_of_a_flood_the_end_is_kept(sandbox: Sandbox) -> None:
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)))\nsys.stdout.flush()"
    assert sandbox.code(code)["status"] == "Success"
    answer = sandbox.code("for i in range(100_000): print(i)\nprint('ANSWER', 7)")
    assert answer["run_result"]["measured"]["stdout_truncated"]
    assert answer["run_result"]["stdout"].endswith("\nANSWER 7\n")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"code": "print(1)", "run_timeout": NaN}', "run_timeout"),
        (b'{"code": "print(\\"\\ud83d\\")"}', "code"),
    ],
)
def test_json_that_is_none_is_refused_by_the_name_of_its_field(
    sandbox: Sandbox, body: bytes, field: str
) -> None:
    answer = sandbox.http.post("/run_code", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in answer.json()["errors"]]


OK = {"status": "ok"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            ["print('A')", "x = ("],
            [OK | {"stdout": "A\n"}, {"status": "error", "stdout": "", "error": "SyntaxError"}],
        ),
        (["print('a', end='')", "print('b')"], [OK | {"stdout": "a"}, OK | {"stdout": "b\n"}]),
        (
            ["for i in range(100_000): print(i)", "print(7)"],
            [OK | {"stdout_truncated": True}, OK | {"stdout": "7\n"}],
        ),
        (
            ["print(1)", "import sys\nsys.exit(0)", "print(2)"],
            [OK | {"stdout": "1\n"}, {"status": "killed"}, {"status": "not_run"}],
        ),
        (
            ["data = [1, 2]", "print('x')\nprint(data[5])", "print('never')"],
            [OK, {"status": "error", "stdout": "x\n", "error": "IndexError"}, {"status": "not_run"}],
        ),
        (
            [
                "n = 3\ndef f(k):\n    return sum(k * j for j in range(n))",
                "n = 4\nprint(f(2), [f(i) for i in range(n)])",
            ],
            [OK | {"stdout": ""}, OK | {"stdout": "12 [0, 6, 12, 18]\n"}],
        ),
        # It is no shell: the value of an expression is not printed.
        (["x = 6 * 7", "x"], [OK, OK | {"stdout": ""}]),
        (["print('\\d')"], [OK | {"stdout": "\\d\n"}]),
        (["```python", "print(1)"], [{"status": "error", "error": "SyntaxError"}, {"status": "not_run"}]),
        (["\ufeffx = 5", "print(x)"], [OK, OK | {"stdout": "5\n"}]),
    ],
)
def test_steps_are_told_apart(sandbox: Sandbox, steps: list[str], expected: list[dict[str, Any]]) -> None:
    found = sandbox.steps(*steps)["steps"]
    assert len(found) == len(expected)
    for step, wanted in zip(found, expected, strict=True):
        error = step["stderr"].strip().rpartition("\n")[2].partition(":")[0]
        assert {name: error if name == "error" else step[name] for name in wanted} == wanted


def test_one_seed_gives_one_output_in_every_copy(sandbox: Sandbox) -> None:
    step = "import random, numpy as np\nprint(random.random(), np.random.rand(), np.random.default_rng().integers(10**6))"
    runs = sandbox.http.post("/run_steps/batch", json={"runs": [{"steps": [step], "seed": 3}] * 4}).json()
    assert len({run["steps"][0]["stdout"] for run in runs["results"]}) == 1
