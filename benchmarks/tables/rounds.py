"""What rounds do to a model, and what each part of a round is worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.keep import Result
from benchmarks.tables.documents import Below, Results, Rows, Table, interval, percent, with_interval

ABLATIONS = {
    "ablation-everything": "nothing left out",
    "ablation-random-selection": "random selection among correct trajectories",
    "ablation-from-current": "training goes on from the serving policy, not from the base",
    "ablation-no-prm": "no PRM",
    "ablation-unverified": "unverified data: any trajectory with an answer, right or wrong",
}
PRM_DATA = ("60 problems", "150 more", "400 more", "1,000 more")
"""What each round's PRM was trained on; the first began with nothing."""
STOPS = ("the last step", "the least loss", "two standard errors")
LORA = ("all weights, 7e-6, checkpointing", "LoRA (r 16, alpha 32), 1e-4")


def run_of_rounds(name: str, results: Results) -> Rows:
    """A row for the base and one for each round."""
    found = results[name].figures
    rows = [
        [
            "round",
            "policy pass@1",
            "whole system",
            "best-of-N",
            "majority",
            "coverage of training problems",
            # Pooled over problems in rounds of 0.1, within problems since.
            "PRM step AUC, pooled" if "prm_auc" in found["rounds"][0] else "PRM step AUC",
            "pair",
            "new PRM",
            "seconds",
        ]
    ]
    base = with_interval(found["base"], found.get("base_ci95"))
    votes = [percent(found[f"base_{each}"]) for each in ("system", "best_of_n", "majority")]
    rows.append(["base", base, *votes, "", "", "", "", ""])
    return [*rows, *map(_round, found["rounds"])]


def _round(found: Mapping[str, Any]) -> list[str]:
    return [
        str(found["round"]),
        with_interval(found["policy_pass1"], found["ci95"]["policy_pass1"]),
        *(percent(found[what]) for what in ("system", "best_of_n", "majority")),
        percent(found["coverage"]),
        f"{found.get('prm_auc', found.get('prm_step_auc')):.2f}",
        "promoted" if found["promoted"] else "rejected",
        "taken" if found["prm_promoted"] else "rejected",
        f"{found['seconds']:.0f}",
    ]


def seeds(results: Results) -> Rows:
    """Runs beside one another: pass@1 and system after each round."""
    rows = [["run", "", "base", "round 1", "2", "3", "4", "seconds"]]
    for result in results.values():
        found = result.figures
        searched = found.get("held_out_system")
        system = "whole system" + ("" if searched in (None, found["held_out"]) else f", of {searched}")
        for what, label in (("policy_pass1", "policy pass@1"), ("system", system)):
            base = found["base"] if what == "policy_pass1" else found["base_system"]
            of_run = what == "policy_pass1"
            rows.append(
                [
                    f"seed {result.seed}" if of_run else "",
                    label,
                    percent(base),
                    *(
                        percent(each[what]) + (", rejected" if of_run and not each["promoted"] else "")
                        for each in found["rounds"]
                    ),
                    f"{found['seconds']:,.0f}" if of_run else "",
                ]
            )
    return rows


def nano_stages(results: Results) -> Rows:
    """Seconds of each run by what was done, of all rounds together."""
    rows = [
        ["run", "searching and selecting", "training the policy", "training the PRM", "evaluating", "in all"]
    ]
    for result in results.values():
        spent: Counter[str] = Counter()
        for each in result.figures["rounds"]:
            spent.update(each["stages"])
        searching = spent["created"] + spent["searching"] + spent["selecting"]
        seconds = (searching, spent["training_policy"], spent["training_prm"], spent["evaluating"])
        rows.append(
            [f"seed {result.seed}", *(f"{each:.0f}" for each in (*seconds, result.figures["seconds"]))]
        )
    return rows


def four_rounds(results: Results) -> Rows:
    """For the README: one run, in percent."""
    found = results["rounds-nano-seed1"].figures
    return [
        ["% of 400 held-out problems", "base", "round 1", "2", "3", "4"],
        ["policy alone (pass@1)", *_line(found["base"], found["rounds"], "policy_pass1")],
        ["whole system", *_line(found["base_system"], found["rounds"], "system")],
    ]


