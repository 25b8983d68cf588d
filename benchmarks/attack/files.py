"""Files: the host's, those of other requests, and those that steps must not be able to make."""

import contextlib
import functools
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.attack.attack import (
    FILTER,
    HOST_ROOT,
    PROC,
    SHARED_TMP,
    WRITABLE,
    Attack,
    Nodes,
    Program,
    Seen,
    Steps,
    excerpt,
    hostile,
    new_token,
    says_token,
)
from benchmarks.attack.service import ROOT, BrokenSandboxError, Service

attack = functools.partial(Attack, category="files")


@contextlib.contextmanager
def host_folder() -> Iterator[Path]:
    """A folder on the host of a random name. Not in /tmp, over which a run has its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ratchet-attack-") as folder:
        yield Path(folder)


def read_host_file(service: Service) -> Seen:
    """Reads a file of whose content it knows nothing."""
    secret = new_token()
    with host_folder() as folder:
        (folder / "secret").write_text(secret)
        answer = Program("print(open(PATH).read()[::-1])", given={"PATH": f"{folder}/secret"}).answer(service)
    return Seen(secret[::-1] in answer["run_result"]["stdout"], excerpt(answer["run_result"]))


def write_host_file(service: Service) -> Seen:
    """Writes a file that the host then has."""
    with host_folder() as folder:
        answer = Program('open(PATH, "w").close()', given={"PATH": f"{folder}/made"}).answer(service)
        return Seen((folder / "made").exists(), excerpt(answer["run_result"]))


@dataclass(frozen=True)
class Persists:
    """What one request leaves, another one finds. Several of each, so that all workers take part."""

    leave: str
    find: str

    def __call__(self, service: Service) -> Seen:
        given: dict[str, Any] = {"NAME": secrets.token_hex(8), "KEY": secrets.randbelow(2**30) + 1}
        token = new_token()
        found: list[dict[str, Any]] = []
        for code in (self.leave, self.find):
            program = {"code": hostile(code, token, given), "run_timeout": 3.0, "memory_limit_MB": 256}
            found = service.post("/run_code/batch", {"programs": [program] * 4})["results"]
            if any(answer["status"] == "SandboxError" for answer in found):
                raise BrokenSandboxError(excerpt(found))
        return Seen(
            says_token(token, *(answer["run_result"]["stdout"] for answer in found)),
            excerpt([answer["run_result"] for answer in found]),
        )


def crosses_runs(service: Service) -> Seen:
    """Two programs that run side by side: one locks a library's file, the other one sees it."""
    token = new_token()
    programs = [LOCK + "lock(fcntl.F_SETLK, fcntl.F_RDLCK)\ntime.sleep(0.6)", LOCK + WAIT_FOR_LOCK]
    body = {"programs": [{"code": hostile(code, token), "run_timeout": 3.0} for code in programs]}
    answers = service.post("/run_code/batch", body)["results"]
    return Seen(says_token(token, *(answer["run_result"]["stdout"] for answer in answers)), excerpt(answers))


LOCK = """
import fcntl, struct
def lock(command, kind):
    fd = os.open(os.__file__, os.O_RDONLY)
    try: return fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, 4242, 1, 0)), fd
    except OSError: return b"", fd
def locked():
    answer, fd = lock(fcntl.F_GETLK, fcntl.F_WRLCK)
    os.close(fd)
    return bool(answer) and struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
"""
WAIT_FOR_LOCK = """
end = time.monotonic() + 0.5
while time.monotonic() < end and not locked(): time.sleep(0.02)
proof(locked())
"""

MARK = "ratchet-attack-mark-"
LEAVE = f"""
for folder in FOLDERS:
    try: open(folder + "/{MARK}" + NAME, "w").close()
    except OSError: pass
"""
FIND = f"""
import os
for folder in FOLDERS:
    try:
        os.stat(folder + "/{MARK}" + NAME)
        proof()
        os.unlink(folder + "/{MARK}" + NAME)
    except OSError: pass
"""


