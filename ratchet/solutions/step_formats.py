"""Step formats: how a prefix becomes a prompt, and generated text becomes steps.

Prompts are byte-stable: the prompt of a prefix and one step more begins with the prompt of that prefix, so the engine's
prefix cache holds all but the new step. Three formats exist: `markers`, the bare one, which has to be trained (the paper's),
and two that other models understand: `few_shot`, worked examples, and `chat`, the model's own chat template with instructions.
Which one a model gets is said in `ratchet.models.prompts`; what is trained from it keeps it, unless it is taught `markers`.

Limits: text is cut by its form only. A line of a multi-line string that looks like the start of a step is taken for one.
"""

import ast
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.solutions.fences import fenced_code

FEW_SHOT_FILE = Path(__file__).parent / "prompts" / "few_shot.txt"
INSTRUCTIONS_FILE = Path(__file__).parent / "prompts" / "chat.txt"
CONFIG_KEY = "ratchet_step_format"


class StepFormat(Protocol):
    """How one family of models writes steps."""

    name: str

    @abstractmethod
    def render(self, prefix: Prefix) -> str:
        """The prompt, after which the model writes the next step."""

    @abstractmethod
    def join(self, steps: Sequence[str]) -> str:
        """The text of steps as the model would have written them after the prompt of the problem."""

    @abstractmethod
    def ending(self, end_token: str) -> str:
        """What the model writes after all steps (`join`) of a solution, to the end. `end_token` is its tokenizer's.

        Generation stops in it: at a string of `stops`, or at the end token.
        """

    @abstractmethod
    def stops(self, until: Until) -> dict[str, FinishReason]:
        """Stop strings, and what it means when one is met: STEP (a boundary) or END (the solution is over)."""

    @abstractmethod
    def split(self, text: str, until: Until, finish: FinishReason) -> tuple[list[str], bool]:
        """Generated text (without the stop string) cut into steps, and whether the last of them ends the solution.

        At most one step for `Until.STEP`. With `FinishReason.LENGTH` the last step may be cut in the middle.
        Never raises.
        """


END_OF_STEP = "<end_of_step>"
END_OF_CODE = "<end_of_code>"


class Markers:
    """The bare format: the problem, then each step ended by `<end_of_step>`, the program by `<end_of_code>`.

    A prompt is `{problem}`, a line break, and for each step its text, a line break, the marker, a line break.
    """

    name = "markers"

    def render(self, prefix: Prefix) -> str:
        return f"{prefix.problem.strip()}\n{self.join(prefix.steps)}"

    def join(self, steps: Sequence[str]) -> str:
        return "".join(f"{step}\n{END_OF_STEP}\n" for step in steps)

    def ending(self, end_token: str) -> str:
        return END_OF_CODE + end_token

    def stops(self, until: Until) -> dict[str, FinishReason]:
        ends = {END_OF_CODE: FinishReason.END}
        return ends if until is Until.END else {END_OF_STEP: FinishReason.STEP} | ends

    def split(self, text: str, until: Until, finish: FinishReason) -> tuple[list[str], bool]:
        body, code_ended, _ = text.partition(END_OF_CODE)
        pieces = [piece.strip("\n") for piece in body.split(END_OF_STEP)]
        steps = [piece for piece in pieces if piece.strip()]
        final = bool(code_ended) or finish is FinishReason.END
        if until is Until.STEP:
            # Normally the stop string has cut here; without it (a foreign engine) the rest is not part of the step.
            return steps[:1], final and len(steps) <= 1
        return steps, final


