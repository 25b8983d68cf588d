"""Processes: making them, outliving the run, and reaching those of others."""

import contextlib
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.attack.attack import FILTER, LIMITLESS, SAME_PIDS, Attack, Program, Seen, Steps, excerpt
from benchmarks.attack.service import BrokenSandboxError, Service

attack = functools.partial(Attack, category="processes")


@dataclass(frozen=True)
class KillsZygote:
    """Whether the service loses a zygote to the program. It then starts another, which it counts."""

    code: str
    memory_limit_MB: int = 256  # noqa: N815 - the API's name

    def __call__(self, service: Service) -> Seen:
        before = service.zygotes_replaced()
        program = Program(self.code, memory_limit_MB=self.memory_limit_MB)
        try:
            said = excerpt(program.answer(service)["run_result"])
        except BrokenSandboxError as error:
            return Seen(True, str(error))
        # A zygote's end is noticed, and a new one is there, a moment later.
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            if not _all_answer(service):
                return Seen(True, "the next request found no zygote")
            time.sleep(0.1)
        replaced = service.zygotes_replaced() - before
        return Seen(replaced > 0, f"{replaced} zygotes replaced; {said}")


def _all_answer(service: Service) -> bool:
    try:
        return "42" in Program("print(42)").answer(service)["run_result"]["stdout"]
    except (BrokenSandboxError, httpx.HTTPError):
        return False


@dataclass(frozen=True)
class StopsZygote:
    """Whether a process of the service is stopped by a signal while the program runs. It is woken again."""

    code: str

    def __call__(self, service: Service) -> Seen:
        stopped: list[psutil.Process] = []
        with ThreadPoolExecutor(1) as threads:
            run = threads.submit(Program(self.code, run_timeout=1.0).answer, service)
            while not run.done():
                now = [p for p in service.processes() if _status(p) == psutil.STATUS_STOPPED]
                stopped += now
                time.sleep(0.05)
                for process in now:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()
            said = excerpt(run.result()["run_result"])
        return Seen(bool(stopped), f"{len(stopped)} processes stopped; {said}")


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""


@dataclass(frozen=True)
class Outlives:
    """Whether more processes are there after the run than before it."""

    code: str

    def __call__(self, service: Service) -> Seen:
        before = _count_processes(service)
        try:
            said = excerpt(Program(self.code).answer(service)["run_result"])
        except BrokenSandboxError as error:
            said = str(error)
        after = _count_processes(service)
        return Seen(after > before, f"{before} processes before, {after} after; {said}")


def _count_processes(service: Service) -> int:
    time.sleep(0.3)
    return len(service.processes())


# Another program, in the place of this one: it has to say the token, backwards.
EXECUTE = """
import sys
arguments = [sys.executable, "-S", "-c", "import sys; print(sys.argv[1])", TOKEN[::-1]]
"""
FORK = """
pid = {fork}
if pid == 0: os._exit(42)
if pid > 0: proof(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42)
"""
# Machine code: vfork; in the child exit(42) at once, as it borrows its parent's stack; in the parent return its number.
VFORK = 'pid = machine_code("b83a000000 0f05 85c0 750c bf2a000000 b83c000000 0f05 4898 c3")\n' + (
    "if pid > 0: proof(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42)"
)
# 64-bit ELF, of one segment: write(1, argv[1], 16); exit(0).
ELF = """
import struct
code = bytes.fromhex("488b742410 ba10000000 bf01000000 b801000000 0f05 31ff b83c000000 0f05")
elf = struct.pack("<4s5B7xHHIQQQIHHHHHH", b"\\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
elf += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096) + code
fd = os.memfd_create("x")
os.write(fd, elf)
arguments = (ctypes.c_char_p * 3)(b"x", TOKEN[::-1].encode(), None)
call("execveat", fd, b"", arguments, None, 0x1000)
"""
DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 10)
        time.sleep(5)
    os._exit(0)
