"""Does searching help, and how far can an answer be trusted?"""

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

STRATEGIES = {
    "gsm8k-greedy": "`greedy`: the policy alone",
    "gsm8k-majority": "`majority`: vote of independent trajectories",
    "gsm8k-mcts": "`mcts`: tree search with PRM1",
}


def accuracy(results: Results) -> Rows:
    """Accuracy and cost of each strategy."""
    rows = [["strategy", "right", "accuracy", "95 % (Wilson)", "tokens a problem"]]
    for name, label in STRATEGIES.items():
        found = results[name].figures
        rows.append(
            [
                label,
                f"{found['right']} of {found['n']}",
                f"{100 * found['accuracy']:.1f} %",
                f"{interval(found['ci95'])} %",
                f"{found['tokens_per_problem']:,.0f}",
            ]
        )
    return rows


def paired(results: Results) -> Rows:
    """Strategies compared problem by problem."""
    found = results["gsm8k-paired"].figures
    rows = [
        ["problem by problem", "only `mcts` is right", "only the other is right", "McNemar, exact, two-sided"]
    ]
    for other in ("greedy", "majority"):
        pair = found[f"mcts_against_{other}"]
        rows.append([f"`mcts` and `{other}`", str(pair["better"]), str(pair["worse"]), f"p = {pair['p']}"])
    return rows


def trees(results: Results) -> Rows:
    """What the trees hold and the vote finds."""
    found = results["gsm8k-trees"].figures
    low, high = found["found_by_prm_weighted_vote"]
    return [
        ["of the 60 trees", "share"],
        ["trajectories that are right", f"{100 * found['right_trajectories']:.0f} %"],
        ["problems with at least one right one", f"{100 * found['problems_with_a_right_trajectory']:.0f} %"],
        ["problems that the plain vote gets right", f"{100 * found['found_by_vote']:.0f} %"],
        ["the same, votes weighted by PRM1", f"{100 * low:.0f} to {100 * high:.0f} %"],
    ]


def trust(results: Results) -> Rows:
    """Right answers by verification level."""
    rows = [["verification", "answers", "of them right"]]
    for level, count in results["gsm8k-mcts"].figures["solved_by_level"].items():
        if count["n"]:
            rows.append([f"`{level}`", str(count["n"]), str(count["right"])])
    return rows


def calibration(results: Results) -> Rows:
    """Brier scores of the stated confidence."""
    fitted = results["gsm8k-trees"].figures["confidence"]
    return [
        ["Brier score (0 is perfect)", "value"],
        [
            "on the searches that it was fitted on, left out one at a time",
            f"{fitted['brier_left_out_one_at_a_time']:.3f}",
        ],
        ["there, always saying the mean", f"{fitted['brier_of_the_mean']:.3f}"],
        [
            "on other searches of the same problems",
            f"{results['gsm8k-mcts'].figures['calibration']['brier']:.3f}",
        ],
    ]


_EVALUATED = tuple(STRATEGIES)
TABLES = {
    "gsm8k": Table(_EVALUATED, accuracy),
    "gsm8k-paired": Table(("gsm8k-paired",), paired),
    "gsm8k-trees": Table(("gsm8k-trees",), trees),
    "trust": Table(("gsm8k-mcts",), trust, Below.NOTHING),
    "calibration": Table(("gsm8k-trees", "gsm8k-mcts"), calibration),
    "readme-gsm8k": Table(_EVALUATED, accuracy, Below.COMMANDS),
}
