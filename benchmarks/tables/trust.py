"""How far can an answer be trusted? What *verified* is worth, and which vote chooses the answer."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

VOTES = {
    "majority": "majority: each trajectory has one vote",
    "visits_last": "each visit of an end, by the PRM's last score (version 0.1)",
    "visits_squared": "the same, squared",
    "visits_product": "the same, the product of the scores of all steps",
    "mass": "the end's mass",
    "mass_last": "**mass, by the last score**",
    "mass_squared": "the same, squared",
    "mass_product": "mass, by the product of the scores",
    "ends_last": "each end once, by the last score",
    "log_odds": "mass, by the calibrated log-odds of the last score: low scores vote against",
    "aggregator": "the most probable answer, by the calibration",
}
VERIFIED = {"verified": "level and probability", "before": "the level `agreement` alone, as before"}


def votes(results: Results) -> Rows:
    """Right answers of each vote, over all pairs of models."""
    figures = results["votes-nano"].figures
    development = _total(figures, "development", "mcts")
    rows = [
        [
            "vote",
            f"development, right of {development['n']:,}",
            *(
                f"held out, `{name}`, of {_total(figures, 'held_out', name)['n']:,}"
                for name in ("best_of_n", "mcts")
            ),
            "difference to version 0.1",
            "95 %",
        ]
    ]
    for name, label in VOTES.items():
        found = figures["held_out"][name]
        low, high = found["ci95"]
        baseline = name == "visits_last"
        rows.append(
            [
                label,
                str(development.get(name, "")),
                *(str(_total(figures, "held_out", strategy)[name]) for strategy in ("best_of_n", "mcts")),
                "" if baseline else f"{100 * found['difference']:+.1f} points",
                "" if baseline else f"{100 * low:+.1f} to {100 * high:+.1f}",
            ]
        )
    return rows


def probable(results: Results) -> Rows:
    """Held-out answers that are probable enough, by pair of models and strategy."""
    rows = [
        [
            "policy",
            "PRM",
            "strategy",
            "right of all",
            "counts from",
            "solved",
            "of them right",
            "95 % (Wilson)",
            "ECE",
        ]
    ]
    return [*rows, *(_probable_row(each) for each in results["votes-nano"].figures["probable"])]


def _probable_row(each: Mapping[str, Any]) -> list[str]:
    n, right = each["solved"], each["solved_right"]
    return [
        _short(each["policy"]),
        _short(each["prm"]),
        f"`{each['strategy']}`",
        f"{each['right']} of {each['n']}",
        f"{each['min_confidence']:.2f}",
        str(n),
        f"{right} ({100 * right / n:.0f} %)" if n else "–",
        f"{interval(each['ci95'])} %" if n else "–",
        f"{each['ece']:.3f}",
    ]


def _short(version: str) -> str:
    """A version without digests; PRM1 reads the policy that stands beside it."""
    name = version.partition("@")[0]
    return "PRM1" if name == "prm1-likelihood" else name.removeprefix("nano-").replace("-", " ")


def _total(figures: Mapping[str, Any], split: str, strategy: str) -> dict[str, int]:
    """Sums over the pairs that have a calibration where the split is held out, and over all pairs otherwise."""
    found = {"n": 0}
    for cell in figures["cells"]:
        fitted = split == "development" or "aggregator" in cell["right"]
        if (cell["split"], cell["strategy"]) == (split, strategy) and fitted:
            found["n"] += cell["n"]
            for name, right in cell["right"].items():
                found[name] = found.get(name, 0) + right
    return found


def verified_of(name: str) -> Table:
    """The table of one measurement of what *verified* is worth."""

    def rows(results: Results) -> Rows:
        figures = results[name].figures
        found = [["called solved and verified by", "answers", "coverage", "of them right", "95 % (Wilson)"]]
        for key, label in VERIFIED.items():
            of = figures if key == "verified" else figures[key]
            share = f"{100 * of['precision']:.1f} %" if of["verified"] else "–"
            edges = f"{interval(of['precision_ci95'])} %" if of["verified"] else "–"
            found.append(
                [label, f"{of['verified']} of {figures['n']}", f"{100 * of['coverage']:.1f} %", share, edges]
            )
        found.append(
            [
                "all answers",
                f"{figures['answered']} of {figures['n']}",
                "",
                f"{100 * figures['accuracy']:.1f} %",
                f"{interval(figures['accuracy_ci95'])} %",
            ]
        )
        return found

    return Table((name,), rows)


_EARLY = {"small": "verified-small-crosswise", "medium": "verified-medium"}


def verified_early(results: Results) -> Rows:
    """Whole searches beside those that end early."""
    found = [
        ["model", "searches", "right of all", "called verified", "of them right", "95 % (Wilson)", "ECE"]
    ]
    for model, whole in _EARLY.items():
        for label, name in (("whole", whole), ("ended early", f"verified-{model}-early")):
            of = results[name].figures
            found.append(
                [
                    f"`{model}`",
                    label,
                    f"{100 * of['accuracy']:.1f} % of {of['n']}",
                    str(of["verified"]),
                    f"{100 * of['precision']:.1f} %" if of["verified"] else "–",
                    f"{interval(of['precision_ci95'])} %" if of["verified"] else "–",
                    f"{of['ece']:.3f}",
                ]
            )
    return found


def reliability_of(name: str) -> Table:
    """The reliability diagram of one measurement, as a table."""

    def rows(results: Results) -> Rows:
        figures = results[name].figures
        found = [["stated", "answers", "right", "95 % (Wilson)"]]
        found += [
            [
                f"{100 * each['predicted']:.0f} %",
                str(each["n"]),
                f"{100 * each['share']:.0f} %",
                f"{interval(each['ci95'])} %",
            ]
            for each in figures["reliability"]
        ]
        return found

    return Table((name,), rows, Below.NOTHING)


TABLES = {
    "votes-nano": Table(("votes-nano",), votes),
    "probable-nano": Table(("votes-nano",), probable, Below.NOTHING),
    "verified-nano": verified_of("verified-nano"),
    "reliability-nano": reliability_of("verified-nano"),
    "verified-small": verified_of("verified-small"),
    "verified-small-crosswise": verified_of("verified-small-crosswise"),
    "reliability-small": reliability_of("verified-small-crosswise"),
    "verified-early": Table(
        tuple(_EARLY.values()) + tuple(f"verified-{model}-early" for model in _EARLY),
        verified_early,
    ),
    "verified-medium": verified_of("verified-medium"),
    "reliability-medium": reliability_of("verified-medium"),
}