time.sleep(0.2)
"""
SIGNAL_ALL = """
# Only where the numbers are those of a jail: nothing is to be hit on the host, whatever is off.
assert os.getppid() < 10
for pid in (os.getppid(), 0, -1, 1, 2):
    for send in (os.kill, lambda pid, number: call("pidfd_send_signal", call("pidfd_open", pid, 0), number, None, 0)):
        try: send(pid, {signal})
        except OSError: pass
"""
KILL_PARENT = "assert os.getppid() < 10\nos.kill(os.getppid() or 1, 9)\ntime.sleep(0.2)"
OTHERS_MEMORY = """
# The parent was here before the fork: the same address holds the same.
import sys
address, size = id(sys.version), sys.getsizeof(sys.version)
expected, other = ctypes.string_at(address, size)[16:], os.getppid() or 1
assert other != os.getpid()
"""

ATTACKS = [
    attack(name="forks", probe=Program(FORK.format(fork="os.fork()")), without=FILTER),
    attack(name="forks by vfork", probe=Program(VFORK), without=FILTER, machine="x86_64"),
    attack(
        name="forks by clone",
        probe=Program(FORK.format(fork='call("clone", 17, 0, 0, 0, 0)')),
        without=FILTER,
    ),
    attack(
        name="forks by clone3",
        probe=Program(FORK.format(fork='call("clone3", (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17, 0, 0, 0), 64)')),
        without=FILTER,
    ),
    attack(
        name="forks by machine code",
        probe=Program(FORK.format(fork='machine_code(SYSCALL, NR["clone"], 17, 0, 0, 0, 0)')),
        without=FILTER,
        machine="x86_64",
    ),
    attack(name="forks as a step", probe=Steps((FORK.format(fork="os.fork()"),)), without=FILTER),
    attack(
        name="forks as sessions do, outside of one",
        probe=Program('proof(reached(call("clone", 0x8000 | 17, 0, 0, 0, 0)))'),
        without=FILTER,
    ),
    attack(
        name="forks into a user namespace",
        probe=Program(FORK.format(fork='call("clone", 0x10000000 | 17, 0, 0, 0, 0)')),
        without=FILTER,
    ),
    attack(
        name="starts a subprocess",
        probe=Program(EXECUTE + "import subprocess\nsubprocess.run(arguments)"),
        without=FILTER,
    ),
    attack(
        name="starts a subprocess by posix_spawn",
        probe=Program(EXECUTE + "os.waitpid(os.posix_spawn(arguments[0], arguments, {}), 0)"),
        without=FILTER,
    ),
    attack(
        name="starts a process by multiprocessing",
        probe=Program("""
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=proof)
process.start()
process.join()
"""),
        without=FILTER,
    ),
    attack(
        name="executes another program",
        probe=Program(EXECUTE + "os.execv(arguments[0], arguments)"),
        without=FILTER,
    ),
    attack(
        name="executes another program by machine code",
        probe=Program(
            EXECUTE
            + """
argv = (ctypes.c_char_p * 6)(*[text.encode() for text in arguments], None)
path = ctypes.create_string_buffer(arguments[0].encode())
machine_code(SYSCALL, NR["execve"], ctypes.addressof(path), ctypes.addressof(argv), 0)
"""
        ),
        without=FILTER,
        machine="x86_64",
    ),
    attack(name="executes a file in memory", probe=Program(ELF), without=FILTER, machine="x86_64"),
    attack(
        name="forks without end",
        probe=Program("""
pids = []
while len(pids) < 50:
    pid = os.fork()
    if pid == 0:
        time.sleep(1)
        os._exit(0)
    pids.append(pid)
proof(sum(os.waitpid(pid, 0)[0] == pid for pid in pids) == 50)
"""),
        without=LIMITLESS,
    ),
    attack(
        name="starts threads without end",
        probe=Program("""
import threading
threading.stack_size(64 * 1024)
done, threads = threading.Event(), []
try:
    while len(threads) < 200:
        thread = threading.Thread(target=done.wait, args=(5,), daemon=True)
        thread.start()
        threads.append(thread)
