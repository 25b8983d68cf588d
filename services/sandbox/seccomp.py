"""The system call filters of children: allow-lists, as BPF programs.

They are built here, outside the jail, where libseccomp can be found, and installed inside by their bytes. What is not
listed fails with EPERM, so that a program sees a PermissionError and can go on. There is no way to make a process,
a socket, a namespace, a mount or a memory-backed file, and none to look into another process or to signal one.

Steps may do less than programs: they write no file, share no memory and make no pipe, so that a snapshot of the interpreter is
all of their state, and set no timer, which a fork would not inherit. They neither signal other processes, not even by way of
a descriptor (F_SETOWN), nor ask which there are. In a session there is one fork more, by which a node makes the next.

Limits: they filter numbers and plain arguments, not paths; the jail decides what there is to open.
"""

import errno
import functools
import os
import tempfile
from enum import StrEnum
from typing import Any


class Filter(StrEnum):
    """Who is filtered."""

    PROGRAM = "program"
    STEPS = "steps"
    """Steps that run one after another in one process; and answers that are graded."""
    SESSION = "session"
    """The nodes of a session."""


# What Python, numpy and sympy use to compute, print, sleep, read files and end.
COMPUTE = """
    read write readv writev pread64 pwrite64 lseek close close_range stat fstat lstat newfstatat statx
    access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir getdents getdents64 statfs fstatfs
    dup dup2 dup3 poll ppoll select pselect6 fadvise64 umask
    munmap mprotect mremap brk madvise mincore
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause
    restart_syscall
    futex futex_waitv set_robust_list set_tid_address rseq membarrier arch_prctl
    sched_yield sched_get_priority_min sched_get_priority_max
    nanosleep gettimeofday time times getrusage getrandom
    getpid gettid getppid getpgrp getuid geteuid getgid getegid getgroups getresuid getresgid
    uname sysinfo getcpu getrlimit getitimer exit exit_group wait4 waitid
""".split()  # noqa: SIM905 - names read better as words
WRITE_FILES = """
    open openat fsync fdatasync ftruncate truncate mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
    utimensat chmod fchmod fchmodat
""".split()  # noqa: SIM905
PROGRAMS_ONLY = ["alarm", "setitimer", "pipe", "pipe2", "mmap"]
# They take a process number; 0 is the caller itself.
ABOUT_A_PROCESS = [
    *("getpgid", "getsid", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "get_robust_list")
]
CLOCKS = ["clock_gettime", "clock_getres", "clock_nanosleep"]
MAX_CLOCK = 15
"""Clocks with higher numbers (as unsigned) are those of other processes."""
# No locks, by which programs that read the same file could tell each other something, and no signals.
FCNTL = {"F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_DUPFD_CLOEXEC": 1030}
F_SETFL = 4
MAP_TYPE, MAP_PRIVATE = 0x0F, 0x02

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
SIGCHLD = 17
# As inside/kernel.py forks: a child of its parent's parent, with or without the address of its thread id.
FORKS = (0x00008000 | SIGCHLD, 0x00008000 | 0x00200000 | 0x01000000 | SIGCHLD)
CONTROL = 3
CLONE_THREAD = 0x00010000
CLONE_NEW_ANYTHING = 0x7E020080  # mount, cgroup, uts, ipc, user, pid, net, time
IOCTLS = {"TCGETS": 0x5401, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451, "FIONREAD": 0x541B}


class SeccompMissingError(RuntimeError):
    """The filter cannot be built here; the message says what to install."""


@functools.cache
def child_filter(purpose: Filter, *, signals: bool) -> bytes:
    """The BPF program. `signals`: allow a program kill and tgkill, which is harmless in a pid namespace of one's own.

    Raises SeccompMissingError where libseccomp cannot be loaded.
    """
    try:
        import pyseccomp  # type: ignore[import-untyped,unused-ignore]
    except (ImportError, RuntimeError, OSError) as error:
        raise SeccompMissingError(
            f"The system call filter cannot be built ({error}). Install libseccomp (Debian, Ubuntu: "
            "apt install libseccomp2; Fedora: dnf install libseccomp) and the Python package pyseccomp."
        ) from error
    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    known = functools.partial(pyseccomp.resolve_syscall, pyseccomp.system_arch())

    def allow(name: str, *arguments: Any) -> None:
        # Older calls do not exist on newer architectures.
        if known(name) >= 0:
            filter_.add_rule(pyseccomp.ALLOW, name, *arguments)

    names = COMPUTE
    if purpose is Filter.PROGRAM:
        names = [*COMPUTE, *WRITE_FILES, *PROGRAMS_ONLY]
    if purpose is Filter.PROGRAM and signals:
        names = [*names, *ABOUT_A_PROCESS, "kill", "tgkill"]
    else:
        for name in ABOUT_A_PROCESS:
            allow(name, pyseccomp.Arg(0, pyseccomp.EQ, 0))
    for name in CLOCKS:
        allow(name, pyseccomp.Arg(0, pyseccomp.LE, MAX_CLOCK))
    for command in FCNTL.values():
        allow("fcntl", pyseccomp.Arg(1, pyseccomp.EQ, command))
    if purpose is Filter.PROGRAM:
        allow("fcntl", pyseccomp.Arg(1, pyseccomp.EQ, F_SETFL))
    if purpose is not Filter.PROGRAM:
        allow("mmap", pyseccomp.Arg(3, pyseccomp.MASKED_EQ, MAP_TYPE, MAP_PRIVATE))
        allow("open", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, WRITING, 0))
        allow("openat", pyseccomp.Arg(2, pyseccomp.MASKED_EQ, WRITING, 0))
    for name in names:
        allow(name)
    # Threads, not processes. clone3 hides its flags in memory: say that it does not exist, and libc takes clone.
    new_or_thread = CLONE_THREAD | CLONE_NEW_ANYTHING
    allow("clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, new_or_thread, CLONE_THREAD))
    filter_.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    if purpose is Filter.SESSION:
        for flags in FORKS:
            allow("clone", pyseccomp.Arg(0, pyseccomp.EQ, flags))
        # The next node's descriptors come this way.
        allow("recvmsg", pyseccomp.Arg(0, pyseccomp.EQ, CONTROL))
    # Reading one's own limits, not setting them, and nobody else's.
    own = pyseccomp.Arg(0, pyseccomp.EQ, 0)
    allow("prlimit64", own, pyseccomp.Arg(2, pyseccomp.EQ, 0))
    for request in IOCTLS.values():
        allow("ioctl", pyseccomp.Arg(1, pyseccomp.EQ, request))
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return file.read()
