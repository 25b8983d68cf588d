"""The baseline: run steps as rStar-Math does, every step so far again and again, in plain processes.

A worker joins the steps, `exec`s them in its own interpreter with stdout redirected, under `signal.alarm`, and returns
what they printed. rStar-Math forks a new pool of workers for each round of steps (`replay_in_new_workers`); a pool that
is kept for the whole search (`kept_workers`) is faster, as it remembers in sympy's caches what it has computed before.
Written from that description, not from rStar-Math's code.

The comparison favours the baseline. Its workers are forked from a process that has used sympy (`warm_up`); rStar-Math's has
merely imported it. And it is fast by what it lacks: there is no isolation, so a step can read files, reach the network, end the
worker, or poison it for the next problem; there is no memory limit, and time is limited in whole seconds.
"""

import contextlib
import io
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import psutil

from benchmarks.steps import DEPTH, Kind, chain

TIMEOUT_SECONDS = 10

Replay = Callable[[Sequence[Sequence[str]]], list[str]]
"""Runs several paths of steps side by side; what each printed."""

_fork = multiprocessing.get_context("fork")


class ReplayError(Exception):
    """The steps raised or ran out of time; the message says which."""


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {TIMEOUT_SECONDS} s")


def replay(steps: Sequence[str]) -> str:
    """What all the steps print, run in this process. Raises ReplayError."""
    printed = io.StringIO()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        with contextlib.redirect_stdout(printed):
            exec("\n".join(steps), {"__name__": "__main__"})
    except Exception as error:
        raise ReplayError(f"{type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
    return printed.getvalue()


def warm_up() -> None:
    """Have this process, from which the workers are forked, use sympy."""
    for seed in range(4):
        replay(chain(Kind.ALGEBRA, DEPTH, random.Random(f"warm-up {seed}")))


def replay_in_new_workers(workers: int) -> Replay:
    """rStar-Math's way."""

    def run(paths: Sequence[Sequence[str]]) -> list[str]:
        with _fork.Pool(min(workers, len(paths))) as pool:
            return pool.map(replay, paths, chunksize=1)

    return run


@contextlib.contextmanager
def kept_workers(workers: int) -> Iterator[Replay]:
    """The same with workers that stay."""
    with _fork.Pool(workers) as pool:
        yield lambda paths: pool.map(replay, paths, chunksize=1)


def cpu_seconds() -> float:
    """Processor time of all workers, those that have ended included."""
    alive = [psutil.Process(worker.pid).cpu_times() for worker in multiprocessing.active_children()]
    ended = os.times()
    return sum(times.user + times.system for times in alive) + ended.children_user + ended.children_system
