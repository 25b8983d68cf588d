"""Which problems are set aside, because independent evidence speaks against their reference answers?

A problem is set aside when no trajectory gives its reference answer, while programs of one grounded behaviour that were found
independently agree on another one, which leads, and the PRM believes it; and when the last search of the problem says so by
itself, after one before it: problems that stay unsolved are searched again with more rollouts. Branches of one misconception
share their beginning, and count once.

Pure: running the programs is `reexecution.py`.

Limits: programs that were drawn apart may still share a misconception, which is why a person may overrule. Of a problem that
states no quantity nobody can tell whether its programs compute: it is never set aside.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from ratchet.contracts.rounds import Disagreement, Selection
from ratchet.solutions.answers import answer_key
from ratchet.solutions.behaviour import Behaviour
from ratchet.solutions.independence import Independence
from services.trainer.selection import Found, Trajectory

MAX_PROGRAMS = 8
"""Of one answer that are run again: enough for any disagreement, and bounded."""


def suspects(found: Found, rules: Selection) -> list[Trajectory]:
    """One trajectory for each program that is to be run before the reference answer is trusted; none where it stands anyhow."""
    asked: dict[str, Trajectory] = {}
    for look in _loss(found, rules):
        asked |= {each.fingerprint: each for each in _programs(look)}
    return list(asked.values())


def disagreement(
    found: Found, rules: Selection, behaviours: Mapping[str, Behaviour | None]
) -> Disagreement | None:
    """Why the reference answer is not trusted; None where it is.

    `behaviours` of the programs of `suspects`, by fingerprint; None for one that did not give its answer again.
    """
    looks = _loss(found, rules)
    finds = [_most_alike(look, found.draws, behaviours) for look in looks]
    if not finds or min(finds) < rules.quarantine_programs:
        return None
    return Disagreement(answer=looks[0][0].answer, programs=finds[0], prm_score=round(_believed(looks[0]), 4))


def _loss(found: Found, rules: Selection) -> list[list[Trajectory]]:
    """The trajectories of the answer against which the reference may lose: all of them, and those of the last search.

    It leads in both looks, and has enough behind it in both if all its programs are grounded and behave alike. Empty where
    there is no such answer.
    """
    if found.correct or len({each.attempt for each in found.trajectories}) < 2:
        return []
    last = [each for each in found.trajectories if each.attempt == found.last_attempt]
    looks = [_leading(found.trajectories), _leading(last)]
    if len({answer_key(look[0].answer) for look in looks if look}) != 1:
        return []
    enough = all(
        Independence(found.draws).count(look) >= rules.quarantine_programs
        and _believed(look) >= rules.quarantine_prm
        for look in looks
    )
    return looks if enough else []


def _leading(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those of the answer that most rollouts gave."""
    groups: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for each in trajectories:
        groups[answer_key(each.answer)].append(each)
    return max(groups.values(), key=lambda group: sum(each.votes for each in group), default=[])


def _believed(trajectories: Sequence[Trajectory]) -> float:
    """How much the PRM believes an answer, in [0, 1]."""
    return fmean(each.mean_prm for each in trajectories)


def _programs(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """One trajectory for each of the programs that were found most often, at most MAX_PROGRAMS."""
    votes: defaultdict[str, int] = defaultdict(int)
    firsts: dict[str, Trajectory] = {}
    for each in trajectories:
        votes[each.fingerprint] += each.votes
        firsts.setdefault(each.fingerprint, each)
    most = sorted(firsts, key=lambda name: -votes[name])[:MAX_PROGRAMS]
    return [firsts[name] for name in most]


def _most_alike(
    trajectories: Sequence[Trajectory],
    draws: Mapping[str, int],
    behaviours: Mapping[str, Behaviour | None],
) -> int:
    """Independent finds of the grounded behaviour that was found most often."""
    alike: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for each in trajectories:
        behaviour = behaviours.get(each.fingerprint)
        if behaviour is not None and behaviour.grounded:
            alike[behaviour.signature].append(each)
    return max((Independence(draws).count(finds) for finds in alike.values()), default=0)