def _line(base: float, rounds: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    return [percent(base), *(percent(each[what]) for each in rounds)]


def step_size(results: Results) -> Rows:
    """AUC of the PRM by the tokens of a step of its training."""
    rows = [["the PRM's training", "step AUC"]]
    for name, found in results["prm-step-size"].figures["step_auc"].items():
        edges = found.get("ci95")
        rows.append([name, f"{found['auc']:.2f}" + (f" ({interval(edges, '.2f', 1)})" if edges else "")])
    return rows


WITHIN = {
    "within_step_auc": "step AUC",
    "within_end_auc": "end AUC",
    "sibling_accuracy": "sibling accuracy",
    "first_error_f1": "first-error F1",
    "pooled_step_auc": "step AUC, pooled",
    "end_calibration_error": "calibration error of ends",
    "inner_calibration_error": "of inner steps",
}


def prm_quality(results: Results) -> Rows:
    """A PRM in each row."""
    rows = [["PRM of round", "held-out problems", *WITHIN.values()]]
    for found in results["prm-quality-nano-seed2"].figures["rounds"]:
        figures = (_with_edges(found[name]) for name in WITHIN)
        rows.append([str(found["round"]), str(found["held_out_problems"]), *figures])
    return rows


def batch_problems(results: Results) -> Rows:
    """The same training with steps of one problem or more, and of 16 or more."""
    names = [name for name in WITHIN if "calibration" not in name]
    rows = [["problems of a step", "steps", *(WITHIN[name] for name in names)]]
    for found in results["prm-batch-problems"].figures["trainings"]:
        figures = (_with_edges(found["later_problems"][name]) for name in names)
        rows.append([f"{found['batch_problems']} at the least", str(found["steps"]), *figures])
    return rows


def _with_edges(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} ({interval((found['low'], found['high']), '.2f', 1)})"


def ablations(results: Results) -> Rows:
    """One part left out in each row."""
    rows = [["what is left out", "measured", "round 1", "2", "3", "4"]]
    for name, label in ABLATIONS.items():
        rows.append([label, "policy pass@1", *_measured(results[name], "policy_pass1")])
    without = results["ablation-no-prm"]
    rows.append(["no PRM", "whole system", *_measured(without, "system")])
    rows.append(["no PRM", "best-of-N", *_measured(without, "best_of_n")])
    return rows


def _measured(result: Result, what: str) -> list[str]:
    return [percent(each[what]) for each in result.figures["rounds"]]


def prm_value(results: Results) -> Rows:
    """The untouched policy with each PRM, and how each compares with the plain vote."""
    found = results["prm-value"].figures
    majority = with_interval(found["majority"]["accuracy"], found["majority"]["ci95"])
    rows = [["PRM", "trained on", "weighted best-of-N", "MCTS"], ["none: majority vote", "", majority, ""]]
    for name, data in zip(found["prms"], ("nothing", *PRM_DATA), strict=True):
        each = found["prms"][name]
        label = "PRM1 (likelihood)" if name == "prm1-likelihood" else name
        rows.append([label, data, *(_against_majority(each[how]) for how in ("best_of_n", "mcts"))])
    return rows


def _against_majority(found: Mapping[str, Any]) -> str:
    pair = found["against_majority"]
    return f"{with_interval(found['accuracy'], found['ci95'])} [{pair['better']} : {pair['worse']}]"


def squared_vote(results: Results) -> Rows:
    """Problems solved with the plain and the squared weight."""
    found = results["prm-value-squared-vote"].figures
    rows = [[f"right of {found['n']}", "best-of-N", "the same, squared", "MCTS", "the same, squared"]]
    for name, each in found["right"].items():
        counts = [str(each[how][weight]) for how in ("best_of_n", "mcts") for weight in ("plain", "squared")]
        rows.append(["PRM1" if name == "prm1-likelihood" else f"PRM of {name}", *counts])
    return rows


def real_stages(results: Results) -> Rows:
    """What each stage of the round on a real model took and gave."""
    found = results["round-small"].figures
    seconds, label, policy, prm = (found[part] for part in ("stages", "label", "policy", "prm"))
    return [
        ["stage", "seconds", "what came out"],
        [
            "searching, selecting",
            str(seconds["searching"]),
            f"{label['solved']} of {label['problems']} problems solved, {label['tokens']:,} tokens, "
            f"{found['selected']} programs chosen",
        ],
        ["training the policy", str(seconds["training_policy"]), f"LoRA, {policy['steps']} steps at 5e-4"],
        [
            "training the PRM",
            f"{seconds['training_prm']:,}",
            f"all weights, {prm['steps']} steps at 7e-6: step AUC {_auc(prm['step_auc'])}, trajectory AUC "
            f"{_auc(prm['trajectory_auc'])}, {prm['problems_kept_out']} problems kept out",
        ],
        ["evaluating", f"{seconds['evaluating']:,}", "the table below"],
    ]


def _auc(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} ({interval(found['ci95'], '.2f', 1)})"


def real_round(results: Results) -> Rows:
    """Before and after, on development problems."""
    found = results["round-small"].figures
    greedy, mcts, old_prm = found["greedy"], found["mcts"], found["mcts_with_the_old_prm"]
    cells = [
        [with_interval(part[when]["accuracy"], part[when]["ci95"]) for when in ("before", "after")]
        for part in (greedy, mcts)
    ]
    return [
        ["% of development problems", "before", "after", "only after : only before"],
        [
            f"policy alone, greedy ({greedy['n']})",
            f"{cells[0][0]}, {greedy['before']['answered']} answered",
            f"{cells[0][1]}, {greedy['after']['answered']} answered",
            f"{greedy['better']} : {greedy['worse']}, p = {greedy['p_worse']}",
        ],
        [
            f"whole system, {mcts['tokens']} tokens, no reference ({mcts['n']})",
            *cells[1],
            f"{mcts['better']} : {mcts['worse']}",
        ],
        [
            f"new policy with the old PRM ({old_prm['n']})",
            "",
            percent(old_prm["after"]["accuracy"]),
            f"with the new PRM {old_prm['new_prm_better']} : {old_prm['new_prm_worse']}",
        ],
    ]


def how_far(results: Results) -> Rows:
    """A row for each round's data and each rule by which its training stops."""
    [result] = results.values()
    rows = [
        [
            "data of round",
            "kept apart",
            "the policy is that of",
            "step",
            "loss there",
            "right",
            "beside the last step",
        ]
    ]
    for found in result.figures["rounds"]:
        losses = dict(map(tuple, found["curve"]))
        for rule in [each for each in STOPS if each in found]:
            here, last = found[rule], rule == "the last step"
            chosen = here["chosen"] or {"step": here["steps"], "scale": 1.0, "nll": losses[here["steps"]]}
            scale = "" if chosen["scale"] == 1 else f", scale {chosen['scale']:g}"
            beside = here.get("against_last")
            rows.append(
                [
                    str(found["round"]) if last else "",
                    f"{found['programs']} programs of {found['problems']} problems" if last else "",
                    rule,
                    f"{chosen['step']} of {here['steps']}{scale}",
                    f"{chosen['nll']:.4f}",
                    f"{here['right']['count']} of {here['right']['n']}",
                    "" if beside is None else f"{beside['better']} : {beside['worse']}, {_p(beside['p'])}",
                ]
            )
    return rows


def wrong_programs(results: Results) -> Rows:
    """A row for each round's data and each strength with which wrong programs are unlearnt."""
    [result] = results.values()
    rows = [["data of round", "programs", "weight, beta", "right", "beside right ones alone"]]
    for found in result.figures["rounds"]:
        first, *_ = found["arms"]
        for arm in found["arms"]:
            alone = arm is first
            rows.append(
                [
                    str(found["round"]) if alone else "",
                    f"right ones of {found['problems_learnt']} problems, {found['wrong_programs']} wrong ones"
                    if alone
                    else "",
                    "right ones alone" if alone else f"{arm['weight']:g}, {arm['beta']:g}",
                    f"{arm['right']['count']} of {arm['right']['n']}",
                    "" if alone else f"{arm['better']} : {arm['worse']}, {_p(arm['p'])}",
                ]
            )
    return rows


def _p(value: float) -> str:
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.2g}"


