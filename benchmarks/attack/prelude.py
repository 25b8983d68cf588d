"""What stands before every hostile program: it runs inside the jail and is never imported.

`proof` is the only way to say that an attack went through. It prints the token of this run backwards, so that neither
the program's own text, echoed in a traceback, nor a constant that the compiler folded can pass for it.

Limits: system calls are called by name, machine code is x86-64's.
"""

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Callable

# Set after this text for each run: the token, and the numbers of the system calls that the program names.
TOKEN = ""
NR: dict[str, int] = {}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
buffer = ctypes.create_string_buffer(8192)
CLONE_NEWUSER = 0x10000000


def proof(seen: bool = True) -> None:
    """Say that the attack went through, where its effect was seen."""
    if seen:
        os.write(1, (TOKEN[::-1] + "\n").encode())


def call(name: str, *arguments: object) -> int:
    """What the system call returns; where it failed, the error as a negative number, as the kernel has it."""
    ctypes.set_errno(0)
    longs = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = libc.syscall(ctypes.c_long(NR[name]), *longs)
    return result if result != -1 else -ctypes.get_errno()


def reached(result: int) -> bool:
    """Whether a call came past the filter, to the kernel's own code: any answer but the filter's."""
    return result != -errno.EPERM


def become_root() -> None:
    """All capabilities, in a user namespace of one's own; nothing where that is refused."""
    call("unshare", CLONE_NEWUSER)


def in_child(body: Callable[[], bool]) -> bool:
    """What the body says, from a forked child; from this process where there is no forking."""
    try:
        pid = os.fork()
    except OSError:
        return body()
    if pid == 0:
        os._exit(42 if body() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


def machine_code(code: str, *arguments: int) -> int:
    """Run x86-64 machine code, given as hexadecimal digits, as a C function of up to six integers."""
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(bytes.fromhex(code))
    kind = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * len(arguments))
    result: int = kind(ctypes.addressof(ctypes.c_char.from_buffer(memory)))(*arguments)
    return result


# mov rax, rdi; the other five one to the left; syscall; ret
SYSCALL = "4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 0f05 c3"


def pages(start: int, end: int) -> list[int]:
    """Addresses of the pages of this process that can be read. The kernel says so; nothing faults."""
    bad = -errno.EFAULT
    return [page for page in range(start, end, 4096) if call("rt_sigprocmask", 99, page, 0, 8) != bad]


def hunt(first: str, second: str) -> bool:
    """Whether `first + second` stands anywhere near in memory. In two halves, so that it does not find itself."""
    head, tail = first.encode(), second.encode()
    libc.sbrk.restype = ctypes.c_void_p
    libc.getauxval.restype = ctypes.c_ulong
    # The objects, the heap, and, by the name under which it was executed, the end of the stack.
    anchors = [id(object()), ctypes.addressof(buffer), libc.sbrk(0), libc.getauxval(31)]
    reach = 48 * 2**20
    found: set[int] = set()
    for anchor in anchors:
        found.update(pages((anchor - reach) & ~4095, anchor + reach))
    for page in sorted(found):
        size = 4096 + (256 if page + 4096 in found else 0)
        text = ctypes.string_at(page, size)
        at = text.find(head)
        while at >= 0:
            after = at + len(head)
            if text[after : after + len(tail)] == tail:
                return True
            at = text.find(head, after)
    return False


def hold(seconds: float) -> None:
    """Compute until so much time has passed, whatever is raised meanwhile."""
    end = time.monotonic() + seconds
    while True:
        try:
            while time.monotonic() < end:
                pass
            return
        except BaseException:  # noqa: BLE001 - hostile: it does not want to stop
            continue


def escalate(work: Callable[[int], object], size: int, grow: Callable[[int], int]) -> None:
    """Make one call of `work`, which nothing in Python can interrupt, larger until it takes long."""
    while True:
        began = time.monotonic()
        work(size)
        if time.monotonic() - began > 0.7:
            return
        size = grow(size)
