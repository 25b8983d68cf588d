"""The layers between a program and the host, by name.

Each contains something that the others do not, or stands behind one of them. All that can be had are always in force: no
setting takes one away. Only the attack suite builds a sandbox `without` some, to prove that its attacks would be seen.
"""

from enum import StrEnum


class Layer(StrEnum):
    """One layer. The member's own words are the names in the health report."""

    OWN_ROOT = "own-root"
    """A root of its own with the interpreter and a few libraries; without it: the host's, writable."""
    READ_ONLY_ROOT = "read-only-root"
    """The root and /dev cannot be written, not even as the empty file systems that bubblewrap makes of them."""
    NO_PROC = "no-proc"
    """There is no /proc."""
    NETWORK_NAMESPACE = "net-ns"
    IPC_NAMESPACE = "ipc-ns"
    HOST_NAME_NAMESPACE = "uts-ns"
    PID_NAMESPACE = "pid-ns"
    """Each run and each session has its own."""
    TMPFS = "tmpfs-tmp"
    """A small /tmp for each run; without it: one for all, of any size."""
    SECCOMP = "seccomp-allow-list"
    LANDLOCK = "landlock"
    """File access cut down a second time, by the kernel's Landlock, where it has it."""
    RLIMITS = "rlimits"
    NO_CAPABILITIES = "no-capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    NON_DUMPABLE = "non-dumpable"
    CGROUP_MEMORY = "cgroup-memory"
    CGROUP_PIDS = "cgroup-pids"
    WALL_CLOCK = "wall-clock"
    """The supervisor's clock ends what runs too long."""
    OUTPUT_CAP = "output-cap"
    """What a program prints is cut, and a flood ends it."""


NONE: frozenset[Layer] = frozenset()
