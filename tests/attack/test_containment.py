"""Hostile programs against the real jail. Each attack first succeeds on the host, where that is harmless: the positive
control shows that the test would see a leak."""

import concurrent.futures
import os
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sandbox_server import ROOT, Sandbox, sandbox

__all__ = ["sandbox"]


def on_host(code: str) -> str:
    """What the program prints on the host, unconfined. Only for attacks that harm nobody."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout


READ = """
import pathlib
for path in {paths!r}:
    try: print(pathlib.Path(path).read_text().split())
    except OSError as error: print(type(error).__name__)
"""


def test_the_hosts_files_are_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    (tmp_path / "secret").write_text(marker)
    files = {
        "/etc/passwd": "root:",
        str(ROOT / "pyproject.toml"): "ratchet",
        str(ROOT / "services" / "sandbox" / "app.py"): "sandbox",
        str(tmp_path / "secret"): marker,
    }
    read = READ.format(paths=list(files))
    assert all(seen in line for line, seen in zip(on_host(read).splitlines(), files.values(), strict=True))
    assert sandbox.stdout(read).split() == ["FileNotFoundError"] * len(files)


def test_nothing_but_pythons_files_is_visible(sandbox: Sandbox) -> None:
    walk = """
import os
for folder, folders, files in os.walk("/"):
    for name in files:
        if not (folder + "/").startswith(("/usr/", "/lib", {prefix!r} + "/", "/jail/site/", "/dev/")):
            print(os.path.join(folder, name))
""".replace("{prefix!r}", repr(str(Path(sys.base_prefix).resolve())))
    harness = [
        f"/jail/services/sandbox/inside/{n}.py"
        for n in ("__init__", "confine", "interpret", "kernel", "zygote")
    ]
    assert sorted(sandbox.stdout(walk, run_timeout=60).split()) == ["/etc/ld.so.cache", *harness]
    packages = "import os; print(sorted(n.split('.')[0] for n in os.listdir('/jail/site')))"
    shown = set(eval(sandbox.stdout(packages)))
    assert {"sympy", "mpmath", "numpy"} <= shown <= {"sympy", "mpmath", "numpy", "gmpy2"}
    # Nor can other installed packages be imported.
    probe = "import importlib.util\nprint(importlib.util.find_spec('httpx') is not None)"
    assert on_host(probe) == "True\n"
    assert sandbox.stdout(probe) == "False\n"


def test_there_is_no_proc_and_no_sys(sandbox: Sandbox) -> None:
    probe = "import os\nfor p in ('/proc/self/status', '/proc/1/environ', '/sys/kernel'): print(os.path.exists(p))"
    assert on_host(probe).split()[0] == "True"
    assert sandbox.stdout(probe).split() == ["False"] * 3


def test_the_environment_and_the_arguments_are_empty(sandbox: Sandbox) -> None:
    probe = "import os, sys; print(dict(os.environ), len(sys.argv[0]), bool(os.environ.get('PATH')))"
    assert on_host(probe).endswith("True\n")
    assert sandbox.stdout(probe) == "{} 0 False\n"


WRITE = """
import os
written = []
for folder in ("/", "/dev", "/tmp", "/usr/lib", "/etc", "/jail", "/jail/site", "/jail/site/sympy", {lib!r}):
    try:
        with open(os.path.join(folder, {name!r}), "w") as file: file.write("x")
        written.append(folder)
    except OSError: pass
print(written)
"""


def test_only_tmp_can_be_written_and_it_does_not_outlive_the_request(sandbox: Sandbox) -> None:
    name = secrets.token_hex(8)
    write = WRITE.format(name=name, lib=str(Path(os.__file__).parent))
    # The control: within one request the file is there.
    found = f"import os\nprint([d for d in ('/', '/tmp', '/dev', '/dev/shm') if os.path.exists(d + '/' + {name!r})])"
    assert sandbox.stdout(f"{write}\n{found}") == "['/tmp']\n['/tmp']\n"
    # Both workers: whichever wrote, the other asks.
    assert {sandbox.stdout(found) for _ in range(6)} == {"[]\n"}


def test_tmp_is_small(sandbox: Sandbox) -> None:
    fill = """
import os
total = 0
try:
    for n in range(100):
        with open(f"/tmp/{n}", "wb", buffering=0) as f:
            for _ in range(8): total += f.write(bytes(2**20))
