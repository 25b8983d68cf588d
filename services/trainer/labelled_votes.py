"""From searches that are over to what a calibration is fitted to: their answers, and which of them are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from ratchet.clients import SandboxClient
from ratchet.contracts.search import StrategyName
from ratchet.solutions.answers import same_answer
from ratchet.solutions.calibration import LabelledVote
from ratchet.solutions.votes import count_votes, find_ends, vote_of
from ratchet.states import SEARCH_TRANSITIONS, is_end
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.nodes import NodeRecord


class UnfitSearchError(ValueError):
    """A search that no calibration can be fitted to; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class LabelledVotes:
    """What a calibration is fitted to."""

    policy: str
    prm: str
    votes: Sequence[LabelledVote]
    early_stop: bool
    """Whether the searches might end early."""


async def label(
    sandbox: SandboxClient, strategy: StrategyName, nodes: Sequence[NodeRecord], reference: str
) -> LabelledVote:
    """The answers of a tree, the leading one first, compared with the reference. Raises ServiceError."""
    groups = count_votes(find_ends(nodes), vote_of(strategy))
    return LabelledVote(
        groups, [await same_answer(sandbox, group.ends[0].answer, reference) for group in groups]
    )


async def read_labelled(
    store: CalibrationStore, sandbox: SandboxClient, references: Mapping[UUID, str]
) -> LabelledVotes:
    """A vote for each of these searches. Raises UnfitSearchError, ServiceError, StoreUnavailableError."""
    pairs: set[tuple[str, str]] = set()
    endings: set[bool] = set()
    votes: list[LabelledVote] = []
    async for searched in store.searches(list(references)):
        if not is_end(SEARCH_TRANSITIONS, searched.state):
            raise UnfitSearchError(f"Search {searched.search_id} is not over.")
        if searched.knew_reference:
            raise UnfitSearchError(f"Search {searched.search_id} knew its reference answer.")
        if searched.strategy is StrategyName.GREEDY:
            raise UnfitSearchError(
                f"Search {searched.search_id} was greedy: one trajectory says nothing of a vote."
            )
        pair = searched.models.get("policy"), searched.models.get("prm")
        if not pair[0] or not pair[1]:
            raise UnfitSearchError(f"Search {searched.search_id} was not scored by a PRM.")
        pairs.add((pair[0], pair[1]))
        endings.add(searched.early_stop)
        votes.append(await label(sandbox, searched.strategy, searched.nodes, references[searched.search_id]))
    if len(votes) < len(references):
        raise UnfitSearchError(f"{len(references) - len(votes)} of the searches are not there.")
    if len(pairs) > 1:
        named = "; ".join(f"{policy} with {prm}" for policy, prm in sorted(pairs))
        raise UnfitSearchError(f"These searches are of several pairs of models: {named}.")
    if len(endings) > 1:
        raise UnfitSearchError(
            "Some of these searches might end early, others not: probabilities are of one kind."
        )
    [(policy, prm)] = pairs
    return LabelledVotes(policy, prm, votes, early_stop=True in endings)
