"""Runs the attacks against the whole service, then their controls against services that lack the layers in question.

Attacks run side by side, but for those that watch the service's processes, which run alone. Controls with the same layers
off share a service; two such services run at a time.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.attack.attack import Attack, Probe, Seen
from benchmarks.attack.service import BrokenSandboxError, Service, running_service, service_at
from services.sandbox.layers import NONE, Layer

THREADS = 4
SERVICES = 2


@dataclass
class Result:
    """What became of one attack."""

    attack: Attack
    seen: Seen | None = None
    """None where the service failed, or the attack itself."""
    control: Seen | None = None
    failure: str = ""
    control_failure: str = ""
    seconds: float = 0.0
    control_seconds: float = 0.0

    @property
    def contained(self) -> bool:
        """Whether nothing went through, and the service held."""
        return self.seen is not None and not self.seen.through

    @property
    def tripped(self) -> bool:
        """Whether the control went through."""
        return self.control is not None and self.control.through

    def details(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "attack": self.attack.title,
            "contained": self.contained,
            "seen": self.seen.what if self.seen else self.failure,
            "seconds": round(self.seconds, 3),
            "tripped": self.tripped if self.attack.has_control else None,
            "control_seen": self.control.what if self.control else self.control_failure,
            "control_seconds": round(self.control_seconds, 3),
            "without": sorted(self.attack.without),
            "control_is": self.attack.control_is,
        }


@dataclass
class Report:
    """What became of all."""

    results: list[Result]
    controls: bool
    alive: bool = False
    isolation: str = ""
    seconds: float = 0.0
    not_run: list[Attack] = field(default_factory=list)
    """Attacks that are watched on the host, where the service runs elsewhere."""

    @property
    def controlled(self) -> list[Result]:
        """Results of attacks that were controlled."""
        return [result for result in self.results if self.controls and result.attack.has_control]

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        held = all(result.contained for result in self.results)
        return held and all(result.tripped for result in self.controlled) and self.alive

    def summary(self) -> dict[str, Any]:
        """The line for machines."""
        return {
            "attacks": len(self.results),
            "contained": sum(result.contained for result in self.results),
            "controls": len(self.controlled),
            "controls_tripped": sum(result.tripped for result in self.controlled),
            "service_alive": self.alive,
            "isolation": self.isolation,
            "seconds": round(self.seconds, 1),
        }


def run(attacks: list[Attack], url: str | None, *, controls: bool, advance: Callable[[], None]) -> Report:
    """Run all. `advance` is called after each attack and each control."""
    began = time.monotonic()
    possible = [attack for attack in attacks if url is None or not attack.local]
    report = Report([Result(attack) for attack in possible], controls)
    report.not_run = [attack for attack in attacks if attack not in possible]
    with service_at(url) if url else running_service() as service:
        report.isolation = service.health()["isolation"]
        _run_all(service, report.results, _attack, advance)
        if controls:
            _run_controls(service if url is None else None, report.results, advance)
        report.alive = service.alive()
    report.seconds = time.monotonic() - began
    return report


def _run_all(
    service: Service,
    results: Iterable[Result],
    one: Callable[[Service, Result], None],
    advance: Callable[[], None],
) -> None:
    def done(result: Result) -> None:
        one(service, result)
        advance()

    together = [result for result in results if not result.attack.alone]
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(done, together))
    for result in results:
        if result.attack.alone:
            done(result)


def _run_controls(whole: Service | None, results: list[Result], advance: Callable[[], None]) -> None:
    """Run the controls, each group against a service without its layers.

    Those that need no layer off run against the whole service; if that is elsewhere, against one of our own.
    """
    groups: dict[frozenset[Layer], list[Result]] = {}
    for result in results:
        if result.attack.has_control:
            groups.setdefault(result.attack.without, []).append(result)

    def group(without: frozenset[Layer]) -> None:
        ours = whole if not without else None
        # Some attacks share a control, which then runs once.
        first: dict[str, Result] = {}
        for result in groups[without]:
            first.setdefault(repr(_control_of(result)), result)
        with contextlib.nullcontext(ours) if ours else running_service(without) as service:
            _run_all(service, list(first.values()), _control, advance)
        for result in groups[without]:
            same = first[repr(_control_of(result))]
            if result is not same:
                result.control, result.control_failure = same.control, same.control_failure
                advance()

    inside = [without for without in groups if without == NONE]
    for without in inside:
        group(without)
    largest_first = sorted((w for w in groups if w != NONE), key=lambda w: -len(groups[w]))
    with ThreadPoolExecutor(SERVICES) as threads:
        list(threads.map(group, largest_first))


def _attack(service: Service, result: Result) -> None:
    result.seen, result.failure, result.seconds = _probe(result.attack.probe, service)


def _control(service: Service, result: Result) -> None:
    result.control, result.control_failure, result.control_seconds = _probe(_control_of(result), service)


def _control_of(result: Result) -> Probe:
    return result.attack.control or result.attack.probe


def _probe(probe: Probe, service: Service) -> tuple[Seen | None, str, float]:
    began = time.monotonic()
    try:
        return probe(service), "", time.monotonic() - began
    except (BrokenSandboxError, httpx.HTTPError) as error:
        return None, f"{type(error).__name__}: {error}", time.monotonic() - began
