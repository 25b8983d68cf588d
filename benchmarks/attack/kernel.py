"""The kernel: calls by which others have broken out, taken one by one.

Most count as gone through when the kernel answers at all, whatever it answers: what contains them is the filter, and
the kernel's own refusals are not ours to test. Where the kernel asks for privileges before anything else, the program
first takes those of a user namespace of its own, if it can.
"""

import ctypes
import functools
import secrets

from benchmarks.attack.attack import (
    FILTER,
    HOST_NAMESPACES,
    LIMITLESS,
    PRIVILEGED,
    Attack,
    Program,
    Seen,
    excerpt,
    new_token,
)
from benchmarks.attack.files import Persists
from benchmarks.attack.service import Service

attack = functools.partial(Attack, category="kernel")

MOUNTING = 'become_root()\ncall("unshare", 0x00020000)\n'

REACHED = {
    "io_uring": [
        'call("io_uring_setup", 8, buffer)',
        'call("io_uring_enter", -1, 1, 0, 0, 0, 0)',
        'call("io_uring_register", -1, 0, 0, 0)',
    ],
    "BPF": ['call("bpf", 0, buffer, 1 << 20)', 'call("bpf", 0, buffer, 72)'],
    "performance events": ['call("perf_event_open", buffer, 0, -1, -1, 1 << 30)'],
    "user page faults": ['call("userfaultfd", 1)'],
    "keyrings": ['call("keyctl", 0, -3, 1)', 'call("request_key", b"user", b"x", 0, 0)'],
    "other namespaces": ['call("setns", -1, 0)', 'call("setns", 0, 0)'],
    "the new mount calls": [
        'call("open_tree", -100, b"/", 0)',
        'call("move_mount", -1, b"", -100, b"/tmp", 4)',
        'call("fspick", -100, b"/", 0)',
        'call("mount_setattr", -1, b"", 0x1000, buffer, 32)',
        'call("fsmount", -1, 0, 0)',
    ],
    "files in memory": ['call("memfd_create", b"x", 0)', 'call("memfd_secret", 0)'],
    "tracing": ['call("ptrace", 16, 99999, 0, 0)'],
    "handles of processes": ['call("pidfd_open", 1, 0)', 'call("pidfd_getfd", -1, 0, 0)'],
    "comparing processes": ['call("kcmp", 1, 1, 0, 0, 0)'],
    "other processes' memory": [
        'call("process_vm_writev", 1, buffer, 1, buffer, 1, 0)',
        'call("process_madvise", -1, buffer, 1, 4, 0)',
        'call("process_mrelease", -1, 0)',
        'call("move_pages", 1, 0, 0, 0, 0, 0)',
        'call("migrate_pages", 1, 0, buffer, buffer)',
    ],
    "modules, kexec, swap, accounting and the log": [
        'call("init_module", 0, 0, b"")',
        'call("finit_module", -1, b"", 0)',
        'call("delete_module", b"x", 0)',
        'call("kexec_load", 0, 0, 0, 1 << 20)',
        'call("kexec_file_load", -1, -1, 0, 0, 1 << 20)',
        'call("acct", 0)',
        'call("swapon", b"/x", 0x7fff0000)',
        'call("swapoff", b"/x")',
        'call("vhangup")',
        'call("syslog", 10, 0, 0)',
    ],
    "quotas": ['call("quotactl", 0x800001ff, 0, 0, 0)'],
    "the clock": [
        'call("settimeofday", (ctypes.c_long * 2)(0, 2_000_000_000), 0)',
        'call("clock_settime", 0, (ctypes.c_long * 2)(0, -1))',
        'call("adjtimex", buffer)',
        'call("clock_adjtime", 0, buffer)',
    ],
    "another personality": ['call("personality", 0x40000)'],
    "scheduling": [
        'call("sched_setaffinity", 0, 8, (ctypes.c_ulong * 1)(1))',
        'call("sched_setscheduler", 0, 3, buffer)',
        'call("sched_setparam", 0, buffer)',
        'call("sched_setattr", 0, buffer, 0)',
        'call("setpriority", 0, 0, 1)',
        'call("ioprio_set", 1, 0, 3 << 13)',
    ],
    "terminals and devices": [
        'call("ioctl", 0, 0x5412, b"x")',
        'call("ioctl", 0, 0x541C, buffer)',
        'call("ioctl", 0, 0x540E, 1)',
        'call("ioctl", 0, 0x5452, buffer)',
        'call("ioctl", 0, 0xFFFFFFFF00005412, b"x")',
    ],
    "its limits": ['call("setrlimit", 4, buffer)', 'call("prlimit64", 1, 4, 0, buffer)'],
    "other users and groups": [
        'call("setresuid", -1, -1, -1)',
        'call("setresgid", -1, -1, -1)',
        'call("setfsuid", -1)',
        'call("setuid", 0)',
        'call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), buffer)',
    ],
    "SysV memory, semaphores and messages": [
        'call("shmget", 0, 4096, 0o1600)',
        'call("semget", 0, 1, 0o1600)',
        'call("msgget", 0, 0o1600)',
    ],
    "POSIX messages": ['call("mq_open", b"x", 0o102, 0o600, 0)'],
    "watching files": ['call("inotify_init1", 0)', 'call("fanotify_init", 0x200, 0)'],
    "moving pages between pipes": [
        'call("splice", -1, 0, -1, 0, 1, 0)',
        'call("tee", -1, -1, 1, 0)',
        'call("vmsplice", -1, 0, 0, 0)',
    ],
    "another filter": [
        'call("seccomp", 2, 0, (ctypes.c_uint32 * 1)(0x7fff0000))',
        'call("prctl", 22, 2, 0, 0, 0)',
    ],
    "segments and ports": [
        'call("modify_ldt", 0, buffer, 16)',
        'call("ioperm", 0, 1, 0)',
        'call("iopl", 0)',
    ],
    "where memory lies": ['call("set_mempolicy", 0, 0, 0)', 'call("mbind", 0, 0, 0, 0, 0, 0)'],
    "signals with data": [
        'call("rt_sigqueueinfo", 1, 0, buffer)',
        'call("rt_tgsigqueueinfo", 1, 1, 0, buffer)',
    ],
    "obsolete calls": [
        'call("sysfs", 3)',
        'call("ustat", 0, buffer)',
        'call("uselib", b"/x")',
        'call("_sysctl", buffer)',
        'call("remap_file_pages", 0, 0, 0, 0, 0)',
        'call("lookup_dcookie", 0, buffer, 10)',
        'call("nfsservctl", 0, 0, 0)',
    ],
    "timers that outlive a fork": ['call("timer_create", 0, 0, buffer)', 'call("timerfd_create", 0, 0)'],
    "copies between files": ['call("copy_file_range", -1, 0, -1, 0, 1, 0)', 'call("sendfile", -1, -1, 0, 1)'],
}
"""Any answer but the filter's shows that a call came through."""

