"""The system call filter of a child: an allow-list, as a BPF program.

It is built here, outside the jail, where libseccomp can be found, and installed inside by its bytes. What is not
listed fails with EPERM, so that a program sees a PermissionError and can go on. There is no way to make a process,
a socket, a namespace, a mount or a memory-backed file, and none to look into or signal another process.

Limits: it filters numbers and plain arguments, not paths; the jail decides what there is to open.
"""

import errno
import functools
import os
import tempfile

# What Python, numpy and sympy use to compute, print, sleep, keep files in /tmp and end.
ALLOWED = """
    read write readv writev pread64 pwrite64 lseek close close_range open openat stat fstat lstat newfstatat statx
    access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir getdents getdents64 statfs fstatfs
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 fcntl fsync fdatasync ftruncate truncate fadvise64
    mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 utimensat chmod fchmod fchmodat umask
    mmap munmap mprotect mremap brk madvise mincore
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause
    alarm getitimer setitimer restart_syscall
    futex futex_waitv set_robust_list get_robust_list set_tid_address rseq membarrier arch_prctl
    sched_yield sched_getaffinity sched_get_priority_min sched_get_priority_max sched_getparam sched_getscheduler
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getrandom
    getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getgroups getresuid getresgid
    uname sysinfo getcpu getrlimit exit exit_group wait4 waitid
""".split()  # noqa: SIM905 - names read better as words

CLONE_THREAD = 0x00010000
CLONE_NEW_ANYTHING = 0x7E020080  # mount, cgroup, uts, ipc, user, pid, net, time
IOCTLS = {"TCGETS": 0x5401, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451, "FIONREAD": 0x541B}


class SeccompMissingError(RuntimeError):
    """The filter cannot be built here; the message says what to install."""


@functools.cache
def child_filter(signals: bool) -> bytes:
    """The BPF program. `signals`: allow kill and tgkill, which is harmless in a pid namespace of one's own.

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
    for name in ALLOWED + (["kill", "tgkill"] if signals else []):
        # Older calls do not exist on newer architectures.
        if known(name) >= 0:
            filter_.add_rule(pyseccomp.ALLOW, name)
    # Threads, not processes. clone3 hides its flags in memory: say that it does not exist, and libc takes clone.
    new_or_thread = CLONE_THREAD | CLONE_NEW_ANYTHING
    thread_only = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, new_or_thread, CLONE_THREAD)
    filter_.add_rule(pyseccomp.ALLOW, "clone", thread_only)
    filter_.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    # Reading one's own limits, not setting them, and nobody else's.
    own = pyseccomp.Arg(0, pyseccomp.EQ, 0)
    filter_.add_rule(pyseccomp.ALLOW, "prlimit64", own, pyseccomp.Arg(2, pyseccomp.EQ, 0))
    for request in IOCTLS.values():
        filter_.add_rule(pyseccomp.ALLOW, "ioctl", pyseccomp.Arg(1, pyseccomp.EQ, request))
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return file.read()
