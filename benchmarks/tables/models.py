"""Prompts by accuracy and cost, how fast the policy is, number formats, and which signal PRM1 reads."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

SIGNALS = {
    "likelihood": "mean of the steps' mean log-probabilities (PRM1)",
    "bare likelihood": "the same, read without the worked examples",
    "brevity": "brevity: fewer tokens, knows nothing else",
    "problem given the program": "likelihood of the problem given the program",
    "judge": "own yes/no judgement, chat form",
    "judge, few-shot form": "own yes/no judgement, few-shot form",
    "step likelihood": "step by step: the mean up to the step",
    "the step's own likelihood": "step by step: the step's own log-probability",
}

WAYS = {
    "baseline": "Hugging Face's `generate`, fp32",
    "engine_bf16": "engine, bf16, 64 different prompts",
    "engine_bf16_n8": "engine, bf16, 8 prompts with 8 candidates each",
    "http_64_clients_n1": "over HTTP, 64 clients that ask for one candidate at a time",
    "http_8_clients_n8": "over HTTP, 8 clients that ask for eight",
}

PROMPTS = {
    "few_shot_with_results": "the same examples, results in their comments (until version 0.1)",
    "few_shot": "`few_shot`: four worked examples, no results in their comments",
    "chat": "`chat`: the chat template, zero-shot",
    "chat_system": "the same, instructions in the system's turn",
    "chat_examples": "`chat` with the examples before the problem",
}


def share(found: Mapping[str, Any]) -> str:
    """A count with its Wilson interval in per cent."""
    return f"{found['count']} of {found['n']} ({interval(found['ci95'])} %)"


def prompts(results: Results) -> Rows:
    """Greedy programs of each model with each prompt."""
    rows = [
        ["model", "prompt", "right", "answers that no quantity changes", "tokens an answer", "prompt tokens"]
    ]
    for result in results.values():
        model = result.figures["model"].partition("@")[0]
        for name, found in result.figures["variants"].items():
            greedy = found["greedy"]
            ungrounded = greedy["ungrounded"]
            rows.append(
                [
                    f"`{model}`",
                    PROMPTS[name],
                    share(greedy["right"]),
                    f"{100 * ungrounded['count'] / ungrounded['n']:.0f} % of {ungrounded['n']}",
                    f"{greedy['tokens']:.0f}",
                    f"{greedy['prompt_tokens']:.0f}",
                ]
            )
    return rows


def paired_prompts(results: Results) -> Rows:
    """Prompts problem by problem."""
    rows = [["model", "problem by problem", "only the first is right", "only the second", "McNemar, exact"]]
    for result in results.values():
        model = result.figures["model"].partition("@")[0]
        for pair, found in result.figures["paired"].items():
            first, _, second = pair.partition(" against ")
            only = [str(found[key]) for key in ("only_first", "only_second")]
            rows.append([f"`{model}`", f"`{first}` and `{second}`", *only, f"p = {found['p']:.2f}"])
    return rows


_NEWCOMERS = {"small": "verified-small-early", "medium": "verified-medium-early"}


def newcomers(results: Results) -> Rows:
    """What each model is worth to somebody who has just begun, and what it costs."""
    rows = [
        [
            "model",
            "`greedy`, right",
            "`mcts`, right",
            "called verified",
            "of them right",
            "seconds for one answer alone",
            "memory of the engine",
        ]
    ]
    for model, verified in _NEWCOMERS.items():
        arms = results[f"gsm8k-{model}"].figures["arms"]
        called = results[verified].figures
        precision = f"{100 * called['precision']:.0f} %" if called["verified"] else "–"
        rows.append(
            [
                f"`{model}`",
                f"{100 * arms['greedy']['accuracy']:.0f} % of {arms['greedy']['n']}",
                f"{100 * arms['mcts']['accuracy']:.0f} % of {arms['mcts']['n']}",
                f"{100 * called['coverage']:.0f} % of {called['n']}",
                precision,
                f"{results[f'one-answer-{model}'].figures['seconds_per_problem']:.0f}",
                f"{results[f'prompts-{model}'].figures['engine']['memory_gb']:.1f} GB",
            ]
        )
    return rows


def signals(results: Results) -> Rows:
    """AUC of each signal in both runs."""
    runs = [results["prm1-signals-first"].figures, results["prm1-signals"].figures]
    rows = [["signal", *(f"AUC, {run['ran']} solutions that ran, {run['right']} right" for run in runs)]]
    rows[0][1] += " (the choice)"
    rows[0][2] += " (measured again)"
    for name, label in SIGNALS.items():
        cells = []
        for run in runs:
            found = run["auc"].get(name)
            edges = found and found.get("ci95")
            cells.append("" if found is None else f"{found['auc']:.2f}")
            if edges:
                cells[-1] += f" ({interval(edges, '.2f', 1)})"
        rows.append([label, *cells])
    return rows


def two_cores(results: Results) -> Rows:
    """Tokens a second before and after."""
    found = results["vllm-two-cores"].figures
    cores, nucleus = found["every_core"], found["top_p_over_the_whole_vocabulary"]
    return [
        ["change", "tokens/s without", "tokens/s with"],
        ["`VLLM_CPU_OMP_THREADS_BIND` names both cores", str(cores["before"]), str(cores["after"])],
        [
            "vLLM's own top-p, which sorts 152k logits for every token",
            str(nucleus["without"]),
            str(nucleus["with"]),
        ],
    ]


def precision(results: Results) -> Rows:
    """fp32 beside bf16."""
    found = results["policy-precision"].figures
    fp32, bf16, ratio = found["float32"], found["bfloat16"], found["fp32_over_bf16"]
    return [
        ["", "fp32", "bf16", "fp32 is faster"],
        [
            f"seconds to the first token after a cold prompt of {fp32['prompt_tokens']} tokens",
            f"{fp32['first_token_seconds']:.1f}",
            f"{bf16['first_token_seconds']:.1f}",
            f"{ratio['first_token']:.1f} times",
        ],
        [
            f"tokens/s, {found['batch']} problems at once",
            f"{fp32['tokens_per_second']:.1f}",
            f"{bf16['tokens_per_second']:.1f}",
            f"{ratio['tokens_per_second']:.1f} times",
        ],
    ]


def draws(results: Results) -> Rows:
    """Milliseconds of a draw."""
    return [
        ["top-p", "sequences", "vLLM's sampler, ms", "ours, ms", "ratio"],
        *(
            [
                f"{each['top_p']:g}",
                str(each["sequences"]),
                f"{each['vllm_ms']:.0f}",
                f"{each['ours_ms']:.1f}",
                f"{each['ratio']:.0f} times",
            ]
            for each in results["draws"].figures["draws"]
        ),
    ]


def int8(results: Results) -> Rows:
    """8-bit weights beside bf16."""
    rows = [["model", "problems at once", "tokens/s, bf16", "tokens/s, int8", "int8 is faster"]]
    for model in _NEWCOMERS:
        found = results[f"policy-int8-{model}"].figures
        for batch, faster in found["faster_than_the_first"]["int8"]["by_batch"].items():
            bf16, bytewise = (found[each]["by_batch"][batch] for each in ("bfloat16", "int8"))
            rows.append([f"`{model}`", batch, f"{bf16:.0f}", f"{bytewise:.0f}", f"{faster:.1f} times"])
    return rows


_ONE_ANSWER = {
    "one-answer-medium": "bf16, draws of before, four rollouts at once",
    "one-answer-medium-int8": "8-bit weights, draws of today, the first eight rollouts at once",
}


def one_answer(results: Results) -> Rows:
    """What one answer of medium takes."""
    rows = [["served with", "problems", "seconds, mean", "tokens, mean"]]
    for name, label in _ONE_ANSWER.items():
        found = results[name].figures
        rows.append(
            [
                label,
                str(found["n"]),
                f"{found['seconds_per_problem']:.0f}",
                f"{found['tokens_per_problem']:,.0f}",
            ]
        )
    return rows


def decoding(results: Results) -> Rows:
    """Tokens a second of each way."""
    found = results["policy-speed"].figures
    rows = [["", "tokens/s", "lowest – highest"]]
    for name, label in WAYS.items():
        low, high = found["spread"][name]
        rows.append([label, f"{found['tokens_per_second'][name]:,}", f"{low:,} – {high:,}"])
    return rows


TABLES = {
    "prompts": Table(("prompts-small", "prompts-medium"), prompts),
    "prompts-paired": Table(("prompts-small", "prompts-medium"), paired_prompts, Below.NOTHING),
    "newcomers": Table(
        tuple(f"{name}-{model}" for name in ("gsm8k", "one-answer", "prompts") for model in _NEWCOMERS)
        + tuple(_NEWCOMERS.values()),
        newcomers,
    ),
    "prm1-signals": Table(("prm1-signals-first", "prm1-signals"), signals),
    "vllm-two-cores": Table(("vllm-two-cores",), two_cores),
    "policy-precision": Table(("policy-precision",), precision),
    "draws": Table(("draws",), draws),
    "one-answer": Table(tuple(_ONE_ANSWER), one_answer),
    "policy-int8": Table(tuple(f"policy-int8-{model}" for model in _NEWCOMERS), int8),
    "policy-speed": Table(("policy-speed",), decoding),
}
