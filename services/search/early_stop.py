"""Does a search end before its budget is used up, because its answer is as good as certain?

A vote goes over the whole tree. So it is not counted after each rollout, but only when there is a twentieth more of them than
at the last look: of the first twenty each is looked at, and all looks together cost some twenty times the last one,
however large the tree becomes. A search so ends at most a twentieth later than it could.
"""

from ratchet.contracts.branching import Beginning
from ratchet.contracts.search import SearchRequest, VerificationLevel
from ratchet.solutions.independence import Independence, free_draws
from ratchet.solutions.votes import count_votes, find_ends, vote_of
from services.search.search import Search, is_sampled
from services.search.strategies import Tree
from services.search.votes import hardly_overtaken, has_half, tally

LOOKS = 20
"""The next look is due when there are this part more rollouts."""


class EarlyStop:
    """Looks at one search."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._due = next_look(search.tree.root.visits)

    def reason(self) -> str | None:
        """Why the search can end now; None when it cannot, or when it is no time to look."""
        search = self._search
        rollouts = search.tree.root.visits
        if not search.request.parameters.early_stop or rollouts < self._due:
            return None
        self._due = next_look(rollouts + 1)
        if search.reference is not None:
            if any(node.value_sum > 0 for node in search.tree.terminals()):
                return "a trajectory gives the reference answer"
            return None
        known = search.calibration
        if known is not None and search.min_confidence and not known.early_stop:
            # A probability is that of searches that ended as those did that it was fitted to. By one of whole searches a search
            # that ends when its answer looks best is less often right than stated: 14 of nano's answers that ended so at four
            # votes of four had 0.88, and 4 of them were right.
            return None
        if is_settled(search.tree, search.request, search.beginning):
            return "the leading answer can hardly be overtaken"
        return None


def is_settled(tree: Tree, request: SearchRequest, beginning: Beginning | None = None) -> bool:
    """Whether the leading answer can hardly be overtaken. As long as the verification that was asked for is not within reach,
    a clear lead is none."""
    counted = count_votes(find_ends(tree.nodes.values()), vote_of(request.strategy))
    one_is_enough = request.require in (VerificationLevel.EXECUTION, VerificationLevel.NONE)
    least = 1 if one_is_enough else request.parameters.min_agreement
    if not hardly_overtaken([group.votes for group in counted], least):
        return False
    if one_is_enough:
        return True
    if beginning is not None and beginning.steps:
        # What shares a given beginning never agrees independently: to wait for it would be to wait for nothing.
        return True
    votes = tally(tree, request.strategy)
    independence = Independence(free_draws(tree.nodes.values(), sampled=is_sampled(request)))
    return independence.count(votes[0].trajectories) >= least and has_half(votes, votes[0])


def next_look(rollouts: int) -> int:
    """The first look that is due at so many rollouts or later: the same for whoever takes the search up."""
    due = 1
    while due < rollouts:
        due += 1 + due // LOOKS
    return due
