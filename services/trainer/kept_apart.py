"""Problems kept apart: no training sees them, so that its result can be judged by them.

The policy's training stops by them, and the PRM, which grows on that policy, is judged and calibrated by them. They are drawn
once a round, before either is trained.

Pure.

Limits: a policy that is trained on from the serving one (`from_current`) may have learnt in an earlier round from a problem
that is drawn only now; one that is trained from the base has not.
"""

from collections.abc import Iterable
from hashlib import blake2b

AT_LEAST = 6
"""Fewer say too little; of few problems more than half are never kept apart."""


def held_out_problems(problem_ids: Iterable[str], *, fraction: float, at_least: int, seed: int) -> set[str]:
    """The problems that are kept from training: `fraction` of them, `at_least` so many, but never more than half.

    They are drawn by a hash of their id, so that a problem that is held out in one round mostly is in the next.
    """
    ids = sorted(set(problem_ids), key=lambda one: blake2b(f"{seed}/{one}".encode(), digest_size=8).digest())
    return set(ids[: min(len(ids) // 2, max(at_least, round(fraction * len(ids))))])
