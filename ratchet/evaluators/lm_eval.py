"""lm-eval (EleutherAI's harness): a model type `ratchet`, which answers each request with a search.

    python -m ratchet.evaluators.lm_eval --model ratchet --model_args strategy=mcts,tokens=800 --tasks gsm8k --num_fewshot 0

runs `lm_eval` with the model type known to it, as lm-eval has no entry points for models; in Python `import
ratchet.evaluators.lm_eval` does the same. A search needs the problem alone: where the task's document has one of the fields
of a problem, its text is taken, without the examples and the words around it that a prompt has; otherwise the whole prompt.

Limits: no log-likelihoods, so tasks of multiple choice are refused.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Never

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from ratchet.clients import SearchClient
from ratchet.evaluators.solving import EvaluatorError, search_client, search_request, solve
from ratchet.problems.problem import join_svamp

ANSWER = "#### {answer}"
CONCURRENCY = 8
FIELDS = ("problem", "question")


@register_model("ratchet")
class RatchetLM(LM):
    """Searches of the service at `base_url`, or of the local stack; all other arguments are settings of a search.

    `answer` is the text that is given for an answer, with `{answer}` in it: `\\boxed{{{answer}}}` where a task looks for a box.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        answer: str = ANSWER,
        concurrency: int = CONCURRENCY,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._base_url, self._api_key = base_url, api_key
        self._answer, self._concurrency = answer, int(concurrency)
        self._settings = settings
        search_request("A problem.", settings)

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, in the order of the requests. Raises ServiceError, SearchFailedError, EvaluatorError."""
        return asyncio.run(self._answers([problem_of(request) for request in requests]))

    async def _answers(self, problems: Sequence[str]) -> list[str]:
        at_once = asyncio.Semaphore(self._concurrency)
        async with search_client(self._base_url, self._api_key) as client, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._text(client, problem, at_once)) for problem in problems]
        return [task.result() for task in tasks]

    async def _text(self, client: SearchClient, problem: str, at_once: asyncio.Semaphore) -> str:
        async with at_once:
            result = await solve(client, search_request(problem, self._settings))
        return "" if result.answer is None else self._answer.format(answer=result.answer)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> Never:
        """Refused."""
        raise EvaluatorError(
            "A search gives answers and no log-likelihoods: choose a task that generates, like gsm8k."
        )

    loglikelihood_rolling = loglikelihood


def problem_of(request: Instance) -> str:
    """The problem of a request: its document's, otherwise the prompt."""
    doc: Any = request.doc
    if isinstance(doc, Mapping):
        body, asked = doc.get("Body"), doc.get("Question")
        if isinstance(body, str) and isinstance(asked, str):
            return join_svamp(body, asked)
        for name in FIELDS:
            if isinstance(doc.get(name), str) and doc[name].strip():
                return str(doc[name])
    return str(request.args[0])


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())