except RuntimeError: pass
proof(sum(thread.is_alive() for thread in threads) == 200)
done.set()
"""),
        without=LIMITLESS,
    ),
    attack(name="leaves a daemon behind", probe=Outlives(DAEMON), without=SAME_PIDS, alone=True, local=True),
    attack(
        name="has itself traced, so that its stop passes for its end",
        # A traced process that stops is reported to who waits for it, as if it had ended.
        probe=Outlives('call("ptrace", 0, 0, 0, 0)\nos.kill(os.getpid(), 19)\ntime.sleep(2)'),
        without=FILTER,
        alone=True,
        local=True,
    ),
    attack(name="kills its parent", probe=KillsZygote(KILL_PARENT), without=SAME_PIDS, alone=True),
    attack(
        name="kills in all directions",
        probe=KillsZygote(SIGNAL_ALL.format(signal=9)),
        without=SAME_PIDS,
        alone=True,
    ),
    attack(
        name="stops in all directions",
        probe=StopsZygote(SIGNAL_ALL.format(signal=19) + "time.sleep(0.5)"),
        without=SAME_PIDS,
        alone=True,
        local=True,
    ),
    attack(
        name="makes the kernel take the zygote when memory runs out",
        # The killer takes the largest of the group. A fork maps fewer pages than its parent: what fills the group must
        # not be in its address space, so it goes into /tmp, into pipes, and from there into small pieces.
        probe=KillsZygote(
            """
import fcntl
with open("/tmp/x", "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(2**18))
    except OSError: pass
held = []
try:
    while True:
        held.append(os.pipe())
        fcntl.fcntl(held[-1][1], fcntl.F_SETFL, os.O_NONBLOCK)
        try: fcntl.fcntl(held[-1][1], 1031, 2**20)  # as large as an unprivileged one may be
        except OSError: pass
        try:
            while os.write(held[-1][1], bytes(2**16)): pass
        except BlockingIOError: pass
except OSError: pass
kept = []
while True: kept.append(bytearray(2**16))
""",
            memory_limit_MB=64,
        ),
        without=SAME_PIDS,
        control=KillsZygote(KILL_PARENT),
        control_is="a zygote that is killed otherwise, to see that its end would be seen",
        alone=True,
    ),
    attack(
        name="reads its parent's memory",
        probe=Program(
            OTHERS_MEMORY
            + """
data = ctypes.create_string_buffer(size)
mine, theirs = (ctypes.c_size_t * 2)(ctypes.addressof(data), size), (ctypes.c_size_t * 2)(address, size)
call("process_vm_readv", other, mine, 1, theirs, 1, 0)
proof(data.raw[16:] == expected)
"""
        ),
        without=SAME_PIDS,
    ),
    attack(
        name="reads its parent's memory through /proc",
        probe=Program(
            OTHERS_MEMORY
            + 'fd = os.open(f"/proc/{other}/mem", os.O_RDONLY)\nproof(os.pread(fd, size, address)[16:] == expected)'
        ),
        without=SAME_PIDS,
    ),
    attack(
        name="traces its parent",
        probe=Program("""
other = os.getppid() or 1
assert other != os.getpid()
if call("ptrace", 0x4206, other, 0, 0) == 0:  # seize: it does not stop
    proof()
    call("ptrace", 17, other, 0, 0)
"""),
        without=SAME_PIDS,
        alone=True,
    ),
    attack(
        name="steals its parent's descriptors",
        probe=Program("""
handle = call("pidfd_open", os.getppid() or 1, 0)
assert os.getppid() != os.getpid()
proof(os.getppid() > 0 and any(call("pidfd_getfd", handle, n, 0) >= 0 for n in range(3, 40)))
"""),
        without=SAME_PIDS,
    ),
    attack(
        name="changes its parent's limits",
        probe=Program('proof(os.getppid() > 0 and call("prlimit64", os.getppid(), 7, None, buffer) == 0)'),
        without=SAME_PIDS,
    ),
]
