"""What a completion says: the content, whose last line is `#### 42`, and each step as it is found. Pure."""

from collections.abc import Sequence
from typing import Final

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import NodeView, SearchResult
from ratchet.solutions.words import STATE_WORDS, verification_words

SHOWN_CHARS: Final = 400
"""Of what a step printed, in the reasoning; the tree has all of it."""
_FENCE: Final = "```"


def content_of(result: SearchResult) -> str:
    """Answer, program, what stands behind it; the last line is `#### ANSWER`, which graders of GSM8K's form read.

    Without an answer there is no such line.
    """
    if result.answer is None:
        reason = f" ({result.reason})" if result.reason else ""
        return f"No answer was found: {STATE_WORDS[result.state]}{reason}."
    answer = " ".join(result.answer.split())
    parts = [f"The answer is {answer}."]
    if result.program:
        parts.append(_fenced(result.program))
    if result.verification is not None:
        parts.append(f"State: {STATE_WORDS[result.state]}. {verification_words(result.verification)}")
    return "\n\n".join([*parts, f"#### {answer}"])


def _fenced(program: str) -> str:
    """As a block of code; the fence is longer than any in the program, so that none ends it."""
    fence = _FENCE
    while fence in program:
        fence += "`"
    return f"{fence}python\n{program}\n{fence}"


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop sequences."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))]


def step_words(node: NodeView) -> str | None:
    """A step as it is found: where it stands, what it says, what it printed, how good the PRM finds it. None: the root."""
    if node.depth == 0:
        return None
    score = "" if node.prm_score is None else f", PRM {node.prm_score:.2f}"
    lines = [f"[step {node.depth}{score}]", node.text.strip()]
    if node.status is not StepStatus.OK:
        error = node.stderr.strip().rpartition("\n")[2] or (node.status or "not run")
        lines.append(f"-> did not run: {error[:SHOWN_CHARS]}")
    elif printed := node.stdout.strip():
        lines.append(f"-> {printed[:SHOWN_CHARS]}")
    return "\n".join(lines) + "\n\n"


def reasoning_of(result: SearchResult) -> str | None:
    """The steps of the solution, where they were not streamed."""
    if not result.steps:
        return None
    told = []
    for depth, step in enumerate(result.steps, 1):
        score = "" if step.prm_score is None else f", PRM {step.prm_score:.2f}"
        lines = [f"[step {depth}{score}]", step.text.strip()]
        if printed := step.stdout.strip():
            lines.append(f"-> {printed[:SHOWN_CHARS]}")
        told.append("\n".join(lines) + "\n\n")
    return "".join(told)
