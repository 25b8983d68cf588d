"""Does searching help, and what does an execution mean?"""

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

STRATEGIES = {"greedy": "`greedy`: the policy alone", "mcts": "`mcts`: tree search with PRM1"}


def accuracy(results: Results) -> Rows:
    """Accuracy, coverage and cost of each strategy with each model."""
    rows = [["model", "strategy", "right", "accuracy", "95 % (Wilson)", "coverage", "tokens a problem"]]
    for model, result in zip(_MODELS, results.values(), strict=True):
        for name, found in result.figures["arms"].items():
            rows.append(
                [
                    f"`{model}`",
                    STRATEGIES[name],
                    f"{found['right']} of {found['n']}",
                    f"{100 * found['accuracy']:.1f} %",
                    f"{interval(found['ci95'])} %",
                    f"{100 * found['coverage']:.1f} %",
                    f"{found['tokens_per_problem']:,.0f}",
                ]
            )
    return rows


def paired(results: Results) -> Rows:
    """Strategies compared problem by problem."""
    rows = [
        [
            "model",
            "only `mcts` is right",
            "only `greedy`",
            "difference, points",
            "95 % (paired)",
            "McNemar, exact",
        ]
    ]
    for model, result in zip(_MODELS, results.values(), strict=True):
        found = result.figures["paired"]["mcts against greedy"]
        low, high = (100 * edge for edge in found["ci95"])
        rows.append(
            [
                f"`{model}`",
                str(found["better"]),
                str(found["worse"]),
                f"{100 * found['difference']:+.1f}",
                f"{low:+.1f} – {high:+.1f}",
                f"p = {found['p']:.2g}",
            ]
        )
    return rows


def greedy_arms(results: Results) -> Rows:
    """Two policies, or two ways to serve one, by the greedy programs of the same problems."""
    [figures] = [result.figures for result in results.values()]
    first, second = figures["arms"].items()
    found = figures["paired"][f"{second[0]} against {first[0]}"]
    low, high = (100 * edge for edge in found["ci95"])
    rows = [
        ["greedy programs of", "right", "accuracy", "95 % (Wilson)", "tokens a problem", "against the first"]
    ]
    against = (
        f"{100 * found['difference']:+.1f} points ({low:+.1f} – {high:+.1f}), {found['better']} : {found['worse']}, "
        f"p = {found['p']:.2g}"
    )
    for (name, arm), told in ((first, ""), (second, against)):
        rows.append(
            [
                name,
                f"{arm['right']} of {arm['n']}",
                f"{100 * arm['accuracy']:.1f} %",
                f"{interval(arm['ci95'])} %",
                f"{arm['tokens_per_problem']:,.0f}",
                told,
            ]
        )
    return rows


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


_COMPARED = ("strategies-nano", "strategies-nano-800", "strategies-nano-weak")


def strategies_short(results: Results) -> Rows:
    """The same without p and coverage."""
    return [row[:7] for row in strategies(results)]


def strategies(results: Results) -> Rows:
    """Tree search and best-of-N at equal tokens, with each PRM."""
    rows = [
        [
            "PRM",
            "tokens",
            "`best_of_n`",
            "`mcts`",
            "difference, points",
            "95 % (paired)",
            "seeds",
            "p",
            "coverage",
        ]
    ]
    cells = [cell for name in _COMPARED for cell in results[name].figures["cells"]]
    cells.sort(key=lambda cell: (cell["prm"], cell["tokens"]))
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
                str(cell["seeds"]),
                f"{cell['p']:.2g}" if cell["p"] else "< 0.0001",
                f"{100 * coverage['best_of_n']:.1f} and {100 * coverage['mcts']:.1f} %",
            ]
        )
    return rows


def compared(results: Results) -> Rows:
    """What `ratchet eval --compare` has measured: each strategy at each budget, beside the baseline."""
    [figures] = [result.figures for result in results.values()]
    against = {(found["strategy"], found["tokens"]): found for found in figures["comparisons"]}
    rows = [
        [
            "strategy",
            "tokens",
            "accuracy",
            "95 % (Wilson)",
            "difference, points",
            "95 % (paired)",
            "p",
            "coverage",
            "trajectories",
            "tokens, measured",
        ]
    ]
    for arm in figures["arms"]:
        found = against.get((arm["strategy"], arm["tokens"]))
        paired_with = ["", "", ""]
        if found is not None:
            low, high = (100 * edge for edge in found["ci95"])
            paired_with = [
                f"{100 * found['difference']:+.1f}",
                f"{low:+.1f} – {high:+.1f}",
                f"{found['p']:.2g}",
            ]
        rows.append(
            [
                f"`{arm['strategy']}`",
                f"{arm['tokens']:,}",
                f"{100 * arm['accuracy']:.1f} %",
                f"{interval(arm['ci95'])} %",
                *paired_with,
                f"{100 * arm['coverage']:.1f} %",
                f"{arm['trajectories_per_search']:.1f}",
                f"{arm['tokens_per_search']:,.0f}",
            ]
        )
    return rows


