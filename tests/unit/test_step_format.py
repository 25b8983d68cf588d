"""What the step formats promise: byte-stable prompts, exact cuts, no exception on any text."""

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.solutions.step_formats import (
    FEW_SHOT_FILE,
    ChatFrame,
    Markers,
    StepFormat,
    chat_format,
    few_shot,
    few_shot_format,
    prints,
)

CHAT = chat_format(ChatFrame("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"))
FORMATS: list[StepFormat] = [Markers(), few_shot(), CHAT]
by_format = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
FRAGMENTS = """
|# Step 1: a|
# Step |print(x)|x = 1|```|
```python
|Problem: y|  |'''|(|<end_of_step>|<end_of_code>|def f():
    print(1)|\x0c|é"""
jagged = st.lists(st.sampled_from([*FRAGMENTS.split("|"), "<|im_end|>"]), max_size=14).map("".join)
word = st.text("abcdefgh xyz0123456789+-*/=.,%", min_size=1, max_size=24).map(str.strip).filter(bool)
code_line = st.builds("{} = {}".format, st.sampled_from("abcxyz"), st.integers(0, 99))


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    """Steps of a well-formed solution; only the last one prints."""
    count = draw(st.integers(1, 5))
    steps = []
    for number in range(1, count + 1):
        comment = [f"# Step {number}: {draw(word)}"] + [
            f"# {line}" for line in draw(st.lists(word, max_size=2))
        ]
        steps.append("\n".join(comment + draw(st.lists(code_line, min_size=1, max_size=3))))
    steps[-1] += "\nprint(a)"
    return steps


@by_format
@given(problem=anything.filter(str.strip), steps=st.lists(anything, max_size=4), step=anything)
def test_prompt_of_a_longer_prefix_begins_with_the_shorter_prompt(
    fmt: StepFormat, problem: str, steps: list[str], step: str
) -> None:
    if "\x00" in problem + "".join(steps) + step:
        return
    shorter = fmt.render(Prefix(problem=problem, steps=steps))
    longer = fmt.render(Prefix(problem=problem, steps=[*steps, step]))
    assert longer.startswith(shorter)
    assert problem.strip() in shorter
    assert longer.endswith(step + "\n") or longer.endswith(step + "\n<end_of_step>\n")


@by_format
@given(steps=programs())
def test_splitting_joined_steps_gives_the_steps_back(fmt: StepFormat, steps: list[str]) -> None:
    text = fmt.join(steps)
    for finish in FinishReason:
        got, final = fmt.split(text, Until.END, finish)
        assert got == steps
        # A program of numbered steps has ended by printing, whatever stopped the engine; markers need the end itself.
        assert final == (fmt.name != "markers" or finish is FinishReason.END)
    if fmt.name == "markers":
        assert fmt.split(text + "<end_of_code>", Until.END, FinishReason.STOP) == (steps, True)


@by_format
@given(steps=programs())
def test_a_candidate_is_exactly_one_step(fmt: StepFormat, steps: list[str]) -> None:
    """Replays what an engine does with the format's stop strings, step by step."""
    rest, final = fmt.join(steps), False
    got: list[str] = []
    stops = fmt.stops(Until.STEP)
    while not final and rest.strip():
        hit = min((at, stop) for stop in stops if (at := (rest + "\n# Step ").find(stop)) >= 0)
        text, finish = rest[: hit[0]], stops[hit[1]]
        cut, final = fmt.split(text, Until.STEP, finish)
        assert cut == steps[len(got) : len(got) + 1]
        got += cut
        consumed = fmt.join(cut)
        assert rest.startswith(consumed), "the next prompt continues exactly here"
        rest = rest[len(consumed) :]
    assert got == steps
    assert final == (fmt.name != "markers")


@by_format
@given(steps=programs(), keep=st.integers(1, 200))
def test_cut_text_is_a_prefix_of_its_steps_and_is_never_called_final_too_early(
    fmt: StepFormat, steps: list[str], keep: int
) -> None:
    text = fmt.join(steps).removesuffix("<end_of_step>\n")[:keep]
    got, final = fmt.split(text, Until.END, FinishReason.LENGTH)
    if final:
        assert got[-1].endswith("print(a)")
    assert [step.rstrip() for step in got[:-1]] == steps[: max(0, len(got) - 1)]
    assert len(fmt.split(text, Until.STEP, FinishReason.LENGTH)[0]) <= 1


@by_format
@given(text=st.one_of(anything, jagged), until=st.sampled_from(Until), finish=st.sampled_from(FinishReason))
def test_no_text_makes_the_cut_fail(fmt: StepFormat, text: str, until: Until, finish: FinishReason) -> None:
    steps, final = fmt.split(text, until, finish)
    assert all(step.strip() for step in steps)
    assert all(step in text for step in steps)
    assert isinstance(final, bool)
    if until is Until.STEP:
        assert len(steps) <= 1
    # What was cut once is cut the same way again: a step of ours is one step.
    for step in steps:
        assert fmt.split(step, Until.END, FinishReason.STEP)[0] == [step]


