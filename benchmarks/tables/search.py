"""Does searching help, and what does an execution mean?"""

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


GROUNDING = {
    "answers": ("answers of the searches", "right"),
    "vote_of_grounded": ("a vote of grounded trajectories alone", "right"),
    "agreement": ("verified by `agreement`", "right"),
    "agreement_in_several_forms": ("of these, found in two forms or more", "right"),
    "agreement_by_half": ("of these, with at least half of the votes", "right"),
    "execution": ("verified by `execution`", "right"),
    "none": ("not verified", "right"),
    "agreement_before": ("`agreement` as it was: two programs that differ in more than names", "right"),
    "trajectories.ungrounded": ("trajectories", "not grounded"),
    "trajectories.right_of_grounded": ("grounded trajectories", "right"),
    "trajectories.right_of_ungrounded": ("others", "right"),
    "pairs_that_behave_alike.right": ("pairs of programs with the same right answer", "behave alike"),
    "pairs_that_behave_alike.wrong": ("pairs of programs with the same wrong answer", "behave alike"),
}


def grounding(results: Results) -> Rows:
    """What an execution means: rates of the benchmark of groundedness."""
    rows = [["of", "number", "how many are", "share", "95 % (Wilson)"]]
    figures = results["grounding-nano"].figures
    for path, (of, what) in GROUNDING.items():
        found = figures
        for key in path.split("."):
            found = found[key]
        share = [f"{100 * found['share']:.1f} %", f"{interval(found['ci95'])} %"] if found["n"] else ["", ""]
        rows.append([of, str(found["n"]), f"{what}: {found['count']}", *share])
    return rows


_COMPARED = ("strategies-nano", "strategies-nano-weak")


def strategies(results: Results) -> Rows:
    """Tree search and best-of-N at equal tokens, with each PRM."""
    rows = [
        ["PRM", "tokens", "`best_of_n`", "`mcts`", "difference, points", "95 % (paired)", "p", "coverage"]
    ]
    cells = [cell for name in _COMPARED for cell in results[name].figures["cells"]]
    for cell in cells:
        low, high = (100 * edge for edge in cell["ci95"])
        coverage = cell["coverage"]
        rows.append(
            [
                cell["prm"],
                str(cell["tokens"]),
                f"{100 * cell['best_of_n']:.1f} %",
                f"{100 * cell['mcts']:.1f} %",
                f"{100 * cell['difference']:+.1f}",
                f"{low:+.1f} – {high:+.1f}",
                f"{cell['p']:.2g}",
                f"{100 * coverage['best_of_n']:.1f} and {100 * coverage['mcts']:.1f} %",
            ]
        )
    return rows


_EVALUATED = tuple(STRATEGIES)
TABLES = {
    "gsm8k": Table(_EVALUATED, accuracy),
    "strategies": Table(_COMPARED, strategies),
    "gsm8k-paired": Table(("gsm8k-paired",), paired),
    "gsm8k-trees": Table(("gsm8k-trees",), trees),
    "grounding": Table(("grounding-nano",), grounding),
    "readme-gsm8k": Table(_EVALUATED, accuracy, Below.COMMANDS),
}
