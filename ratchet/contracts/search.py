"""Search service: find and verify a solution."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ratchet.contracts.base import Contract, ProblemText, Text, not_blank
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.serving import ModelVersion
from ratchet.states import NodeState, SearchState

MAX_ROLLOUTS = 65_536
"""Of one search; a tree of 10,000 nodes takes more than 4,096."""
MAX_NODES = 1_000_000
"""Of one search's tree."""
MAX_TOKENS = 10_000_000
MAX_SECONDS = 86_400.0
"""Most that the budget of one search may be."""


class StrategyName(StrEnum):
    """How the tree is grown."""

    MCTS = "mcts"
    """Monte-Carlo tree search over executed steps: UCT, PRM-seeded, a gate that leaves steps whose score collapses."""
    BEST_OF_N = "best_of_n"
    """Independent trajectories; the answer with the most PRM score behind it."""
    MAJORITY = "majority"
    """Independent trajectories; the most frequent answer (self-consistency)."""
    GREEDY = "greedy"
    """One trajectory at temperature 0: the policy alone."""
    BEAM = "beam"
    """Level by level; the best candidates of each level are kept."""
    DVTS = "dvts"
    """Level by level in subtrees that do not compete; the best candidate of each is kept."""
    REBASE = "rebase"
    """Level by level; draws are allotted by the softmax of the scores."""
    AUTO = "auto"
    """What measured best for the models that answer, mcts where nothing was measured; the result says which it was."""


class Priority(StrEnum):
    """Order among waiting searches."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class VerificationLevel(StrEnum):
    """What stands behind an answer, the strongest first."""

    REFERENCE = "reference"
    """Equals the reference answer that came with the request."""
    AGREEMENT = "agreement"
    """Several programs that differ in more than names, each re-executed from nothing in a clean jail, give this answer."""
    EXECUTION = "execution"
    """One program, re-executed from nothing in a clean jail, gives this answer."""
    NONE = "none"
    """No program that gives this answer could be re-executed."""


class PrmUse(StrEnum):
    """What the PRM's scores do in a search."""

    VALUE = "value"
    """They seed the values of nodes, gate steps, prune levels and weigh votes."""
    NONE = "none"
    """Nothing: no score is asked for. Values come from the ends of trajectories alone."""


class StrategyParameters(Contract):
    """Parameters of a strategy; what a strategy does not use it ignores."""

    rollouts: int = Field(
        default=16,
        ge=1,
        le=MAX_ROLLOUTS,
        description="Most solutions that the policy completes from a node of the tree to their end.",
    )
    branching_factor: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="mcts: rollouts that begin at a node before its children are compared, times its visits to the power of "
        "`widening`. beam, dvts: steps that are drawn from a node that is kept. Null: 8 for mcts, 4 for the others.",
    )
    widening: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Progressive widening (mcts): a node that was visited N times gets `branching_factor * N^widening` "
        "rollouts of its own. 0: always `branching_factor`.",
    )
    width: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Steps that are drawn in a level (beam, dvts, rebase). It grows by itself while budget is left.",
    )
    gate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="A drawn step is left when its PRM score is under so much of its parent's (mcts). 0: whole trajectories "
        "are drawn, and none is left. Null: what was measured best for the PRM that scores.",
    )
    redraws: int = Field(
        default=2, ge=0, le=8, description="How often a step that was left is drawn again (mcts)."
    )
    max_depth: int = Field(default=16, ge=1, le=64, description="Most steps in a solution.")
    exploration: float = Field(default=2.0, ge=0, le=100, description="Exploration constant c of UCT.")
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(
        default=512,
        ge=8,
        le=4096,
        description="Most generated tokens in one trajectory, or in what is left of it.",
    )
    in_flight: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Tasks of one search under way at once. Null: four of those that had better wait for one another; of those "
        "that need not (the first `branching_factor` rollouts of mcts without a gate, the steps of a level, independent "
        "solutions) eight, 64 without `early_stop`.",
    )
    batch_rollouts: bool = Field(
        default=False,
        description="Rollouts that begin at the same moment share one request to the policy. Faster where models are "
        "tiny; each rollout then waits for the longest of them.",
    )
    shared_draws: bool = Field(
        default=False,
        description="What the policy draws is shared with the other searches of this problem and seed that say so, as far as "
        "they go the same way, and counts as drawn in each. For evaluations: several strategies and PRMs cost little more "
        "than one, and differ by what they do, not by luck. Where the PRM gates mcts, independent solutions are drawn step by "
        "step too.",
    )
    min_agreement: int = Field(
        default=2, ge=2, le=64, description="Programs that must agree for the verification level `agreement`."
    )
    prm: PrmUse = Field(default=PrmUse.VALUE, description="What the PRM's scores do.")
    early_stop: bool = Field(
        default=True,
        description="End when the leading answer can hardly be overtaken, unless its calibrated probability counts. Off: spend "
        "the whole budget.",
    )

    @property
    def most_nodes(self) -> int:
        """Nodes that the rollouts can make at the most, any step left and drawn again: a budget that cuts none off."""
        return min(MAX_NODES, self.rollouts * self.max_depth * (1 + self.redraws))


