"""Inspect AI: a solver, a model and a scorer of Ratchet, and its jail as a sandbox. Inspect finds them by its entry point.

    inspect eval task.py --model ratchet/mcts -M tokens=800
    inspect eval task.py --model none --solver ratchet/search -S strategy=mcts
    Task(dataset, solver=…, scorer="ratchet/same_answer", sandbox="ratchet")

Limits: a search answers one problem, so the model takes the last message of the user, and neither tools nor images.
"""

from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageUser,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from ratchet.clients import SandboxClient
from ratchet.contracts.search import SearchResult
from ratchet.evaluators.jail import Jail
from ratchet.evaluators.solving import (
    EvaluatorError,
    local_stack,
    search_client,
    search_request,
    solution_text,
    solve,
)
from ratchet.solutions.answers import same_answer as is_same_answer

__all__ = ["Jail", "RatchetModel", "same_answer", "search"]

ANSWER = "#### "
CONNECTIONS = 16
"""Searches at once, unless Inspect is told otherwise."""


def output_of(result: SearchResult, model: str) -> ModelOutput:
    """What a search found, as the output of a model: the usage is that of the whole search."""
    output = ModelOutput.from_content(model, solution_text(result))
    policy, prm = result.usage.policy.tokens, result.usage.prm.tokens
    output.usage = ModelUsage(input_tokens=prm, output_tokens=policy, total_tokens=policy + prm)
    output.time = result.usage.wall_seconds
    output.metadata = {
        "search": result.id,
        "state": str(result.state),
        "answer": result.answer,
        "models": result.models,
        "verification": None if result.verification is None else result.verification.model_dump(mode="json"),
    }
    return output


@solver
def search(base_url: str | None = None, **settings: Any) -> Solver:
    """Search for the sample's solution. `settings` are those of a search: strategy, tokens, seconds, rollouts and others."""
    search_request("A problem.", settings)

    async def searched(state: TaskState, generate: Generate) -> TaskState:
        async with search_client(base_url) as client:
            result = await solve(client, search_request(state.input_text, settings))
        state.output = output_of(result, str(state.model))
        state.messages.append(state.output.message)
        return state

    return searched


@modelapi(name="ratchet")
class RatchetModel(ModelAPI):
    """A search as a model: `ratchet/mcts` names the strategy, model arguments are settings of a search."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self._settings = {"strategy": model_name, **settings}
        search_request("A problem.", self._settings)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The answer to the last message of the user. Raises EvaluatorError where there is none, or where tools are given."""
        if tools:
            raise EvaluatorError("A search calls no tools; it runs its programs in its own sandbox.")
        asked = [message.text for message in input if isinstance(message, ChatMessageUser)]
        if not asked:
            raise EvaluatorError("A search needs a message of the user: the problem.")
        settings = {"seed": config.seed, "tokens": config.max_tokens} | self._settings
        async with search_client(self.base_url, self.api_key) as client:
            return output_of(await solve(client, search_request(asked[-1], settings)), self.model_name)

    def max_connections(self) -> int:
        """Searches at once."""
        return CONNECTIONS


@scorer(metrics=[accuracy(), stderr()])
def same_answer() -> Scorer:
    """Whether the answer in the last line (`#### 42`) equals the target as mathematics, by the sandbox of the local stack."""

    async def score(state: TaskState, target: Target) -> Score:
        last = state.output.completion.rstrip().rpartition("\n")[2]
        answer = last.removeprefix(ANSWER).strip() if last.startswith(ANSWER) else None
        if answer is None:
            return Score(value=INCORRECT, explanation="no answer was given")
        stack = local_stack()
        if stack is None:
            raise EvaluatorError("No sandbox that could compare answers: start a stack with `ratchet up`.")
        async with SandboxClient(stack.sandbox, key=stack.token) as sandbox:
            right = [await is_same_answer(sandbox, answer, each) for each in target]
        return Score(value=CORRECT if any(right) else INCORRECT, answer=answer)

    return score
