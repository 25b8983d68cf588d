"""All attacks of this machine, in the order of the files that they are in. Titles are unique."""

import platform
from collections import Counter
from fnmatch import fnmatch

from benchmarks.attack import (
    files,
    grading,
    harness,
    kernel,
    left_behind,
    malformed,
    memory,
    network,
    processes,
    sessions,
    time_and_output,
)
from benchmarks.attack.attack import Attack

_MODULES = (
    files,
    processes,
    network,
    kernel,
    memory,
    time_and_output,
    harness,
    sessions,
    left_behind,
    grading,
    malformed,
)


def attacks(pattern: str | None = None) -> list[Attack]:
    """Those whose title has the pattern in it (`*` for anything). Raises ValueError where two have one title."""
    every = [attack for module in _MODULES for attack in module.ATTACKS]
    twice = [title for title, count in Counter(attack.title for attack in every).items() if count > 1]
    if twice:
        raise ValueError(f"two attacks of one title: {twice}")
    here = [attack for attack in every if attack.machine in (None, platform.machine())]
    return [attack for attack in here if pattern is None or fnmatch(attack.title, f"*{pattern}*")]
