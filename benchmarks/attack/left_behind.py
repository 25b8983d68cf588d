"""What outlasts a step of a session: processes that go on, memory that is kept, sessions without end."""

import functools

from benchmarks.attack.attack import LIMITLESS, Attack
from benchmarks.attack.session_probes import (
    BOMB,
    CLONE,
    ComputesOn,
    Hoards,
    LeavesProcesses,
    When,
    too_many_sessions,
)

attack = functools.partial(Attack, category="sessions")

STRAY_BUSY = f"""
if {CLONE} == 0:
    hold(4)
    os._exit(0)
"""
FORK_CHAIN = f"""
# Each forks the next and ends, so that whoever looks for it is late.
end = time.monotonic() + 4
for n in range(8):
    if {CLONE} == 0:
        while time.monotonic() < end:
            if {CLONE} > 0: os._exit(0)
        os._exit(0)
"""
# The same in machine code, 4000 generations of it: clone; if that is the parent, exit_group; again.
FAST_FORK_CHAIN = f"""
for n in range(8):
    if {CLONE} == 0:
        machine_code(
            "41bca00f0000 b838000000 bf11800000 31f6 31d2 4531d2 4531c0 0f05 85c0 7f05 41ffcc 75e1 31ff b8e7000000 0f05"
        )
"""
FORGED_BUSY = "os.write(3, b'k')\nhold(4)"
FORGED_STRAYS = f"""
# Says that it is done; what it does then comes after the sweep.
os.write(3, b'k')
time.sleep(0.3)
for n in range(4):
    if {CLONE} == 0: break
hold(4)
"""

ATTACKS = [
    attack(
        name="leaves a busy process behind",
        probe=ComputesOn(STRAY_BUSY, When.AFTER_BATCH),
        control=ComputesOn(STRAY_BUSY, When.DURING),
        control_is="the same process while the step still runs",
        alone=True,
        local=True,
    ),
    *(
        attack(
            name=name,
            probe=ComputesOn(chain, When.AFTER_BATCH, tries=5),
            control=ComputesOn(chain, When.DURING),
            control_is="the same processes while the step still runs",
            alone=True,
            local=True,
            machine=machine,
        )
        for name, chain, machine in (
            ("leaves processes behind that fork and end", FORK_CHAIN, None),
            ("leaves processes behind that fork and end quickly", FAST_FORK_CHAIN, "x86_64"),
        )
    ),
    attack(
        name="computes on after it has answered",
        probe=ComputesOn(FORGED_BUSY, When.AFTER_BATCH),
        control=ComputesOn(FORGED_BUSY.removeprefix("os.write(3, b'k')\n"), When.DURING),
        control_is="the same while the step runs",
        alone=True,
        local=True,
    ),
    attack(
        name="forks after it has answered",
        probe=ComputesOn(FORGED_STRAYS, When.AFTER_BATCH),
        control=ComputesOn(STRAY_BUSY, When.DURING),
        control_is="a process left behind, while the step still runs",
        alone=True,
        local=True,
    ),
    *(
        attack(
            name=f"outlives the session: {name}",
            probe=ComputesOn(code, When.AFTER_DELETE),
            control=ComputesOn(STRAY_BUSY, When.DURING),
            control_is="a process left behind, while the step still runs",
            alone=True,
            local=True,
        )
        for name, code in (("a busy process", STRAY_BUSY), ("processes that fork and end", FORK_CHAIN))
    ),
    *(
        attack(
            name=f"leaves idle processes behind, {when.name.lower().replace('_', ' ')}",
            probe=LeavesProcesses(BOMB.replace("640", "30") + "time.sleep(0.3)", when),
            control=LeavesProcesses(BOMB.replace("640", "30") + "time.sleep(0.3)", When.DURING, more_than=20),
            control_is="the same processes while the step still runs",
            alone=True,
            local=True,
        )
        for when in (When.AFTER_BATCH, When.AFTER_DELETE)
    ),
    attack(
        name="hoards memory in states that are kept",
        probe=Hoards(),
        without=LIMITLESS,
        alone=True,
        local=True,
    ),
    attack(
        name="begins sessions without end",
        probe=too_many_sessions,
        control=functools.partial(too_many_sessions, count=8, enough=8),
        control_is="as many as there may be",
        alone=True,
        local=True,
    ),
]
