"""The data card: README.md with the front matter that `datasets` reads, and in words where the data comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

from ratchet import __version__
from ratchet.exports.gathering import About, Gathering
from ratchet.exports.kinds import COLUMNS, Kind, Split
from ratchet.exports.writers import Written, features

FILE = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_WHAT = {
    Kind.MESSAGES: "fine-tuning, as conversations",
    Kind.PROMPT_COMPLETION: "fine-tuning, as plain text (TRL: prompt-completion)",
    Kind.PREFERENCE: "pairs of steps and of solutions (TRL: preference)",
    Kind.STEPWISE: "a label for each step (TRL: stepwise supervision), and the share of rollouts that ended right",
    Kind.KTO: "single solutions, right or wrong (TRL: unpaired preference)",
    Kind.VERIFIED: "verified answers, with what stands behind them",
}
_COLUMN_NOTES = {
    "labels": "whether any rollout through the step ended right",
    "soft_labels": "the share of rollouts through the step that ended right",
    "soft_weights": "what a soft label counts, in [0, 1]: it comes from few rollouts",
    "weight": "of a solution: 1/k where its problem has k; of a pair: 1 over the pairs that its group may have",
    "pair": "`step`: two next steps after the same steps; `solution`: two whole solutions",
    "q_chosen": "mean result (+1 right, −1 wrong) of the rollouts through it",
    "probability": "calibrated probability that the answer is right; 1 where it equals a reference answer",
    "level": "`reference`: equals a given answer; `agreement`: independent programs agree; `execution`: one program",
    "proof_sha256": "of the proof bundle of the search, which `ratchet verify` checks",
}


def data_card(about: About, gathering: Gathering, written: Sequence[Written]) -> str:
    """The text of README.md."""
    parts = [
        f"# {about.title}",
        *about.origin,
        _files(written),
        _loading(written),
        _columns(written),
        _models(about),
        _filters(about, gathering),
        _licences(about),
        _limits(),
    ]
    return f"---\n{_front_matter(about, written)}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(about: About, written: Sequence[Written]) -> str:
    import yaml

    rows = sum(each.rows for each in written)
    declared = [source.licence for source in about.sources]
    known = sorted({licence for licence in declared if licence})
    whole = bool(declared) and all(declared)
    licence: Any = (known[0] if len(known) == 1 else known) if whole else "unknown"
    configs, infos = [], []
    for kind in dict.fromkeys(each.kind for each in written):
        files = [
            {"split": str(each.split), "path": each.path}
            for each in _train_first(written)
            if each.kind is kind
        ]
        configs.append({"config_name": str(kind), "data_files": files})
        infos.append({"config_name": str(kind), "features": features(kind)})
    front: dict[str, Any] = {
        "license": licence,
        "language": ["en"],
        "task_categories": ["text-generation"],
        "tags": ["math", "reasoning", "synthetic", "ratchet"],
        "size_categories": [next((name for least, name in _SIZES if rows < least), "n>1M")],
        "configs": configs,
        "dataset_info": infos,
    }
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _train_first(written: Sequence[Written]) -> list[Written]:
    return sorted(written, key=lambda each: (each.kind, each.split is not Split.TRAIN))


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    """On one line, without what would end the cell or begin HTML."""
    line = " ".join(str(value).split())
    return line.replace("|", "\\|").replace("<", "&lt;")


def _files(written: Sequence[Written]) -> str:
    rows = [
        (each.path, _WHAT[each.kind], each.split, each.rows, each.sha256) for each in _train_first(written)
    ]
    return "## Files\n\n" + _table(("file", "for", "split", "rows", "SHA-256"), rows)


def _loading(written: Sequence[Written]) -> str:
    kind = written[0].kind if written else Kind.MESSAGES
    return (
        "## How to load\n\n"
        "```python\nfrom datasets import load_dataset\n\n"
        f'data = load_dataset("path/to/this/folder", "{kind}")\n```\n\n'
        "The second argument is one of the configurations: "
        + ", ".join(f"`{kind}`" for kind in dict.fromkeys(each.kind for each in written))
        + ". The split `validation` holds problems that Ratchet's own trainings were judged by and did not learn from."
    )


def _columns(written: Sequence[Written]) -> str:
    shown = dict.fromkeys(name for each in written for name in COLUMNS[each.kind])
    notes = [(f"`{name}`", _COLUMN_NOTES[name]) for name in shown if name in _COLUMN_NOTES]
    return (
        "## Columns\n\n" + _table(("column", "is"), notes) if notes else "## Columns\n\nAs their names say."
    )


def _models(about: About) -> str:
    rows = [(each.role, each.version, each.sha256 or "none of its own") for each in about.models]
    return "## Models\n\nWhat wrote and scored the text, and what was trained on it.\n\n" + _table(
        ("role", "version", "SHA-256 of weights and config"), rows
    )


def _filters(about: About, gathering: Gathering) -> str:
    counts: Mapping[str, int] = {str(why): count for why, count in gathering.left_out.items()}
    rows = [(why, count) for why, count in sorted(counts.items())]
    left_out = (
        "\n\nLeft out, counted in solutions, trees and answers:\n\n" + _table(("because", "number"), rows)
        if rows
        else "\n\nNothing had to be left out."
    )
    read = "\n\nRead from:\n\n" + _table(("file", "SHA-256"), about.inputs) if about.inputs else ""
    said = "".join(f"\n- {each}" for each in about.filters)
    return f"## Filters\n\nRows are of {len(gathering.problems)} problems.\n{said}{left_out}{read}"


def _licences(about: About) -> str:
    rows = [
        (
            each.spec,
            each.problems,
            each.licence or "none declared: look it up before you pass the problems on",
        )
        for each in about.sources
    ]
    return (
        "## Licence of the problems\n\nAs their sources declare it. What the models wrote may be bound by the models' licences."
        "\n\n" + _table(("source", "problems", "licence"), rows)
    )


def _limits() -> str:
    return (
        "## Limits\n\nThe programs were written by a model. Each was run in a sandbox; run them in one, too. A label is only "
        f"as right as the reference answer that it was compared with.\n\nWritten by `ratchet export`, version {__version__}."
    )
