"""The PRM versions that the service holds: PRM1, always, and trained ones that come and go while requests are answered.

A request uses one version from its beginning to its end. Serving another one is a change of a name; a version that is let
go of is out of sight at once and ends when the last request that uses it has.

Limits: all versions share one worker thread and the device's memory; nothing is moved out of the way of a new one.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.batching import MicroBatcher
from ratchet.contracts.serving import HeldModel, LoadModel
from ratchet.models.prm_head import HeadError
from ratchet.models.sources import ResolvedModel, resolve
from services.prm.batcher import MAX_BATCH, WINDOW_SECONDS
from services.prm.cache import StepCache
from services.prm.likelihood import NAME

if TYPE_CHECKING:
    from services.prm.head import Question, TrainedHead

PRM1_URI = "built-in"


class TextTooLongError(Exception):
    """A trajectory has more tokens than the PRM reads."""

    def __init__(self, number: int, tokens: int, limit: int) -> None:
        super().__init__(f"trajectory {number} has {tokens} tokens; this PRM reads at most {limit}")
        self.number = number


class HeadFailedError(Exception):
    """A pass of the network failed, for want of memory for instance; the message says why."""


class UnknownVersionError(Exception):
    """The service does not hold this version."""


class VersionInUseError(Exception):
    """The version cannot be changed or let go of; the message says why."""


class DigestError(Exception):
    """The checkpoint is not the one that was meant."""


@dataclass(eq=False)
class TrainedPrm:
    """A trained PRM that is held, with the requests that use it."""

    version: str
    uri: str
    sha256: str
    head: "TrainedHead"
    batcher: "MicroBatcher[Question, list[float]]"
    _users: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def scores(
        self, problem: str, rows: Sequence[Sequence[str]], cache: StepCache
    ) -> tuple[list[list[float]], int]:
        """Scores in [0, 1] of the shape of `rows`, and how many were known. Raises HeadFailedError, TextTooLongError."""
        # The digest too: a version may have been let go of and loaded again with other weights.
        name = f"{self.version}\0{self.sha256}"
        leading = [_leading(cache.get(name, problem, steps)) for steps in rows]
        unknown = [number for number, steps in enumerate(rows) if len(leading[number]) < len(steps)]
        questions = await asyncio.to_thread(
            lambda: [
                self.head.question(problem, rows[number], known=len(leading[number])) for number in unknown
            ]
        )
        scores = list(leading)
        for number, question in zip(unknown, questions, strict=True):
            if len(question.tokens) > self.head.max_tokens:
                raise TextTooLongError(number, len(question.tokens), self.head.max_tokens)
        answers = await asyncio.gather(*map(self.batcher.ask, questions))
        for number, logits in zip(unknown, answers, strict=True):
            scores[number] = leading[number] + [self.head.calibration.probability(logit) for logit in logits]
            cache.put(name, problem, rows[number], scores[number])
        return scores, sum(map(len, leading))

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """While a request uses this version it is not let go of."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def unused(self) -> None:
        """Returns when no request uses this version."""
        if self._users:
            await self._idle.wait()


class Versions:
    """What is held, and which of it serves."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._held: dict[str, TrainedPrm] = {}
        self._loading = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="prm")
        self.serving = NAME

    def close(self) -> None:
        """End the worker thread; what waits for it is dropped."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def listed(self) -> list[HeldModel]:
        """All versions, the serving one first."""
        names = [NAME, *self._held]
        return [self.entry(name) for name in sorted(names, key=lambda name: name != self.serving)]

    def entry(self, version: str) -> HeldModel:
        """One version. Raises UnknownVersionError."""
        serving = version == self.serving
        if version == NAME:
            return HeldModel(version=NAME, uri=PRM1_URI, sha256=None, serving=serving)
        held = self.trained(version)
        return HeldModel(version=version, uri=held.uri, sha256=held.sha256, serving=serving)

    def trained(self, version: str) -> TrainedPrm:
        """A trained PRM that is held. Raises UnknownVersionError."""
        held = self._held.get(version)
        if held is None:
            raise UnknownVersionError(
                f"This service does not hold {version!r}; it holds {', '.join([NAME, *self._held])}."
            )
        return held

    def serve(self, version: str) -> None:
        """Answer with this version from now on. Raises UnknownVersionError."""
        self.entry(version)
        self.serving = version

    async def load(self, version: str, request: LoadModel) -> None:
        """Hold a version; one that is held already with this content is left as it is.

        Raises ModelSourceError, DigestError, HeadError, and VersionInUseError for a name that stands for something else.
        """
        if version == NAME:
            raise VersionInUseError(f"{NAME} is always held. Choose another name.")
        # One at a time: two loads at once would need the memory of both, and one of them may be for nothing.
        async with self._loading:
            found = await asyncio.to_thread(resolve, request.uri, self._cache_dir)
            if request.sha256 not in (None, found.sha256):
                raise DigestError(
                    f"The checkpoint at {request.uri} has the digest {found.sha256}, not {request.sha256}: it is another "
                    "one, or it is damaged."
                )
            held = self._held.get(version)
            if held is None:
                self._held[version] = await self._open(version, request.uri, found)
            elif held.sha256 != found.sha256:
                raise VersionInUseError(
                    f"{version} is held already, with other content (digest {held.sha256}). Choose another name, or "
                    "let go of it first."
                )

    async def _open(self, version: str, uri: str, found: ResolvedModel) -> TrainedPrm:
        try:
            from services.prm.head import TrainedHead
        except ImportError as error:
            raise HeadError(f"{error}. Install the extra models, cpu or gpu.") from error

        loop = asyncio.get_running_loop()
        head = await asyncio.to_thread(TrainedHead, found.path)

        async def logits(questions: Sequence["Question"]) -> list[list[float]]:
            try:
                return await loop.run_in_executor(self._worker, head.logits, questions)
            except (RuntimeError, ValueError, IndexError) as error:
                raise HeadFailedError(f"{type(error).__name__}: {error}") from error

        batcher = MicroBatcher(logits, window_seconds=WINDOW_SECONDS, max_batch=MAX_BATCH, max_under_way=1)
        return TrainedPrm(version, uri, found.sha256, head, batcher)

    async def unload(self, version: str) -> None:
        """Let go of a version; returns when its last request has ended. Raises UnknownVersionError, VersionInUseError."""
        self.entry(version)
        if version == NAME:
            raise VersionInUseError(f"{NAME} is always held.")
        if version == self.serving:
            raise VersionInUseError(f"{version} serves. Serve another version first (POST /serving).")
        await self._held.pop(version).unused()


def _leading(values: Sequence[float | None]) -> list[float]:
    """What is known up to the first that is not."""
    known: list[float] = []
    for value in values:
        if value is None:
            break
        known.append(value)
    return known