class Budget(Contract):
    """A search ends when any of these is used up."""

    tokens: int = Field(
        default=4096,
        ge=1,
        le=MAX_TOKENS,
        description="Generated tokens. The last trajectory that is begun may go beyond them.",
    )
    seconds: float = Field(
        default=600.0,
        gt=0,
        le=MAX_SECONDS,
        description="Seconds that are worked on it: those in the queue, or without a backend, do not count.",
    )
    nodes: int = Field(default=1024, ge=1, le=MAX_NODES, description="Nodes in the tree, the root apart.")


class PinnedModels(Contract):
    """Model versions that a search is to use; none: those that serve."""

    policy: ModelVersion | None = None
    prm: ModelVersion | None = None


class SearchRequest(Contract):
    """Body of `POST /search`. Only `problem` is needed."""

    problem: ProblemText = Field(
        examples=["A farmer has 17 sheep and buys 5 more each week for 4 weeks. How many sheep does he have?"]
    )
    reference_answer: Annotated[Text, AfterValidator(not_blank)] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="The right answer, where it is known. Only the verifier sees it; it guides no generation.",
        examples=["37"],
    )
    strategy: StrategyName = StrategyName.MCTS
    parameters: StrategyParameters = Field(default_factory=StrategyParameters)
    budget: Budget = Field(default_factory=Budget)
    models: PinnedModels = Field(
        default_factory=PinnedModels,
        description="Model versions that the services hold; none: those that serve.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Problem and seed decide the draws: the same two ask for the same search. Problems that are sent with one "
        "seed have draws of their own.",
    )
    priority: Priority = Priority.NORMAL
    require: VerificationLevel = Field(
        default=VerificationLevel.AGREEMENT,
        description="The weakest verification that counts as solved. With a reference answer it is always `reference`. `none`: "
        "nothing is re-executed, and no answer counts as solved; for evaluations, which grade the answers themselves.",
    )
    min_confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The least probability of being right that counts as solved. Null: what the calibration of the policy with "
        "its PRM asks for; where they have none the level alone decides. An answer that equals a reference answer has 1.",
    )
    wait: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Seconds to wait for the end. Over before then: 200 with the result; otherwise 202.",
    )

    @model_validator(mode="after")
    def _reference_needs_an_answer(self) -> "SearchRequest":
        if self.require is VerificationLevel.REFERENCE and self.reference_answer is None:
            raise ValueError("require=reference needs a reference_answer")
        return self


class StepView(Contract):
    """One step of the solution."""

    text: str
    stdout: str
    prm_score: float | None


class Verification(Contract):
    """What stands behind the answer."""

    level: VerificationLevel
    votes: int = Field(ge=0, description="Trajectories that gave this answer: each has one vote.")
    total_votes: int = Field(ge=0, description="Votes for all answers.")
    independent_programs: int = Field(
        ge=0,
        description="How often a program that behaves like the solution, re-executed clean, was found independently: "
        "trajectories that share their first step count as often as the policy began with it afresh.",
    )
    forms: int = Field(
        ge=0,
        description="In how many forms it was found: they differ in what they compute on the way, and not only in names, "
        "layout, intermediate variables and the order of operands.",
    )
    grounded: bool | None = Field(
        default=None,
        description="Whether the solution's answer changes with what the problem states. Null: the problem states no quantity "
        "that could be changed, or no program was re-executed.",
    )
    prm_share: float = Field(ge=0, le=1, description="This answer's share of the PRM-weighted vote.")
    confidence: float | None = Field(
        ge=0,
        le=1,
        description="Calibrated probability that the answer is right (docs/measurements/trust.md). Null: policy and PRM are "
        "not calibrated, or nothing was sampled and scored.",
    )
    min_confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="What it had to reach to count as solved: what the request asked for, otherwise what the calibration asks "
        "for. Null: nothing, the level alone decided.",
    )


class UsagePart(Contract):
    """Cost of one part of a search."""

    calls: int = 0
    tokens: int = 0
    prompt_tokens: int = Field(default=0, description="Tokens of the prompts that the policy has read.")
    seconds: float = Field(
        default=0.0, description="Sum over calls; calls overlap, so this can exceed the wall time."
    )


class Usage(Contract):
    """What the search cost, by part."""

    policy: UsagePart = Field(default_factory=UsagePart)
    prm: UsagePart = Field(default_factory=UsagePart)
    sandbox: UsagePart = Field(default_factory=UsagePart)
    wall_seconds: float = 0.0
    nodes: int = 0
    rollouts: int = 0


class Parent(Contract):
    """Where a search was branched from."""

    search: str
    node: str = Field(description="The node of that search; `root` is the bare problem.")


