"""The kinds of data set that leave, with their columns, and how a program is written in them.

The names of the columns are those of TRL's dataset types (prompt-completion, preference, stepwise supervision, unpaired
preference) and of chat messages; what stands beside them says where a row comes from.
"""

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """What a data set is for; also the name of its configuration and its folder."""

    MESSAGES = "messages"
    """Fine-tuning, as a conversation: the problem, and the program that solves it."""
    PROMPT_COMPLETION = "prompt_completion"
    """Fine-tuning, as plain text."""
    PREFERENCE = "preference"
    """Pairs of a better and a worse step after the same steps, and of a right and a wrong solution."""
    STEPWISE = "stepwise"
    """Solutions with a label for each step: whether any rollout through it ended right, and how often they did."""
    KTO = "kto"
    """Single solutions, right or wrong (TRL's unpaired preference)."""
    VERIFIED = "verified"
    """Answers that were verified, each with its program and what stands behind it."""


class Column(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    TEXTS = "texts"
    NUMBERS = "numbers"
    FLAGS = "flags"
    MESSAGES = "messages"


class Style(StrEnum):
    """How steps are written in prompts and completions."""

    PROGRAM = "program"
    """The lines of a Python program."""
    MARKERS = "markers"
    """As a policy of the step format `markers` reads and writes them."""


class Format(StrEnum):
    """Of the files."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class Split(StrEnum):
    """Part of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    """Of the problems that our own trainings were judged by and did not learn from."""


class From(StrEnum):
    """What the data comes from."""

    ROUNDS = "rounds"
    SEARCHES = "searches"
    """Those that no round and no evaluation began."""


_ORIGIN = {"problem_id": Column.TEXT, "round": Column.INTEGER}
_SOLUTION = {
    **_ORIGIN,
    "family": Column.TEXT,
    "difficulty": Column.INTEGER,
    "weight": Column.NUMBER,
}

COLUMNS: Mapping[Kind, Mapping[str, Column]] = {
    Kind.MESSAGES: {"messages": Column.MESSAGES, **_SOLUTION},
    Kind.PROMPT_COMPLETION: {"prompt": Column.TEXT, "completion": Column.TEXT, **_SOLUTION},
    Kind.PREFERENCE: {
        "prompt": Column.TEXT,
        "chosen": Column.TEXT,
        "rejected": Column.TEXT,
        "pair": Column.TEXT,
        "q_chosen": Column.NUMBER,
        "q_rejected": Column.NUMBER,
        "weight": Column.NUMBER,
        **_ORIGIN,
    },
    Kind.STEPWISE: {
        "prompt": Column.TEXT,
        "completions": Column.TEXTS,
        "labels": Column.FLAGS,
        "soft_labels": Column.NUMBERS,
        "soft_weights": Column.NUMBERS,
        "correct": Column.FLAG,
        **_ORIGIN,
    },
    Kind.KTO: {"prompt": Column.TEXT, "completion": Column.TEXT, "label": Column.FLAG, **_ORIGIN},
    Kind.VERIFIED: {
        "problem": Column.TEXT,
        "answer": Column.TEXT,
        "program": Column.TEXT,
        "probability": Column.NUMBER,
        "level": Column.TEXT,
        "search": Column.TEXT,
        "proof_sha256": Column.TEXT,
        "policy": Column.TEXT,
        "prm": Column.TEXT,
        **_ORIGIN,
    },
}
"""The columns of each kind, in their order."""
