"""The round machine: polls for rounds that are not over, claims one, and takes it through its stages.

A stage may run again: it finds what it made before (problems, planned searches, checkpoints) and keeps it. So when a trainer
dies, only what its stage has not written down is lost, and another trainer, or the same one restarted, goes on.
A pause gives the round back, at any moment. A cancel ends it as failed and keeps what was gathered.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from ratchet.clients import PolicyClient, PrmClient, SandboxClient, ServiceError
from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.trainer import ServedBy
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.states import RoundState
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.pairs import UnknownVersionError
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundClaim, RoundLostError, RoundStore
from services.trainer.gate import why_rejected
from services.trainer.holding import Serving, let_go
from services.trainer.pace import Pace
from services.trainer.pairs import Pair, worked_with
from services.trainer.promotion import serve
from services.trainer.report.write import write_report
from services.trainer.stages.context import Context, RoundFailedError, require_part
from services.trainer.stages.evaluate import evaluate
from services.trainer.stages.prepare import prepare
from services.trainer.stages.search import search
from services.trainer.stages.select import select
from services.trainer.stages.train import train_policy, train_prm

log = structlog.get_logger()

Stage = Callable[[Context], Awaitable[RoundMetrics]]

STAGES: Mapping[RoundState, tuple[Stage, RoundState]] = {
    RoundState.CREATED: (prepare, RoundState.SEARCHING),
    RoundState.SEARCHING: (search, RoundState.SELECTING),
    RoundState.SELECTING: (select, RoundState.TRAINING_POLICY),
    RoundState.TRAINING_POLICY: (train_policy, RoundState.TRAINING_PRM),
    RoundState.TRAINING_PRM: (train_prm, RoundState.EVALUATING),
}
"""What is done in a state, and the state that follows. The gate decides what follows `evaluating`."""
FREE_BYTES = 200 * 2**20
"""A round is not begun with less disk than this."""
PROGRESS_SECONDS = 0.5


class _StoppedError(Exception):
    """A pause or a cancel was asked for."""

    def __init__(self, *, cancel: bool) -> None:
        super().__init__("cancelled" if cancel else "paused")
        self.cancel = cancel


@dataclass
class _Held:
    """The round under way: its claim moves on with every stage."""

    claim: RoundClaim
    ending: bool = False
    """The claim is being given up: that it is gone then says nothing."""


class Machine:
    """Works on one round at a time, for as long as the service runs."""

    def __init__(
        self,
        settings: TrainerSettings,
        rounds: RoundStore,
        searches: RoundSearchStore,
        serving: Serving,
        calibrations: CalibrationStore,
        queue: SearchQueue,
        policy: PolicyClient,
        prm: PrmClient,
        sandbox: SandboxClient,
    ) -> None:
        self._settings = settings
        self._rounds = rounds
        self._searches = searches
        self._serving = serving
        self._calibrations = calibrations
        self._queue = queue
        self._policy = policy
        self._prm = prm
        self._sandbox = sandbox
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    async def run(self) -> None:
        """Poll, claim, work, for ever."""
        while True:
            try:
                claim = await self._rounds.claim(
                    self._owner, self._settings.lease_seconds, self._settings.round_attempts
                )
                if claim is None:
                    await asyncio.sleep(self._settings.poll_seconds)
                    continue
                with structlog.contextvars.bound_contextvars(run=claim.run, round=claim.number):
                    await self._work(claim)
            except StoreUnavailableError as error:
                log.warning("the store is away", error=str(error))
                await asyncio.sleep(self._settings.poll_seconds)
            except Exception:
                # Whatever it was, the next round must not wait for it.
                log.exception("round given up")
                await asyncio.sleep(self._settings.poll_seconds)

    async def _work(self, claim: RoundClaim) -> None:
        """Take the round as far as it goes. Afterwards it is over, or given back, or another trainer's."""
        log.info("round taken up", state=claim.state.value)
        held = _Held(claim)
        working = asyncio.create_task(self._run_stages(held))
        watching = asyncio.create_task(self._watch(held))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            else:
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working
                await watching
        except _StoppedError as stopped:
            if stopped.cancel:
                await self._searches.cancel(claim.id)
                await self._fail(held.claim, "cancelled on request")
            else:
                await self._rounds.release(held.claim)
                log.info("round paused")
        except RoundLostError:
            log.warning("lease lost; another trainer has this round")
        except RoundFailedError as error:
            await self._fail(held.claim, str(error))
        except (StoreUnavailableError, asyncio.CancelledError):
            with contextlib.suppress(StoreUnavailableError, RoundLostError):
                await self._rounds.release(held.claim)
            raise
        except Exception as error:
            log.exception("round failed")
            await self._fail(
                held.claim, f"{type(error).__name__}: {error} (the trainer's log has the whole story)"
            )
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self, held: _Held) -> None:
        """Keep the lease. Raises RoundLostError, and _StoppedError when a pause or a cancel is asked for."""
        while True:
            try:
                paused, cancelled = await self._rounds.renew(held.claim, self._settings.lease_seconds)
                if paused or cancelled:
                    raise _StoppedError(cancel=cancelled)
            except StoreUnavailableError:
                pass
            except RoundLostError:
                # Given up in this moment, or lost: what gives it up finds out.
                if not held.ending:
                    raise
            await asyncio.sleep(min(1.0, self._settings.lease_seconds / 5))

    async def _run_stages(self, held: _Held) -> None:
        if held.claim.state is RoundState.CREATED:
            _require_disk(self._settings)
        while held.claim.state in STAGES:
            stage, following = STAGES[held.claim.state]
            found = await self._run_stage(held.claim, stage)
            held.claim = await self._rounds.advance(held.claim, following, found)
            log.info("round moved on", state=following.value)
        if held.claim.state is RoundState.EVALUATING:
            await self._decide(held)

    async def _decide(self, held: _Held) -> None:
        """Evaluate, then promote a pair or reject all that is new; either way the report is written."""
        found = await self._run_stage(held.claim, evaluate)
        claim, verdict = held.claim, require_part(found.gate)
        chosen = Pair.named(verdict.candidate) if verdict.promoted else None
        if chosen is not None:
            await self._promote(claim, chosen)
        await self._reject(claim, chosen)
        state = RoundState.REJECTED if chosen is None else RoundState.PROMOTED
        reason = None if chosen is not None else why_rejected(verdict)
        held.ending = True
        held.claim = await self._end(claim, state, found, reason)
        log.info("round over", state=state.value, reason=reason)

    async def _promote(self, claim: RoundClaim, pair: Pair, attempts: int = 3) -> None:
        """Have a pair serve: both versions in the registry as one act, then in the services.

        A service that does not follow is asked again; what still fails is left to `keep_serving`.
        """
        for attempt in range(1, attempts + 1):
            try:
                await serve(self._serving, pair.policy, pair.prm, ServedBy.ROUND, claim)
            except ServiceError as error:
                log.warning("swap not finished", attempt=attempt, error=str(error))
                await asyncio.sleep(1.0)
            else:
                return

    async def _reject(self, claim: RoundClaim, chosen: Pair | None) -> None:
        """Reject what is new and in no pair that serves."""
        serving = await self._serving.pairs.current()
        taken = {each for pair in (chosen, serving) if pair is not None for each in (pair.policy, pair.prm)}
        for made in (claim.metrics.policy, claim.metrics.prm):
            if made is not None and made.version not in taken:
                await self._serving.registry.reject(claim, made.version)

    async def _run_stage(self, claim: RoundClaim, stage: Stage) -> RoundMetrics:
        """What the stage hands on, with the seconds of this attempt."""
        began = time.monotonic()
        pace, told = Pace(), 0.0

        async def report(progress: RoundProgress) -> None:
            nonlocal told
            if time.monotonic() - told >= PROGRESS_SECONDS or progress.done == progress.total:
                told = time.monotonic()
                left = pace.seconds_left(progress.done, progress.total, told)
                await self._rounds.note_progress(claim, progress.model_copy(update={"seconds_left": left}))

        context = Context(
            settings=self._settings,
            claim=claim,
            serving=self._serving,
            searches=self._searches,
            calibrations=self._calibrations,
            queue=self._queue,
            policy=self._policy,
            prm=self._prm,
            sandbox=self._sandbox,
            report=report,
        )
        await report(RoundProgress(stage=claim.state.value))
        try:
            found = await stage(context)
        except (ServiceError, UnknownVersionError) as error:
            raise RoundFailedError(f"A service did not do what {claim.state.value} needs: {error}") from error
        except OSError as error:
            raise RoundFailedError(f"{claim.state.value} could not write its files: {error}") from error
        took = {claim.state: round(time.monotonic() - began, 1)}
        return found.with_parts_of(RoundMetrics(seconds=claim.metrics.seconds | took))

    async def _fail(self, claim: RoundClaim, reason: str) -> None:
        log.error("round failed", reason=reason)
        with contextlib.suppress(RoundLostError):
            await self._end(claim, RoundState.FAILED, RoundMetrics(), reason)

    async def _end(
        self, claim: RoundClaim, state: RoundState, found: RoundMetrics, reason: str | None
    ) -> RoundClaim:
        """Write the report, then end the round: somebody may wait for the end, stop everything, and read the report."""
        end = {
            "state": state,
            "metrics": claim.metrics.with_parts_of(found),
            "reason": reason,
            "failed_in": claim.state if state is RoundState.FAILED else None,
            "ended_at": datetime.now(UTC),
        }
        rounds = await self._rounds.rounds(claim.run)
        try:
            await write_report(
                self._settings,
                [view.model_copy(update=end) if view.id == str(claim.id) else view for view in rounds],
            )
        except OSError as error:
            # A round is worth more than its report.
            log.error("report not written", error=str(error))
        ended = await self._rounds.advance(claim, state, found, reason)
        # What was loaded beside what serves: the next round needs its room.
        let_go(
            self._serving, worked_with(claim.metrics, [each for each in rounds if each.number < claim.number])
        )
        return ended


def _require_disk(settings: TrainerSettings) -> None:
    folder = settings.rounds_dir.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise RoundFailedError(
            f"The disk is full: {free // 2**20} MiB are free in {folder}, {FREE_BYTES // 2**20} MiB are needed. "
            "Free some, or set RATCHET_ROUNDS_DIR to a larger disk."
        )