except OSError as error: print(error.strerror)
print(total <= 33 * 2**20, total > 2**20)
"""
    assert sandbox.stdout(fill) == "No space left on device\nTrue True\n"


def test_python_state_does_not_pass_from_one_request_to_the_next(sandbox: Sandbox) -> None:
    poison = "import builtins, sympy, os\nbuiltins.leak = 1; sympy.leak = 1; os.environ['LEAK'] = '1'; print('done')"
    probe = "import builtins, sympy, os\nprint(hasattr(builtins, 'leak'), hasattr(sympy, 'leak'), 'LEAK' in os.environ)"
    assert sandbox.stdout(f"{poison}\n{probe}") == "done\nTrue True True\n"
    for _ in range(4):
        assert sandbox.stdout(poison) == "done\n"
        assert sandbox.stdout(probe) == "False False False\n"


FORBIDDEN = {
    "socket": "import socket; socket.socket()",
    "unix socket": "import socket; socket.socketpair()",
    "fork": "import os; os.fork()",
    "exec": "import os, sys; os.execv(sys.executable or '/x', ['x'])",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "memfd": "import os; os.memfd_create('x')",
    "pidfd": "import os; os.pidfd_open(1)",
    "mknod": "import os; os.mkfifo('/tmp/x')",
    "symlink": "import os; os.symlink('/a', '/tmp/x')",
    "chroot": "import os; os.chroot('/tmp')",
    "setuid": "import os; os.setuid(1)",
    "priority": "import os; os.nice(-5)",
    "limit": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "host name": "import socket; socket.sethostname('x')",
}


@pytest.mark.parametrize("attack", FORBIDDEN)
def test_forbidden_calls_fail_with_a_permission_error(sandbox: Sandbox, attack: str) -> None:
    answer = sandbox.code(FORBIDDEN[attack])
    assert answer["run_result"]["return_code"] == 1
    last = answer["run_result"]["stderr"].splitlines()[-1]
    assert last.startswith("PermissionError") or "not allowed to raise maximum limit" in last, last


RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number, *arguments in {calls!r}:
    result = libc.syscall(number, *arguments)
    print(result, ctypes.get_errno())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of this architecture")
def test_raw_system_calls_are_filtered_too(sandbox: Sandbox) -> None:
    numbers = {
        "getpid": (39,),
        "unshare": (272, 0x10000000),
        "mount": (165, 0, 0, 0, 0, 0),
        "ptrace": (101, 0, 0, 0, 0),
        "bpf": (321, 0, 0, 0),
        "io_uring_setup": (425, 1, 0),
        "keyctl": (250, 0, 0),
        "userfaultfd": (323, 0),
        "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
        "prctl": (157, 4, 1, 0, 0, 0),
        "shmget": (29, 0, 4096, 0o1600),
        "clone_fork": (56, 17, 0, 0, 0, 0),
        "clone_newuser": (56, 0x10000000 | 17, 0, 0, 0, 0),
        "open_by_handle_at": (304, 0, 0, 0),
        "tiocsti": (16, 0, 0x5412, 0),
    }
    lines = sandbox.stdout(RAW.format(calls=list(numbers.values()))).splitlines()
    # The control: an allowed call works, by which the program also is the first process of its namespace.
    assert lines[0] == "1 0"
    assert dict(zip(list(numbers)[1:], lines[1:], strict=True)) == dict.fromkeys(list(numbers)[1:], "-1 1")
    clone3 = sandbox.stdout(RAW.format(calls=[(435, 0, 0)]))
    assert clone3 == "-1 38\n"


def test_threads_are_allowed_but_not_without_end(sandbox: Sandbox) -> None:
    assert (
        sandbox.stdout(
            "import threading\nt = [threading.Thread(target=print, args=(n,)) for n in range(3)]\n"
            "for x in t: x.start(); x.join()"
        )
        == "0\n1\n2\n"
    )
    bomb = """
import threading, time
n = 0
try:
    while n < 5000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1
