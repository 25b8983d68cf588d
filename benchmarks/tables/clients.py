"""What other people's programs find: clients of OpenAI's API, and evaluators that grade by themselves."""

from collections.abc import Mapping

from benchmarks.tables.documents import Results, Rows, Table, percent, with_interval

FACADE, EVALUATORS = "facade", "evaluators-nano"


def facade(results: Results) -> Rows:
    """Clients, their versions, and what they ran."""
    found = results[FACADE].figures
    rows = [["client", "version", "what was run"]]
    for name, ran in found["ran"].items():
        rows.append([name, found["versions"][name], ran])
    return rows


def evaluators(results: Results) -> Rows:
    """One accuracy, measured three times."""
    found = results[EVALUATORS].figures
    versions = found["versions"]
    return [
        ["measured by", "asks", "grades by", f"right of {found['problems']}, %"],
        [
            "`ratchet eval`",
            "`POST /search`",
            "the sandbox's grader",
            with_interval(found["ratchet"], found["ci95"]),
        ],
        [
            f"lm-eval {versions['lm_eval']}",
            "the façade, `local-chat-completions`",
            "gsm8k's filter, exact match",
            percent(found["lm_eval"]),
        ],
        [
            f"Inspect AI {versions['inspect_ai']}",
            "the façade, `openai-api/…`",
            "`match(numeric=True)`",
            percent(found["inspect"]),
        ],
        [
            "problems that differ in grade; in answer",
            "",
            "",
            f"{found['differing']}; {found['differing_answers']}",
        ],
    ]


TABLES: Mapping[str, Table] = {
    "facade": Table((FACADE,), facade),
    "evaluators": Table((EVALUATORS,), evaluators),
}
