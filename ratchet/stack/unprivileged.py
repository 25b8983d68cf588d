"""Runs a program that refuses to run as root, or as a uid without a name. Started as a script, standard library only.

    python unprivileged.py namespace PROGRAM ARG...   in a user namespace where we have an unprivileged uid
    python unprivileged.py UID PROGRAM ARG...         with that uid

In the namespace every file that the program makes stays ours on disk. Either way the program keeps one
capability, to pass folders that are closed to others (0700 homes), so that nobody has to open them with
chmod. What this is not: a jail. It gives Postgres a uid that it accepts, and takes away no access to root's
own files.
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unprivileged_uid() -> int:
    """A uid that is not root's and has a name (initdb looks it up): nobody's, otherwise the first one."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), 65_534)


def swapped_map(extents: str, other: int) -> str:
    """A uid (or gid) map in which 0 and `other` have changed places and every other id is itself.

    `extents` is the text of /proc/self/uid_map: which ids exist for us. They must stay mapped, as
    capabilities in a namespace hold only for files whose owner and group are mapped there.
    """
    last = 0
    for line in extents.splitlines():
        first, _, count = (int(part) for part in line.split())
        if first == 0:
            last = first + count - 1
    if last < other:
        return f"{other} 0 1\n"
    lines = [f"{other} 0 1", f"0 {other} 1"]
    if other > 1:
        lines.append(f"1 1 {other - 1}")
    if last > other:
        lines.append(f"{other + 1} {other + 1} {last - other}")
    return "\n".join(lines) + "\n"


def enter_namespace() -> None:
    """Become an unprivileged uid that is ourselves outside. Raises OSError where user namespaces are not allowed."""
    target = os.getpid()
    other = unprivileged_uid()
    if os.geteuid() != 0:
        # Without privileges a process may map its own ids, and those alone.
        uid_map, gid_map = f"{other} {os.geteuid()} 1\n", f"{other} {os.getegid()} 1\n"
        _check(libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(uid_map)
        Path("/proc/self/gid_map").write_text(gid_map)
        return
    uid_map = swapped_map(Path("/proc/self/uid_map").read_text(), other)
    gid_map = swapped_map(Path("/proc/self/gid_map").read_text(), other)
    ready_read, ready_write = os.pipe()
    # Only a process that stayed outside may map more than its own id.
    mapper = os.fork()
    if mapper == 0:
        os.close(ready_write)
        entered = os.read(ready_read, 1)
        try:
            if entered:
                Path(f"/proc/{target}/uid_map").write_text(uid_map)
                Path(f"/proc/{target}/gid_map").write_text(gid_map)
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(ready_read)
    try:
        _check(libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
        os.write(ready_write, b"x")
    finally:
        os.close(ready_write)
        _, status = os.waitpid(mapper, 0)
    if status != 0:
        raise PermissionError("the ids of the user namespace could not be mapped")


def become(uid: int) -> None:
    """Take the uid, and a gid of the same number, for good."""
    _check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def keep_search_capability() -> None:
    """Let the program that is executed next pass and read folders closed to others, if we may."""
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        bit = 1 << capability
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        # Three words (effective, permitted, inheritable) for the low and for the high 32 capabilities.
        sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
        if libc.capset(header, sets) == 0:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def main() -> None:
    mode, program = sys.argv[1], sys.argv[2:]
    parent = os.getppid()
    if mode == "namespace":
        enter_namespace()
    else:
        become(int(mode))
    keep_search_capability()
    # A change of credentials clears this, so it comes last.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("unprivileged: the parent has gone")
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"unprivileged: {error}")