except RuntimeError: pass
print(n < 200)
"""
    assert sandbox.stdout(bomb, memory_limit_MB=512) == "True\n"


def test_a_fork_bomb_makes_no_process(sandbox: Sandbox) -> None:
    before = len(psutil.Process(sandbox.process.pid).children(recursive=True))
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    with concurrent.futures.ThreadPoolExecutor() as threads:
        run = threads.submit(sandbox.code, bomb, run_timeout=1.5)
        while not run.done():
            assert len(psutil.Process(sandbox.process.pid).children(recursive=True)) <= before + 1
        assert run.result()["run_result"]["measured"]["limit"] == "wall"


@pytest.mark.parametrize(
    "bomb",
    [
        "x = [0]\nwhile True: x = x + x",
        "import numpy\nkept = []\nwhile True: kept.append(numpy.ones(10**6))",
        "import mmap\nkept = []\nwhile True:\n    m = mmap.mmap(-1, 2**24); m.write(bytes(2**24)); kept.append(m)",
    ],
)
def test_a_memory_bomb_is_stopped_near_its_limit(sandbox: Sandbox, bomb: str) -> None:
    answer = sandbox.code(bomb, memory_limit_MB=128)
    assert answer["status"] == "Failed"
    assert answer["run_result"]["measured"]["peak_memory_mb"] < 128 + 64 + 150
    assert sandbox.stdout("print('alive')") == "alive\n"


def test_a_forged_status_proves_nothing_and_breaks_nothing(sandbox: Sandbox) -> None:
    # Leaving early with status 0 is seen as what it is: an end before the step's.
    forged = sandbox.steps("import os\nprint('half')\nos._exit(0)", "print('rest')")
    assert [step["status"] for step in forged["steps"]] == ["killed", "not_run"]
    # Answering for the harness: the descriptor is the program's to write on, so `ok` is only its word, and it stays
    # a word: what the steps after it would have printed is not there.
    claimed = sandbox.steps("import os\nos.write(3, b'kkkkkk')\nos._exit(0)", "print(1)", "print(2)")
    assert claimed["steps"][0]["status"] == "ok"
    assert [step["stdout"] for step in claimed["steps"]] == ["", "", ""]
    for nonsense in (b"\x00", b"r", b"z" * 100_000, b'{"status": 0}'):
        answer = sandbox.steps(
            f"import os\nos.write(3, {nonsense[:50]!r} * {max(1, len(nonsense) // 50)})", "print(1)"
        )
        assert answer["status"] == "Failed"
        assert answer["steps"][0]["status"] == "killed"
    closed = sandbox.steps("import os\nos.closerange(0, 50)", "print(1)")
    assert [step["status"] for step in closed["steps"]] == ["killed", "not_run"]
    # What was measured cannot be talked away, whatever is caught.
    stubborn = sandbox.code(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass", run_timeout=0.5
    )
    assert stubborn["run_result"]["measured"]["limit"] == "wall"
    assert sandbox.stdout("print('alive')") == "alive\n"


def test_replacing_the_way_out_does_not_let_a_child_into_the_zygotes_loop(sandbox: Sandbox) -> None:
    replaced = """
import os, sys
os._exit = sys.exit = lambda *a: None
frame = sys._getframe()
while frame:
    for name in ("_exit", "leave", "flush", "execute", "main", "child"):
        if name in frame.f_globals: frame.f_globals[name] = lambda *a, **k: None
    frame = frame.f_back
print("x")
"""
    for _ in range(4):
        answer = sandbox.code(replaced)
        assert answer["run_result"]["stdout"] == "x\n"
        assert answer["run_result"]["measured"]["limit"] is None
    assert sandbox.stdout("print('alive')") == "alive\n"


def test_the_harness_holds_no_secret(sandbox: Sandbox) -> None:
    dump = """
import sys, gc
frame, seen = sys._getframe(), []
while frame:
    seen.append(repr(frame.f_locals)[:100_000])
    seen.append(repr(list(frame.f_globals.values()))[:100_000])
    frame = frame.f_back
text = "".join(seen)
print({words!r}[0][::-1] in text, {words!r}[1][::-1] in text)
"""
    # Written backwards, so that the attack's own text does not hold what it looks for.
    mine, later = secrets.token_hex(8), secrets.token_hex(8)
    attack = dump.format(words=[mine[::-1], later[::-1]])
    answer = sandbox.steps(f"mine = {mine!r}", attack, f"answer = {later!r}")
    # The control: what an earlier step held is found; the step that is still to come is not there yet.
    assert answer["steps"][1]["stdout"] == "True False\n"


def test_only_the_childs_own_descriptors_are_open(sandbox: Sandbox) -> None:
    probe = "import os\nfor n in range(1024):\n    try: os.fstat(n); print(n)\n    except OSError: pass"
    assert sandbox.stdout(probe).split() == ["0", "1", "2", "3"]


def test_signals_reach_nobody_else(sandbox: Sandbox) -> None:
    # 0 is the own process group, which must not be the zygote's.
    attack = "import os\nfor pid in (-1, 0, 1, 2, 3):\n    try: os.kill(pid, 9)\n    except OSError: pass\nprint('done')"
    zygotes = {process.pid for process in sandbox.zygotes()}
    for _ in range(4):
        assert sandbox.stdout(attack) == "done\n"
    assert {process.pid for process in sandbox.zygotes()} == zygotes


def test_an_answer_to_be_graded_cannot_run_code(sandbox: Sandbox) -> None:
    zygotes = {process.pid for process in sandbox.zygotes()}
    attacks = (
        "__import__('os').kill(1, 9)",
        "sqrt(__import__('os').getpid())",
        "[x for x in ().__class__.__base__.__subclasses__()]",
        "\\frac{__import__('os')}{1}",
        "lambda: 1",
        "x.__class__",
        "(" * 900,
        "9" * 1900,
        "factorial(99999999)",
    )
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for attack, verdict in zip(
            attacks, threads.map(lambda attack: sandbox.grade(attack, "1"), attacks), strict=True
        ):
            assert verdict["equal"] is False, attack
    assert {process.pid for process in sandbox.zygotes()} == zygotes
    assert sandbox.grade("sqrt(4)", "2")["equal"]
