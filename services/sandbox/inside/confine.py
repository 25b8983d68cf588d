"""What a child gives up before foreign code runs in it, in two stages.

`enter` is done ahead of the request: namespaces, /tmp, privileges. `restrict` depends on the request: limits, Landlock and
the system call filter, the last of them. Each raises OSError where a layer cannot be had; the program is then not run.
"""

import os
import resource
import signal
import struct
from collections.abc import Container

from services.sandbox.inside.kernel import (
    CAPABILITY_VERSION_3,
    CLONE_NEWNS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    call,
    install_filter,
    landlock_version,
    restrict_files,
)

TMP = "/tmp"  # noqa: S108 - the jail's own
OPEN_FILES = 64


def enter(layers: Container[str], tmp_bytes: int | None) -> None:
    """Leave the zygote's process group, file systems and privileges. `tmp_bytes`: size of a new /tmp; None for none."""
    # A process group of its own: kill(0, ...) would otherwise reach the zygote, across the pid namespace.
    os.setsid()
    if tmp_bytes is not None and "tmpfs-tmp" in layers:
        call("unshare", CLONE_NEWNS)
        call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        options = f"size={tmp_bytes},nr_inodes=512,mode=0700".encode()
        call("mount", b"tmpfs", TMP.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(TMP if "own-root" in layers else "/")
    if "no-capabilities" in layers:
        call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        call("capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))
    if "no-new-privileges" in layers:
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "non-dumpable" in layers:
        call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def restrict(
    layers: Container[str],
    *,
    memory: int,
    cpu: int,
    file_bytes: int,
    processes: int | None,
    writable: bool,
    system_calls: bytes,
) -> None:
    """Set the limits (bytes of address space, seconds of processor time, bytes of a file, processes) and the filter."""
    if "rlimits" in layers:
        limits = [
            (resource.RLIMIT_AS, memory),
            # Soft and hard alike: the init of a pid namespace ignores the soft limit's signal.
            (resource.RLIMIT_CPU, cpu),
            (resource.RLIMIT_FSIZE, file_bytes),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        ]
        if processes is not None:
            limits.append((resource.RLIMIT_NPROC, processes))
        for limit, value in limits:
            resource.setrlimit(limit, (value, value))
    if "landlock" in layers and landlock_version():
        restrict_files(TMP if writable else None)
    if "seccomp-allow-list" in layers:
        install_filter(system_calls)