OPTIONS = {
    "be read by others": 'call("prctl", 4, 1, 0, 0, 0)',
    "be traced by anybody": 'call("prctl", 0x59616D61, -1, 0, 0, 0)',
    "outlive its parent": 'call("prctl", 1, 0, 0, 0, 0)',
    "adopt orphans": 'call("prctl", 36, 1, 0, 0, 0)',
}

EFFECTS = {
    "makes a user namespace": 'proof(call("unshare", CLONE_NEWUSER) == 0)',
    "makes all other namespaces": 'become_root()\nproof(call("unshare", 0x6E020080) == 0)',
    "mounts one by the new calls": MOUNTING + 'proof(call("fsopen", b"tmpfs", 0) >= 0)',
    "shows what is below a mount": MOUNTING + 'proof(reached(call("umount2", b"/tmp", 2)))',
    "changes its root": 'become_root()\nproof(call("chroot", b"/tmp") == 0 and os.listdir("/") != ["usr"])',
    "renames the machine": 'become_root()\ncall("unshare", 0x04000000)\nproof(call("sethostname", b"x", 1) == 0)',
    "restarts the machine": """
# With numbers that mean nothing, and in a pid namespace of its own, whose first process alone it could end.
become_root()
call("unshare", 0x20000000)
proof(in_child(lambda: reached(call("reboot", 1, 2, 3, 0))))
""",
    "reads its own memory as another's": """
data = ctypes.create_string_buffer(8)
source = ctypes.create_string_buffer(b"1234567", 8)
one, two = ((ctypes.c_size_t * 2)(ctypes.addressof(text), 8) for text in (data, source))
call("process_vm_readv", os.getpid(), one, 1, two, 1, 0)
proof(data.value == b"1234567")
""",
    "uses calls that are younger than the filter's library": """
NR |= {str(n): n for n in range(451, 471)}
proof(any(reached(call(str(n), -1, -1, -1, -1, -1, -1)) for n in range(451, 471)))
""",
    "uses numbers far outside the table": """
NR |= {str(n): n for n in (500, 1000, 2**31, 2**32 - 1, 2**32 + 57)}
proof(any(reached(call(name)) for name in NR if name.isdigit()))
""",
}