def token_pool(results: Results) -> Rows:
    """A batch of problems with a budget each, and with one for all."""
    rows = [
        [
            "budget of a problem",
            "batch",
            "accuracy",
            "95 % (clustered)",
            "tokens a problem",
            "difference, points",
        ]
    ]
    for cell in results["token-pool-nano"].figures["cells"]:
        low, high = (100 * edge for edge in cell["ci95"])
        against = (
            f"{100 * cell['difference']:+.1f} ({low:+.1f} – {high:+.1f}), {cell['better']} : {cell['worse']}"
        )
        for way, words, told in (("alone", "a budget each", ""), ("pool", "one for all", against)):
            found = cell[way]
            rows.append(
                [
                    str(cell["tokens"]) if way == "alone" else "",
                    words,
                    f"{100 * found['accuracy']:.1f} %",
                    f"{interval(found['ci95'])} %",
                    f"{found['tokens_per_problem']:.0f}",
                    told,
                ]
            )
    return rows


def search_parts(results: Results) -> Rows:
    """`mcts` with one part changed at a time."""
    [figures] = [result.figures for result in results.values()]
    rows = [["changed", "accuracy", "difference, points", "95 % (paired)", "p", "coverage", "trajectories"]]
    for found in figures["rows"]:
        compared = ["", "", ""]
        if "ci95" in found:
            low, high = (100 * edge for edge in found["ci95"])
            p = f"{found['p']:.2g}" if found["p"] >= _SMALLEST_P else f"< {_SMALLEST_P:g}"
            compared = [f"{100 * found['difference']:+.1f}", f"{low:+.1f} – {high:+.1f}", p]
        rows.append(
            [
                found["changed"],
                f"{100 * found['accuracy']:.1f} %",
                *compared,
                f"{100 * found['coverage']:.1f} %",
                f"{found['trajectories']:.1f}",
            ]
        )
    return rows


PEER_WAYS = {
    "none": "the model's answer in words",
    "self_consistency": "`self_consistency`: five answers in words",
    "bon": "`bon`: three answers in words, rated by the model",
    "executecode": "`executecode`: one program, run",
    "mcts": "`mcts`: dialogues, rated by the model",
    "rstar": "`rstar`: rStar's actions, answers in words",
    "ratchet greedy": "`greedy`: one program, run",
    "ratchet mcts": "`mcts`: programs of a tree search",
}


def peer(results: Results) -> Rows:
    """optillm and Ratchet on the same problems with the same model."""
    [figures] = [result.figures for result in results.values()]
    rows = [["", "way", "right", "accuracy", "95 % (Wilson)", "tokens a problem", "seconds for all"]]
    for whose in ("optillm", "ratchet"):
        rows += [
            [
                whose,
                PEER_WAYS[found["way"]],
                f"{found['right']} of {found['n']}",
                f"{100 * found['accuracy']:.0f} %",
                f"{interval(found['ci95'])} %",
                f"{found['tokens_a_problem']:,.0f}",
                f"{found['seconds']:,.0f}",
            ]
            for found in figures[whose]
        ]
    return rows


_SMALLEST_P = 1e-4
_MODELS = ("small", "medium")
_EVALUATED = tuple(f"gsm8k-{model}" for model in _MODELS)
TABLES = {
    "gsm8k": Table(_EVALUATED, accuracy),
    "gsm8k-paired": Table(_EVALUATED, paired, Below.NOTHING),
    "round-small-policy": Table(("round-small-policy",), greedy_arms),
    "readme-round-small-policy": Table(("round-small-policy",), greedy_arms, Below.NOTHING),
    "int8-medium": Table(("int8-medium",), greedy_arms),
    "strategies": Table(_COMPARED, strategies),
    "strategies-small": Table(("strategies-small",), compared),
    "strategies-small-before": Table(("strategies-small-before",), compared),
    "search-parts": Table(("search-parts-nano",), search_parts),
    "peer": Table(("optillm-small",), peer),
    "token-pool": Table(("token-pool-nano",), token_pool),
    "grounding": Table(("grounding-nano",), grounding),
    "readme-gsm8k": Table(_EVALUATED, accuracy, Below.COMMANDS),
    "readme-strategies": Table(_COMPARED, strategies_short, Below.COMMANDS),
}