class Asked(Contract):
    """What a request asked for besides its problem, strategy and seed, with the defaults of what it left out."""

    parameters: StrategyParameters
    budget: Budget
    models: PinnedModels
    priority: Priority
    require: VerificationLevel
    min_confidence: float | None


class SearchResult(Contract):
    """State of a search and, once there is one, its best answer."""

    id: str = Field(examples=["0198f1d2-7c1e-7b43-9d55-0d1a5b7f3c11"])
    state: SearchState
    problem: str
    strategy: StrategyName
    seed: int
    answer: str | None = None
    program: str | None = Field(default=None, description="The steps as one Python program.")
    steps: list[StepView] = Field(default_factory=list)
    verification: Verification | None = None
    usage: Usage = Field(default_factory=Usage)
    models: dict[str, str] = Field(default_factory=dict, description="Versions, by part: policy, prm.")
    reason: str | None = Field(default=None, description="Why the search ended as it did.")
    parent: Parent | None = Field(default=None, description="The search that it was branched from.")
    asked: Asked | None = Field(
        default=None,
        description="What was asked for. Null: another version asked in words that this one does not know.",
    )
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None


class NodeView(Contract):
    """One node of the tree."""

    id: str
    parent: str | None
    depth: int
    state: NodeState
    text: str
    status: StepStatus | None
    stdout: str
    stderr: str
    prm_score: float | None
    prior: float = Field(description="Mean log-probability of the step under the policy, nats.")
    visits: int
    q: float
    tokens: int
    seconds: float
    answer: str | None
    answer_group: str | None = Field(
        default=None,
        description="Equal for answers that are one in the vote, however they are written; none without an answer.",
    )
    ended_by: str | None = Field(
        default=None,
        description="Why nothing can follow this node, where that is not its depth, its answer or its failure: the policy "
        "reads no more than the steps up to it.",
    )


class TreeView(Contract):
    """A page of the tree, or all of it, parents before children."""

    search: str
    nodes: list[NodeView]
    next: str | None = Field(
        default=None,
        description="`cursor` of the next page; none on the last, and none where this is the whole tree.",
    )


class EventKind(StrEnum):
    """What `GET /search/{id}/events` can carry. A search of low priority tells its nodes and answers while somebody reads."""

    STATE = "state"
    """The search changed its state; `data` is {state, reason}."""
    NODE = "node"
    """A node was added or has changed; `data` is a NodeView, long texts are cut (`/tree` has them whole)."""
    ANSWER = "answer"
    """A trajectory ended in an answer; `data` is {node, answer, answer_group, prm_score, votes}."""
    GAP = "gap"
    """Events before this one are no longer kept; `data` is {reason}. `/tree` has what they told."""
    END = "end"
    """The search is over; `data` is a SearchResult. The last event."""


class SearchEvent(Contract):
    """One server-sent event; its id orders it and lets a reader reconnect with `Last-Event-ID`."""

    id: str
    kind: EventKind
    data: dict[str, Any]


class ProofProgram(Contract):
    """A program that gives the answer."""

    steps: list[str]
    stdout: list[str] = Field(description="What each step printed in the clean re-execution.")
    found: int = Field(
        ge=0,
        description="How often it was found independently of the programs before it; the service's word.",
    )
    answers: list[str] = Field(
        description="What it answers to each of the variants: the key of the answer, `error` where it does not run to its "
        "end, `none` where it gives no answer."
    )
    sha256: str = Field(description="Of the steps joined by a NUL byte, UTF-8.")


class StatedQuantity(Contract):
    """A quantity that the problem states."""

    text: str
    start: int = Field(description="Where it begins in the problem, in characters.")
    values: list[str] = Field(description="Numbers by which a program may state it, as fractions.")


class ProofBeginning(Contract):
    """What a person gave the search to begin with."""

    search: str = Field(description="The one that it was branched from.")
    steps: list[str] = Field(description="The first steps of every program: given, and not found.")
    edited: bool = Field(description="The last of them was written by a person.")
    forbidden: list[str] = Field(description="Steps that the policy was not to take next.")


class Proof(Contract):
    """A bundle that `ratchet verify` re-executes offline."""

    format: Literal["ratchet-proof/2"] = "ratchet-proof/2"
    search: str
    problem: str
    answer: str
    verification: Verification
    quantities: list[StatedQuantity]
    variants: list[dict[str, str]] = Field(
        description="Changes of the quantities: numbers that are replaced in every program, and by what, as fractions."
    )
    programs: list[ProofProgram] = Field(
        description="The program of the answer first, then those that behave like it."
    )
    seed: int
    strategy: StrategyName
    parameters: StrategyParameters
    models: dict[str, str]
    beginning: ProofBeginning | None = Field(default=None, description="Null: the policy began by itself.")
    versions: dict[str, str] = Field(description="Of Ratchet, Python and the preloaded libraries.")
    usage: Usage
    created_at: datetime
    sha256: str = Field(description="Of this bundle as canonical JSON without this field.")