STEP_HEADER = "# Step "
_BOUNDARY = re.compile(r"\n(?=# Step )")
_FENCE = "```"
_LEADING_FENCE = re.compile(r"\s*```(?P<language>[A-Za-z0-9_+-]*)[ \t]*\n")
_PRINT_LINE = re.compile(r"^print\s*\(", re.MULTILINE)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class NumberedSteps:
    """A fixed text, the problem, a fixed text, then steps: `# Step k: …` comment lines and Python. The last step prints.

    `end` is a text that no program holds, which a model of this format writes after a solution (the end of its turn, the
    begin of its next example); "" where that is the tokenizer's end token. `closing` is what comes between.
    """

    def __init__(self, name: str, before: str, after: str, *, end: str, closing: str = "") -> None:
        self.name = name
        self._before = before
        self._after = after
        self._end = end
        self._closing = closing
        self._ends = ["\n" + _FENCE, *([end] if end else [])]

    def render(self, prefix: Prefix) -> str:
        return self._before + prefix.problem.strip() + self._after + self.join(prefix.steps)

    def join(self, steps: Sequence[str]) -> str:
        return "".join(step + "\n" for step in steps)

    def ending(self, end_token: str) -> str:
        return self._closing + (self._end or end_token)

    def stops(self, until: Until) -> dict[str, FinishReason]:
        ends = dict.fromkeys(self._ends, FinishReason.END)
        return ends if until is Until.END else {"\n" + STEP_HEADER: FinishReason.STEP} | ends

    def split(self, text: str, until: Until, finish: FinishReason) -> tuple[list[str], bool]:
        # Where the prompt has opened a fence, only one with a language opens it again; a bare one closes it.
        fence = _LEADING_FENCE.match(text)
        if fence and (fence["language"] or _FENCE not in self._after):
            text = text[fence.end() :]
        text = fenced_code(text)
        ended = finish is FinishReason.END
        # A line break is put before the text, so that an end in its first line is found as well.
        body = "\n" + text
        cut = min((at for at in map(body.find, self._ends) if at >= 0), default=-1)
        if cut >= 0:
            body, ended = body[:cut], True
        whole = [piece.strip("\n").rstrip() for piece in _BOUNDARY.split(body)]
        pieces = [piece for piece in whole if piece.strip()]
        steps: list[str] = []
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            steps.append(piece)
            cut_short = last and finish is FinishReason.LENGTH and not ended
            if prints(piece, complete=not cut_short):
                return steps, True
            if until is Until.STEP:
                return steps, ended and last
        return steps, ended


def prints(code: str, *, complete: bool = True) -> bool:
    """Whether running this code calls `print` outside of any function.

    Code that does not parse is judged by its lines, unless it is not `complete` (then a cut call may be what is wrong).
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return complete and _PRINT_LINE.search(code) is not None
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            return True
        pending.extend(child for child in ast.iter_child_nodes(node) if not isinstance(child, _SCOPES))
    return False


@cache
def few_shot() -> NumberedSteps:
    """The packaged worked examples. Their comments state no results: that invites numbers that nobody computed."""
    return few_shot_format(FEW_SHOT_FILE.read_text(encoding="utf-8"))


def few_shot_format(template: str) -> NumberedSteps:
    """Worked examples from a text with `{problem}` in it once. Raises ValueError where it is not.

    The word before it (`Problem:`) begins each example, so that the model's own next example ends the solution.
    """
    before, found, after = template.partition("{problem}")
    if not found:
        raise ValueError("the few-shot template has no {problem} in it")
    lead = before.rpartition("\n")[2].strip()
    return NumberedSteps("few_shot", before, after.rstrip("\n") + "\n", end="\n" + lead if lead else "")


@dataclass(frozen=True)
class ChatFrame:
    """What a chat template puts before the user's message, between it and the assistant's, and after that one."""

    before: str
    between: str
    end_of_turn: str


def chat_format(frame: ChatFrame) -> NumberedSteps:
    """Instructions and the problem in one turn of the user; the assistant's is begun with a code fence, and open."""
    instructions = INSTRUCTIONS_FILE.read_text(encoding="utf-8").strip()
    return NumberedSteps(
        "chat",
        f"{frame.before}{instructions}\n\n",
        f"{frame.between}{_FENCE}python\n",
        end=frame.end_of_turn.strip(),
        closing=_FENCE,
    )