def lora(results: Results) -> Rows:
    """All weights beside LoRA."""
    found = results["prm-lora"].figures
    head = ["the PRM's training", "seconds", "step AUC", "trajectory AUC"]
    rows = [[*head, f"pairs in the right order (of {found['pairs']})"]]
    for name in LORA:
        each = found[name]
        figures = [_auc(each[what]) for what in ("step_auc", "trajectory_auc", "pair_accuracy")]
        rows.append([name, str(each["seconds"]), *figures])
    return rows


_NANO = tuple(f"rounds-nano-seed{seed}" for seed in (1, 2, 3, 11))
_ONE_PAIR = tuple(f"rounds-nano-seed{seed}-one-pair" for seed in (1, 2, 3))
TABLES = {
    "rounds-nano-seed1": Table(("rounds-nano-seed1",), partial(run_of_rounds, "rounds-nano-seed1")),
    "rounds-nano": Table(_NANO, seeds),
    "nano-stages": Table(_NANO, nano_stages, Below.NOTHING),
    "rounds-nano-one-pair": Table(_ONE_PAIR, seeds),
    "prm-step-size": Table(("prm-step-size",), step_size),
    "prm-quality": Table(("prm-quality-nano-seed2",), prm_quality),
    "prm-batch-problems": Table(("prm-batch-problems",), batch_problems),
    "ablations": Table(tuple(ABLATIONS), ablations),
    "prm-value": Table(("prm-value",), prm_value),
    "prm-value-squared-vote": Table(("prm-value-squared-vote",), squared_vote),
    "round-small-stages": Table(("round-small",), real_stages, Below.NOTHING),
    "round-small": Table(("round-small",), real_round),
    "prm-lora": Table(("prm-lora",), lora),
    "how-far-to-train": Table(("how-far-to-train",), how_far),
    "wrong-programs": Table(("wrong-programs",), wrong_programs),
    "readme-rounds": Table(("rounds-nano-seed1",), four_rounds, Below.COMMANDS),
}