IPC_CREATE, IPC_REMOVE = 0o1600, 0


def hosts_shared_memory(service: Service) -> Seen:
    """Reads a segment of shared memory that the host made, under a key that it is told."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key, secret = secrets.randbelow(2**30) + 1, new_token()
    segment = libc.shmget(key, 4096, 0o1000 | 0o600)
    try:
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, secret.encode(), len(secret))
        libc.shmdt(ctypes.c_void_p(address))
        answer = Program(READ_SEGMENT, given={"KEY": key}).answer(service)
    finally:
        libc.shmctl(segment, IPC_REMOVE, None)
    return Seen(secret[::-1] in answer["run_result"]["stdout"], excerpt(answer["run_result"]))


READ_SEGMENT = """
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(KEY, 0, 0)
assert segment >= 0
print(ctypes.string_at(libc.shmat(segment, None, 0), 16).decode()[::-1])
"""

ATTACKS = [
    *(
        attack(
            name=f"asks for {name}",
            probe=Program("\n".join(f"proof(reached({c}))" for c in calls)),
            without=FILTER,
        )
        for name, calls in REACHED.items()
    ),
    *(
        attack(name=f"asks to {name}", probe=Program(f"proof(reached({option}))"), without=FILTER)
        for name, option in OPTIONS.items()
    ),
    *(attack(name=name, probe=Program(code), without=FILTER) for name, code in EFFECTS.items()),
    attack(
        name="mounts with the zygote's own privilege",
        probe=Program('proof(call("mount", b"x", b"/tmp", b"tmpfs", 0, 0) == 0)'),
        without=PRIVILEGED,
    ),
    attack(
        name="mounts a file system with privileges of its own",
        probe=Program(MOUNTING + 'proof(call("mount", b"x", b"/tmp", b"tmpfs", 0, 0) == 0)'),
        without=PRIVILEGED,
    ),
    attack(
        name="swaps its root",
        probe=Program(MOUNTING + 'proof(reached(call("pivot_root", b".", b".")))'),
        without=PRIVILEGED,
    ),
    attack(
        name="has capabilities",
        probe=Program("""
data = (ctypes.c_uint32 * 6)()
proof(call("capget", (ctypes.c_uint32 * 2)(0x20080522, 0), data) == 0 and any(data))
"""),
        without=PRIVILEGED,
    ),
    attack(
        name="may be read by others",
        probe=Program('proof(call("prctl", 3, 0, 0, 0, 0) == 1)'),
        without=PRIVILEGED,
    ),
    attack(
        name="locks memory",
        probe=Program('proof(call("mlock", ctypes.addressof(buffer), 4096) == 0)'),
        without=LIMITLESS,
    ),
    attack(
        name="reads shared memory of the host",
        probe=hosts_shared_memory,
        without=HOST_NAMESPACES,
        local=True,
    ),
    attack(
        name="leaves a key for the next request",
        probe=Persists(
            'call("add_key", b"user", NAME.encode(), b"x", 1, -4)',
            """
key = call("keyctl", 10, -4, b"user", NAME.encode(), 0)  # search
proof(key > 0)
if key > 0: call("keyctl", 9, key, -4)  # unlink
""",
        ),
        without=FILTER,
    ),
    attack(
        name="leaves shared memory for the next request",
        probe=Persists(
            f'call("shmget", KEY, 4096, {IPC_CREATE})',
            """
segment = call("shmget", KEY, 0, 0)
proof(segment >= 0)
if segment >= 0: call("shmctl", segment, 0, 0)  # remove
""",
        ),
        without=FILTER,
    ),
]
