"""What other people's programs find: clients of OpenAI's API, and evaluators that grade by themselves."""

from collections.abc import Mapping

from benchmarks.tables.documents import Results, Rows, Table, percent, with_interval

FACADE, PAGE = "facade", "page"
EVALUATORS = ("evaluators-nano", "evaluators-nano-tree")
PAGE_FIGURES = {
    "passed": "tests in Chromium that passed",
    "failed": "that failed",
    "axe_serious": "serious findings of axe-core, over all views, light and dark",
    "nodes_5000_fps": "frames a second while a tree of 5,000 nodes grows by 50 a second",
    "nodes_5000_frame_ms_p95": "milliseconds of a frame then, 95th percentile",
    "nodes_5000_layout_ms": "milliseconds of a layout then, off the main thread",
    "first_node_ms": "milliseconds from the click to the first step on the screen",
    "page_kb": "KB of all that the page loads",
    "first_view_kb": "KB of them for the first view",
}


def facade(results: Results) -> Rows:
    """Clients, their versions, and what they ran."""
    found = results[FACADE].figures
    rows = [["client", "version", "what was run"]]
    for name, ran in found["ran"].items():
        rows.append([name, found["versions"][name], ran])
    return rows


def evaluators(results: Results) -> Rows:
    """One accuracy, measured three times, with each strategy."""
    found = [results[name].figures for name in EVALUATORS]
    versions = found[0]["versions"]
    strategies = [f"`{each['strategy']}`: right of {each['problems']}, %" for each in found]
    return [
        ["measured by", "asks", "grades by", *strategies],
        [
            "`ratchet eval`",
            "`POST /search`",
            "the sandbox's grader",
            *(with_interval(each["ratchet"], each["ci95"]) for each in found),
        ],
        [
            f"lm-eval {versions['lm_eval']}",
            "the façade, `local-chat-completions`",
            "gsm8k's filter, exact match",
            *(percent(each["lm_eval"]) for each in found),
        ],
        [
            f"Inspect AI {versions['inspect_ai']}",
            "the façade, `openai-api/…`",
            "`match(numeric=True)`",
            *(percent(each["inspect"]) for each in found),
        ],
        [
            "problems that differ in grade; in answer",
            "",
            "",
            *(f"{each['differing']}; {each['differing_answers']}" for each in found),
        ],
    ]


def page(results: Results) -> Rows:
    """What the page's tests count and measure."""
    found = results[PAGE].figures
    return [["of the page", "figure"], *([words, f"{found[name]:g}"] for name, words in PAGE_FIGURES.items())]


TABLES: Mapping[str, Table] = {
    "facade": Table((FACADE,), facade),
    "page": Table((PAGE,), page),
    "evaluators": Table(EVALUATORS, evaluators),
}
