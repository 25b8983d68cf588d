"""Does a search end before its budget is used up, because its answer is as good as certain?

A vote goes over the whole tree. So it is not counted after each rollout, but only when there is a twentieth more of them than
at the last look: of the first twenty each is looked at, and all looks together cost some twenty times the last one,
however large the tree becomes. A search so ends at most a twentieth later than it could.
"""

from ratchet.contracts.search import VerificationLevel
from ratchet.solutions.independence import Independence, free_draws
from services.search.search import Search, is_sampled
from services.search.votes import Group, hardly_overtaken, has_half, tally

LOOKS = 20
"""The next look is due when there are this part more rollouts."""


class EarlyStop:
    """Looks at one search."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._due = _look_at(search.tree.root.visits)

    def reason(self) -> str | None:
        """Why the search can end now; None when it cannot, or when it is no time to look."""
        search = self._search
        rollouts = search.tree.root.visits
        if not search.request.parameters.early_stop or rollouts < self._due:
            return None
        self._due = _look_at(rollouts + 1)
        if search.reference is not None:
            if any(node.value_sum > 0 for node in search.tree.terminals()):
                return "a trajectory gives the reference answer"
            return None
        if search.calibration is not None and search.min_confidence:
            # Calibrations are fitted to whole searches. One that ends when its answer looks best would be less often right
            # than they say: 14 of nano's answers that ended so at four votes of four had 0.88, and 4 of them were right.
            return None
        votes = tally(search.tree, search.request.strategy)
        # As long as the verification that was asked for is not within reach, a clear lead is no reason to stop.
        level = search.request.require
        least = 1 if level is VerificationLevel.EXECUTION else search.request.parameters.min_agreement
        if hardly_overtaken(votes, least) and _in_reach(search, votes, least):
            return "the leading answer can hardly be overtaken"
        return None


def _look_at(rollouts: int) -> int:
    """The first look that is due at so many rollouts or later: the same for whoever takes the search up."""
    due = 1
    while due < rollouts:
        due += 1 + due // LOOKS
    return due


def _in_reach(search: Search, groups: list[Group], least: int) -> bool:
    """Whether the leading answer can be verified as was asked for, whatever its programs are worth."""
    if search.request.require is VerificationLevel.EXECUTION:
        return True
    if search.beginning is not None and search.beginning.steps:
        # What shares a given beginning never agrees independently: to wait for it would be to wait for nothing.
        return True
    independence = Independence(free_draws(search.tree.nodes.values(), sampled=is_sampled(search.request)))
    return independence.count(groups[0].trajectories) >= least and has_half(groups, groups[0])
