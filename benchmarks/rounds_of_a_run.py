"""What has each round of a run come to? All figures of its stages, and its pairs compared problem by problem.

`python -m benchmarks.rounds_of_a_run results/rounds/small-seed1` reads them from the trainer of the stack of that folder; where
none runs, its databases and its trainer are started, and no model. The last line is a JSON object: of each round what was
solved, learnt and kept apart, the PRM's quality, the gate's words, and of each strategy on each split the accuracies of
the candidate, of the incumbent and of the reference, with the candidate's difference to either, its 95 % interval
(Bonett and Price, clustered by problem) and the exact sign-flip test.
"""

import argparse
import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from ratchet.clients import TrainerClient
from ratchet.contracts.round_metrics import Measured, RoundMetrics
from ratchet.contracts.rounds import RoundView
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.data_folder import running_stack
from ratchet.stack.local import local_stack
from ratchet.statistics import paired_test

NO_TRY = "-"
LISTS = {"outcomes", "losses", "curve"}
"""Left out: as long as the data is large."""


def figures_of(view: RoundView) -> dict[str, Any]:
    """One round."""
    metrics = view.metrics
    found: dict[str, Any] = {
        "round": view.number,
        "state": view.state.value,
        "reason": view.reason,
        "seconds": {state.value: seconds for state, seconds in metrics.seconds.items()},
    }
    for part in ("label", "selection", "policy", "prm", "gate"):
        value = getattr(metrics, part)
        found[part] = None if value is None else _without_lists(value.model_dump(mode="json"))
    return found | {"compared": comparisons(metrics)}


def _without_lists(document: Any) -> Any:
    """A document without its long lists, its places on this machine, and its digests."""
    if isinstance(document, dict):
        left_out = LISTS | {"uri", "job", "dataset"}
        return {name: _without_lists(value) for name, value in document.items() if name not in left_out}
    return document


def comparisons(metrics: RoundMetrics) -> dict[str, Any]:
    """By split and strategy: what the candidate measured, and beside it the incumbent and the reference."""
    if metrics.evaluation is None:
        return {}
    candidate = metrics.evaluation.candidate
    others = {"incumbent": metrics.evaluation.incumbent, "reference": metrics.evaluation.reference}
    found: dict[str, Any] = {}
    for name, new in candidate.measured.items():
        found[name] = {"candidate": _accuracy(new)}
        for who, other in others.items():
            old = None if other is None else other.measured.get(name)
            if old is not None:
                found[name][who] = _accuracy(old) | {"against": _against(new, old)}
    return found


def _accuracy(measured: Measured) -> dict[str, Any]:
    return {
        "n": measured.n,
        "samples": measured.samples,
        "accuracy": round(measured.accuracy, 4),
        "ci95": [round(edge, 4) for edge in measured.ci95],
        "tokens": round(measured.tokens, 1),
    }


def _against(new: Measured, old: Measured) -> dict[str, Any]:
    """The new one less the old one, on the problems that both tried."""
    both = [
        (int(one), int(other))
        for one, other in zip(new.outcomes, old.outcomes, strict=False)
        if NO_TRY not in (one, other)
    ]
    test = asdict(
        paired_test([one for one, _ in both], new.samples, [other for _, other in both], old.samples)
    )
    return {
        "n": len(both),
        "difference": round(test["difference"], 4),
        "ci95": [round(edge, 4) for edge in test["ci95"]],
        "better": test["better"],
        "worse": test["worse"],
        "p": round(test["p"], 5),
    }


async def read(folder: Path) -> list[RoundView]:
    """The rounds of the stack in the folder, the first one first."""
    running = running_stack(folder)
    if running is not None:
        return await _ask(running)
    config = StackConfig(data=folder, services=("trainer",), env={"RATCHET_WORK_ON_ROUNDS": "false"})
    async with local_stack(config) as urls:
        return await _ask(urls)


async def _ask(urls: StackUrls) -> list[RoundView]:
    async with TrainerClient(urls.trainer, key=urls.key) as trainer:
        return sorted(await trainer.rounds(), key=lambda view: (view.run, view.number))


def main() -> None:
    """Read the options, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="data folder of a stack that has run rounds")
    options = parser.parse_args()
    if not (options.run / "postgres").is_dir():
        parser.error(f"{options.run} is no data folder of a stack: `ratchet rounds run --data` makes one")
    views = asyncio.run(read(options.run))
    facts = {
        "benchmark": "rounds_of_a_run",
        "run": views[0].run if views else None,
        "rounds": [figures_of(view) for view in views if view.metrics.models is not None],
    }
    print(orjson.dumps(facts).decode(), flush=True)


if __name__ == "__main__":
    main()