@pytest.mark.parametrize(
    ("text", "finish", "steps", "final"),
    [
        ("# Step 1: add\nx = 1", FinishReason.STEP, ["# Step 1: add\nx = 1"], False),
        ("# Step 2: show\nprint(x)", FinishReason.STEP, ["# Step 2: show\nprint(x)"], True),
        ("# Step 2: show\nprint(x", FinishReason.LENGTH, ["# Step 2: show\nprint(x"], False),
        ("# Step 1: add\nx = 1", FinishReason.END, ["# Step 1: add\nx = 1"], True),
        ("# Step 1: add\nx = 1\n```\nThat is it.", FinishReason.LENGTH, ["# Step 1: add\nx = 1"], True),
        ("```python\n# Step 1: add\nx = 1", FinishReason.STEP, ["# Step 1: add\nx = 1"], False),
        ("# Step 1: a\nx = 1\n\nProblem: next", FinishReason.LENGTH, ["# Step 1: a\nx = 1"], True),
        ("# Step 1: a\nx = 1\n# Step 2: b\ny = 2", FinishReason.LENGTH, ["# Step 1: a\nx = 1"], False),
        ("def f():\n    print(1)", FinishReason.STEP, ["def f():\n    print(1)"], False),
        ("if x:\n    print(1)", FinishReason.STEP, ["if x:\n    print(1)"], True),
        (
            "# Step 1: sprint (fast)\nx = 'print(1)'",
            FinishReason.STEP,
            ["# Step 1: sprint (fast)\nx = 'print(1)'"],
            False,
        ),
        ("", FinishReason.END, [], True),
        ("\n\n", FinishReason.STEP, [], False),
    ],
)
def test_few_shot_steps(text: str, finish: FinishReason, steps: list[str], final: bool) -> None:
    assert few_shot().split(text, Until.STEP, finish) == (steps, final)


@pytest.mark.parametrize(
    ("text", "finish", "steps", "final"),
    [
        # A fence that is closed, and what a model says after it.
        ("# Step 1: a\nx = 1\n```\nThe answer is 1.", FinishReason.LENGTH, ["# Step 1: a\nx = 1"], True),
        ("# Step 1: a\nx = 1<|im_end|>\n<|im_start|>", FinishReason.LENGTH, ["# Step 1: a\nx = 1"], True),
        ("```\nThat was all.", FinishReason.LENGTH, [], True),
        ("<|im_end|>", FinishReason.END, [], True),
        # The fence that the prompt has opened, opened again.
        ("```python\n# Step 1: a\nx = 1", FinishReason.STEP, ["# Step 1: a\nx = 1"], False),
        # Only few-shot solutions end where the next problem begins.
        (
            "# Step 1: a\n\nProblem: next",
            FinishReason.LENGTH,
            ["# Step 1: a\n\nProblem: next"],
            False,
        ),
    ],
)
def test_chat_steps(text: str, finish: FinishReason, steps: list[str], final: bool) -> None:
    assert CHAT.split(text, Until.STEP, finish) == (steps, final)


def test_a_chat_prompt_leaves_the_turn_of_the_assistant_open() -> None:
    prompt = CHAT.render(Prefix(problem=" What is 2 + 3? ", steps=["# Step 1: Add.\nx = 2 + 3"]))
    assert prompt.startswith("<|im_start|>user\nSolve the math problem")
    assert prompt.endswith(
        "\n\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n```python\n# Step 1: Add.\nx = 2 + 3\n"
    )


def test_examples_without_a_place_for_the_problem_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no \{problem\}"):
        few_shot_format("Problem: none")


def test_markers_end_the_program() -> None:
    fmt = Markers()
    assert fmt.split("# a\nx = 1\n", Until.STEP, FinishReason.STEP) == (["# a\nx = 1"], False)
    assert fmt.split("# a\nprint(x)\n", Until.STEP, FinishReason.END) == (["# a\nprint(x)"], True)
    text = "# a\nx = 1\n<end_of_step>\n# b\nprint(x)\n<end_of_code>\n<output>1"
    assert fmt.split(text, Until.END, FinishReason.LENGTH) == (["# a\nx = 1", "# b\nprint(x)"], True)


def test_worked_examples_follow_the_format_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    fmt = few_shot()
    blocks = FEW_SHOT_FILE.read_text().split("Solution:\n")[1:-1]
    assert len(blocks) >= 2
    for block in blocks:
        code = block.partition("\n\nProblem:")[0]
        steps, final = fmt.split(code, Until.END, FinishReason.LENGTH)
        assert final
        assert "\n".join(steps) == code
        assert len(steps) >= 2
        for number, step in enumerate(steps, 1):
            assert step.startswith(f"# Step {number}: ")
            assert ast.parse(step).body
            assert prints(step) == (number == len(steps))
        numbers = {
            constant.value for constant in ast.walk(ast.parse(code)) if isinstance(constant, ast.Constant)
        }
        said = re.findall(
            r"(?<!Step )\d+", "".join(line for line in code.splitlines() if line.startswith("#"))
        )
        assert {int(number) for number in said} <= numbers, "a comment states no result"
        exec(compile(code, "example", "exec"), {})
        assert float(capsys.readouterr().out) >= 0
