"""A trained PRM as the service holds it: its network, and the micro-batches in which that reads trajectories."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from ratchet.batching import MicroBatcher
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from services.prm.batcher import MAX_BATCH, WINDOW_SECONDS, TextTooLongError
from services.prm.cache import StepCache

if TYPE_CHECKING:
    from services.prm.head import Question, TrainedHead


class HeadFailedError(Exception):
    """A pass of the network failed, for want of memory for instance; the message says why."""


class TrainedPrm:
    """One trained PRM. Its passes run in `worker`, one after another."""

    def __init__(
        self, version: str, sha256: str, head: "TrainedHead", worker: Executor, cache: StepCache
    ) -> None:
        self._version = version
        self._head = head
        self._worker = worker
        self._cache = cache
        # The digest too: a version may be let go of and loaded again with other weights.
        self._cached_as = f"{version}\0{sha256}"
        self._batcher: MicroBatcher[Question, list[float]] = MicroBatcher(
            self._logits, window_seconds=WINDOW_SECONDS, max_batch=MAX_BATCH, max_under_way=1
        )

    @property
    def device(self) -> str:
        """Where the network is."""
        return self._head.device

    @property
    def answers_as(self) -> str:
        """The name of its version."""
        return self._version

    async def score(self, body: ScoreRequest) -> ScoreResponse:
        """Scores of every step, of the shape of `body.steps`. Raises HeadFailedError, TextTooLongError."""
        scores = [self._known_scores(body.problem, steps) for steps in body.steps]
        cached = sum(map(len, scores))
        unknown = [number for number, steps in enumerate(body.steps) if len(scores[number]) < len(steps)]
        questions = await asyncio.to_thread(
            lambda: [
                self._head.question(body.problem, body.steps[number], known=len(scores[number]))
                for number in unknown
            ]
        )
        for number, question in zip(unknown, questions, strict=True):
            if len(question.tokens) > self._head.max_tokens:
                raise TextTooLongError(
                    number,
                    f"it has {len(question.tokens)} tokens; this PRM reads at most {self._head.max_tokens}",
                )
        answers = await asyncio.gather(*map(self._batcher.ask, questions))
        for number, logits in zip(unknown, answers, strict=True):
            scores[number] += [self._head.calibration.probability(logit) for logit in logits]
            self._cache.put(self._cached_as, body.problem, body.steps[number], scores[number])
        return ScoreResponse(model=self._version, scores=scores, cached=cached)

    def _known_scores(self, problem: str, steps: Sequence[str]) -> list[float]:
        """Those in the cache, up to the first step that it does not know."""
        known: list[float] = []
        for value in self._cache.get(self._cached_as, problem, steps):
            if value is None:
                break
            known.append(value)
        return known

    async def _logits(self, questions: Sequence["Question"]) -> list[list[float]]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, self._head.logits, questions)
        except (RuntimeError, ValueError, IndexError) as error:
            raise HeadFailedError(f"{type(error).__name__}: {error}") from error