def left_in(*folders: str) -> Persists:
    """A file of a random name, in every one of the folders that takes it."""
    head = f"FOLDERS = {folders!r}\n"
    return Persists(head + LEAVE, head + FIND)


STEP_WRITES = {
    "makes a file": 'open("/tmp/" + TOKEN, "w").close()',
    "makes a file while reading": 'os.close(os.open("/tmp/" + TOKEN, os.O_RDONLY | os.O_CREAT))',
    "makes a file without a name": 'os.close(os.open("/tmp", os.O_TMPFILE | os.O_RDWR))',
    "makes a folder": 'os.mkdir("/tmp/" + TOKEN)',
    "makes a file by openat2": """
how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_RDWR, 0o600, 0)
if call("openat2", -100, b"/tmp/" + TOKEN.encode(), how, 24) < 0: raise PermissionError
""",
}
"""Each raises where it is refused."""

ATTACKS = [
    attack(
        name="reads the host's list of users",
        probe=Program('proof("root:" in open("/etc/passwd").read())'),
        without=HOST_ROOT,
    ),
    attack(name="reads a file of the host", probe=read_host_file, without=HOST_ROOT, local=True),
    attack(name="writes a file of the host", probe=write_host_file, without=HOST_ROOT, local=True),
    attack(
        name="reads the service's own source",
        probe=Program(
            'proof("Layer" in open(PATH).read())', given={"PATH": f"{ROOT}/services/sandbox/layers.py"}
        ),
        without=HOST_ROOT,
        local=True,
    ),
    attack(
        name="climbs out of the root",
        probe=Program("""
root = os.open("/", os.O_RDONLY)
above = os.open("../" * 30, os.O_RDONLY, dir_fd=root)
os.fchdir(above)
proof("root:" in open("etc/passwd").read())
"""),
        without=HOST_ROOT,
    ),
    attack(
        name="finds more devices than four",
        probe=Program('proof(len(os.listdir("/dev")) > 4)'),
        without=HOST_ROOT,
    ),
    attack(
        name="finds the kernel's settings",
        probe=Program('proof(any(os.path.exists(p) for p in ("/sys/kernel", "/proc/sys/kernel", "/boot")))'),
        without=HOST_ROOT,
    ),
    attack(
        name="plants a module beside Python's own",
        probe=Program("""
for folder in {os.path.dirname(os.__file__), "/usr/lib", "/lib", *filter(os.path.isdir, __import__("sys").path)}:
    try:
        with open(folder + "/" + TOKEN + ".py", "w"): proof()
        os.unlink(folder + "/" + TOKEN + ".py")
    except OSError: pass
"""),
        without=HOST_ROOT,
    ),
    attack(
        name="leaves a file in the root and in /dev",
        probe=left_in("/", "/dev", "/dev/shm", "/etc", "/jail", "/usr", "/var/tmp"),
        without=WRITABLE,
    ),
    attack(name="leaves a file in /tmp", probe=left_in("/tmp"), without=SHARED_TMP),
    attack(
        name="fills /tmp with one file",
        probe=Program("""
with open("/tmp/" + TOKEN, "wb", buffering=0) as file:
    try:
        size = 0
        while size < 48 * 2**20: size += file.write(bytes(2**20))
        proof()
    finally: os.unlink("/tmp/" + TOKEN)
"""),
        without=SHARED_TMP,
    ),
    attack(
        name="fills /tmp with many files",
        probe=Program("""
os.mkdir("/tmp/" + TOKEN)
try:
    for n in range(12):
        with open(f"/tmp/{TOKEN}/{n}", "wb") as file: file.write(bytes(4 * 2**20))
    proof()
finally:
    for name in os.listdir("/tmp/" + TOKEN): os.unlink(f"/tmp/{TOKEN}/{name}")
    os.rmdir("/tmp/" + TOKEN)
"""),
        without=SHARED_TMP,
    ),
    attack(
        name="makes files without end",
        probe=Program("""
os.mkdir("/tmp/" + TOKEN)
try:
    for n in range(2000): open(f"/tmp/{TOKEN}/{n}", "w").close()
    proof()
finally:
    for name in os.listdir("/tmp/" + TOKEN): os.unlink(f"/tmp/{TOKEN}/{name}")
    os.rmdir("/tmp/" + TOKEN)
"""),
        without=SHARED_TMP,
    ),
    attack(
        name="makes a file of a terabyte with a hole in it",
        probe=Program("""
with open("/tmp/" + TOKEN, "wb") as file:
    try:
        file.truncate(2**40)
        proof(os.stat(file.fileno()).st_size == 2**40)
    finally: os.unlink("/tmp/" + TOKEN)
"""),
        without=SHARED_TMP,
    ),
    attack(
        name="runs machine code from a file in /tmp",
        probe=Program("""
with open("/tmp/" + TOKEN, "w+b") as file:
    file.write(bytes(4096))
    file.flush()
    os.unlink("/tmp/" + TOKEN)
    mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    proof()
"""),
        without=SHARED_TMP,
    ),
    attack(
        name="makes links",
        probe=Program("""
open("/tmp/" + TOKEN, "w").close()
for make in (os.link, os.symlink):
    try:
        make("/tmp/" + TOKEN, f"/tmp/{TOKEN}-{make.__name__}")
        proof(os.path.exists(f"/tmp/{TOKEN}-{make.__name__}"))
    except OSError: pass
"""),
        without=FILTER,
    ),
    attack(
        name="makes pipes and devices with names",
        probe=Program("""
import stat
for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
    try:
        os.mknod(f"/tmp/{TOKEN}-{kind}", kind | 0o600)
        proof()
    except OSError: pass
"""),
        without=FILTER,
    ),
    attack(
        name="hides data in a file's attributes",
        probe=Program(
            'open("/tmp/x", "w").close()\nproof(reached(call("setxattr", b"/tmp/x", b"user.x", b"y", 1, 0)))'
        ),
        without=FILTER,
    ),
    attack(
        name="tells a program beside it by the lock of a file",
        probe=crosses_runs,
        without=FILTER,
        alone=True,
    ),
    attack(
        name="opens a file by its handle",
        probe=Program("""
handle, mount = ctypes.create_string_buffer(b"\\x80\\0\\0\\0", 256), ctypes.c_int()
proof(reached(call("name_to_handle_at", -100, b"/usr", handle, ctypes.byref(mount), 0)))
"""),
        without=FILTER,
    ),
    attack(
        name="reads what the kernel says of it in /proc",
        probe=Program('proof("Name:" in open("/proc/self/status").read())'),
        without=PROC,
    ),
    attack(
        name="reads other processes in /proc",
        probe=Program("""
others = [name for name in os.listdir("/proc") if name.isdigit() and name != os.readlink("/proc/self")]
proof(any(open(f"/proc/{pid}/cmdline").read() for pid in others))
"""),
        without=PROC,
    ),
    attack(
        name="reads the kernel's symbols and settings",
        probe=Program("""
for path in ("/proc/kallsyms", "/proc/sys/kernel/osrelease", "/proc/mounts", "/proc/version"):
    try: proof(bool(open(path).read(10)))
    except OSError: pass
"""),
        without=PROC,
    ),
    attack(
        name="writes its own memory through /proc",
        probe=Program("""
text = ctypes.create_string_buffer(b"before")
fd = os.open("/proc/self/mem", os.O_RDWR)
os.pwrite(fd, b"afterw", ctypes.addressof(text))
proof(text.value == b"afterw")
"""),
        without=PROC,
    ),
    *(
        attack(name=f"as a step, {name}", probe=Steps((f"{code}\nproof()",)), without=WRITABLE)
        for name, code in STEP_WRITES.items()
    ),
    *(
        attack(name=f"in a session, {name}", probe=Nodes((f"{code}\nproof()",)), without=WRITABLE)
        for name, code in list(STEP_WRITES.items())[:2]
    ),
]
