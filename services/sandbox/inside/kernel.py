"""The kernel's calls that Python has no name for: namespaces, mounts, capabilities, filters, Landlock, and a fork.

Limits: Linux on x86-64 and arm64, where `clone` takes its flags first.
"""

import ctypes
import os
import signal
from collections.abc import Iterable
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x00008000, 0x00200000, 0x01000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
PR_GET_TID_ADDRESS, PR_CAP_AMBIENT = 40, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
MADV_COLLAPSE, HUGE_PAGE_BITS = 25, 21
CAPABILITY_VERSION_3 = 0x20080522
SYS_CLONE = 56 if os.uname().machine == "x86_64" else 220
# The same numbers on every architecture.
SYS_PIDFD_GETFD = 438
SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 444, 445, 446

# Without the GIL let go: nothing else of this process may run between a fork and what follows it.
libc = ctypes.PyDLL(None, use_errno=True)
python = ctypes.pythonapi


class SockFprog(ctypes.Structure):
    """A classic BPF program, as prctl(PR_SET_SECCOMP) wants it."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def call(name: str, *arguments: Any) -> int:
    """A C library call that must succeed; what it returned. Raises OSError."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def install_filter(program: bytes) -> None:
    """Filter this process's system calls from here on, and those of its children. Raises OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = SockFprog(len(program) // 8, ctypes.addressof(instructions))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0)


def copied_descriptor(pidfd: int, number: int) -> int:
    """A copy of another process's descriptor. Raises OSError: EBADF where it has none of that number."""
    copy = call("syscall", SYS_PIDFD_GETFD, pidfd, number, 0)
    os.set_inheritable(copy, False)
    return copy


def thread_id_address() -> int:
    """Where the C library keeps this thread's id, or 0 where the kernel does not say."""
    address = ctypes.c_size_t()
    if libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) == -1:
        return 0
    return address.value


def fork_sibling(tid_address: int) -> int:
    """Fork a child whose parent is this process's parent: 0 in the child. Raises OSError.

    So the init of the session, which runs no foreign code, is told by the kernel how each node ended. It is the only
    kind of fork that a session's filter lets through.
    """
    flags = CLONE_PARENT | signal.SIGCHLD
    if tid_address:
        # As the C library's own fork does: it remembers the thread's id.
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    python.PyOS_BeforeFork()
    pid: int = libc.syscall(SYS_CLONE, ctypes.c_ulong(flags), None, None, *_last(tid_address))
    error = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, f"clone: {os.strerror(error)}")
    return pid


def _last(tid_address: int) -> tuple[Any, Any]:
    # The address of the child's thread id is the fourth argument on x86-64 and the fifth elsewhere.
    address = ctypes.c_void_p(tid_address)
    return (address, None) if os.uname().machine == "x86_64" else (None, address)


def collapse(addresses: Iterable[int]) -> None:
    """Put the memory around these addresses into huge pages, where the kernel can (Linux 6.1): a fork copies the page
    table of a process, and its end frees it, so both are faster the fewer pages there are. A third, measured."""
    for region in {address >> HUGE_PAGE_BITS for address in addresses}:
        # Where it cannot be done the memory stays as it was.
        libc.madvise(
            ctypes.c_void_p(region << HUGE_PAGE_BITS), ctypes.c_size_t(1 << HUGE_PAGE_BITS), MADV_COLLAPSE
        )
    # Programs may look at it.
    ctypes.set_errno(0)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


# Rights of files by the version of Landlock that brought them: 13 in the first, then refer, truncate, device ioctl.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_READ = (1 << 2) | (1 << 3)
_EXECUTE = 1 << 0
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    return max(0, int(libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1)))


def restrict_files(writable: str | None) -> None:
    """Landlock: from here on files can only be read, but for those below `writable`. Raises OSError."""
    version = landlock_version()
    every = _FILE_RIGHTS[min(version, 5)]
    ruleset = _Ruleset(every, _NETWORK_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else (16 if version < 6 else 24)
    fd = call("syscall", SYS_LANDLOCK_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for path, rights in (("/", _READ | _EXECUTE), (writable, every)):
            if path is None:
                continue
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = _PathRule(rights & every, folder)
                call("syscall", SYS_LANDLOCK_ADD, fd, 1, ctypes.byref(rule), 0)
            finally:
                os.close(folder)
        call("syscall", SYS_LANDLOCK_RESTRICT, fd, 0)
    finally:
        os.close(fd)
