"""Text that a model wrote, or its program printed, never raises: through steps, answers, votes, proofs, selection, screen.

What runs such text is tested in tests/integration/test_search_steps.py.
"""

import io
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from ratchet.cli.display import TreeDisplay, clean, solution
from ratchet.contracts.policy import FinishReason, Until
from ratchet.contracts.rounds import SelectBy, Selection
from ratchet.contracts.sandbox import StepResult, StepStatus
from ratchet.contracts.search import SearchResult, StrategyName
from ratchet.events import answer_event, node_event
from ratchet.notation.keys import key_of
from ratchet.notation.reading import read, read_number
from ratchet.problems.verifiable import why_refused
from ratchet.solutions.answers import answer_key, answer_of, last_line
from ratchet.solutions.behaviour import Behaviour, answer_key_of, behaviour_of
from ratchet.solutions.canonical import count_forms
from ratchet.solutions.clean_runs import clean_run
from ratchet.solutions.counterfactual import apply_variant, make_variants
from ratchet.solutions.programs import fingerprint, program_of, step_fingerprint
from ratchet.solutions.proof import (
    check_answers,
    check_behaviour,
    check_bundle,
    check_level,
    check_outputs,
    proof_program,
)
from ratchet.solutions.step_formats import Markers, few_shot, prints
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem
from ratchet.store.text import replace_unstorable
from services.search.saved_tree import record_of, tree_of
from services.search.strategies import ExecutedStep, Majority, Rollout, Tree
from services.search.votes import tally
from services.trainer.quarantine import disagreement, suspects
from services.trainer.selection import Card, Choice, find, verdict
from tests.unit.test_proof import bundle, ran

PROBLEM = "9 trays of 6 rolls, a third of them sold at 20% off. How many are left?"
VARIANTS = make_variants(PROBLEM)
PIECES = [
    *("\x00", "\ud83d", "\udc00", "\x1b[31m", "\x1b]0;title\x07", "\u202e", "\u2028", "\x85", "\ufeff", "\x0c"),
    *("9" * 4301, "9" * 4300, "0x" + "f" * 5000, "1e999999", "1e-999999", "nan", "-inf", "1_0", "٣", "²", "½"),
    *("(" * 300, ")" * 300, "[" * 5000, "{", "}", "\\frac{" * 400, "\\boxed{", "$" * 900, "-" * 5000, "f(" * 99),
    *("9**9**9**9", "10!!!", "2^" * 500 + "2", "1," * 3000, "1 + " * 3000, "x.a" * 3000, "lambda: " * 900),
    *("'", '"""', "\\", "#", "\n", "\r", " ", "\t", "1", "x", "=", ",", ";", "# Step 2: go on.\n", "```python\n"),
    *("<end_of_step>", "<end_of_code>", "Problem: ", "print(", "Decimal('", "round(", "2 ** ", "% 1e308", "/ 0"),
]  # fmt: skip
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=()), max_size=9), max_size=8
)
HOSTILE = TEXTS.map("".join)
PROGRAMS = st.builds(
    str.replace,
    st.sampled_from(["?", "print(?)", "x = ?\nprint(x)", "# ?\nprint(1)", "for i in range(2):\n    x = ?\n"]),
    st.just("?"),
    HOSTILE,
)
LOOSE = settings(deadline=None, max_examples=60)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def record(text: str, answer: str | None, number: int = 1) -> NodeRecord:
    return NodeRecord(
        *(f"n{number}", "root", number, 1, NodeState.TERMINAL, "1"),
        *(text, StepStatus.OK, answer or "", answer or "", 0.5, -1.0),
        visits=2,
        value_sum=-2.0,
        answer=answer,
    )


def root() -> NodeRecord:
    return NodeRecord("root", None, 0, 0, NodeState.OPEN, "root", visits=2)


@LOOSE
@given(HOSTILE)
def test_an_answer_is_read_or_left_as_words(text: str) -> None:
    assert answer_key(text)
    assert len(answer_key_of(text)) <= 200
    assert key_of(read(text)) == answer_key(text)
    read_number(text)
    why_refused(text)
    line = last_line(text)
    assert line is None or (line and line in text)
    kept = answer_of(StepResult(status=StepStatus.OK, stdout=text))
    assert kept is None or (kept == line and len(kept) <= 2000 and kept == replace_unstorable(kept))


@LOOSE
@given(HOSTILE | PROGRAMS, st.sampled_from(FinishReason), st.sampled_from(Until))
def test_what_a_policy_writes_is_cut_into_steps(text: str, finish: FinishReason, until: Until) -> None:
    for steps_of in (Markers(), few_shot()):
        steps, _ = steps_of.split(text, until, finish)
        assert all(step.strip() for step in steps)
        for step in steps:
            assert len(step_fingerprint(step)) == 64
            prints(step)


@LOOSE
@given(st.lists(PROGRAMS, min_size=1, max_size=3), HOSTILE)
def test_a_program_has_forms_variants_and_a_behaviour(steps: list[str], answer: str) -> None:
    assert len(fingerprint(program_of(steps))) == 64
    assert count_forms([steps], compute=True) == count_forms([steps], compute=False) == 1
    for variant in VARIANTS:
        assert len(apply_variant(steps, variant)) == len(steps)
    assert behaviour_of(steps, answer, []).grounded is None
    assert behaviour_of(steps, answer, [answer_key_of(answer)] * 2).grounded is False


@LOOSE
@given(st.lists(st.tuples(PROGRAMS, HOSTILE), min_size=1, max_size=4))
def test_a_tree_is_grown_counted_kept_shown_and_told(found: list[tuple[str, str]]) -> None:
    tree = Tree()
    strategy = Majority(99, 16)
    for text, printed in found:
        answer = answer_of(StepResult(status=StepStatus.OK, stdout=printed))
        step = ExecutedStep(
            *(replace_unstorable(text), StepStatus.OK, replace_unstorable(printed), "", 0.5, -1.0, 1, 0.1),
            answer=answer,
            value=None if answer is None else 0.0,
        )
        task = strategy.ask(tree)
        assert task is not None
        strategy.tell(tree, Rollout(task, ((step,),)))
    groups = tally(tree, StrategyName.MAJORITY)
    assert sum(group.votes for group in groups) <= len(found)
    records = [record_of(node) for node in tree.nodes.values()]
    assert tally(tree_of(records), StrategyName.MAJORITY) == groups
    display = TreeDisplay(PROBLEM)
    display.add([each.view() for each in records])
    assert is_harmless(display.render(99))
    for each in records:
        for event in (node_event(each.view()), answer_event(each.view())):
            orjson.dumps(event.data)


def is_harmless(shown: RenderableType) -> bool:
    """Whether a terminal that shows it is left as it was."""
    console = Console(width=80, file=io.StringIO())
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return not set(console.file.getvalue()) & {"\x00", "\x07", "\x1b", "\x85", "\u202e"}


@settings(LOOSE, max_examples=15)
@given(st.lists(PROGRAMS, min_size=1, max_size=2), HOSTILE)
def test_a_proof_is_sealed_checked_and_shown(steps: list[str], text: str) -> None:
    # What ran is text, and so is what it printed: the sandbox takes and gives nothing else.
    steps, printed = [replace_unstorable(step) for step in steps], replace_unstorable(text)
    program = proof_program(steps, [printed] * len(steps), 1, [answer_key_of(printed)])
    proof = bundle(programs=[program], answer=printed)
    checks = [*check_bundle(orjson.loads(proof.model_dump_json()), proof)]
    checks += [
        check_outputs(1, program, ran(*[("ok", printed)] * len(steps))),
        check_outputs(1, program, ran(*[("error", "")] * len(steps), stderr=printed)),
        check_answers(1, program, [answer_key_of(printed + "7")]),
        check_behaviour(proof, proof.programs),
        check_level(proof, proof.programs),
    ]
    assert checks[0].holds
    assert is_harmless("\n".join(clean(check.detail) for check in checks))
    result = {"id": "1", "state": "solved_verified", "problem": PROBLEM, "strategy": "mcts", "seed": 0}
    shown = {
        "answer": printed,
        "program": program_of(steps),
        "reason": printed,
        "created_at": datetime.now(UTC),
    }
    assert is_harmless(solution(SearchResult.model_validate(result | shown)))


@LOOSE
@given(st.lists(st.tuples(PROGRAMS, HOSTILE), min_size=1, max_size=4), st.booleans())
def test_training_data_is_chosen(found: list[tuple[str, str]], trained_prm: bool) -> None:
    nodes = [record(text, answer, number) for number, (text, answer) in enumerate(found, 1)]
    problem = RoundProblem(0, PROBLEM, "36", "rolls", 1, "nano:train:0")
    searched = find([(0, [root(), *nodes]), (1, [root(), *nodes])])
    choice = Choice(searched, Selection(how=SelectBy.UNVERIFIED), trained_prm=trained_prm, seed=0)
    while asked := choice.ask():
        for each in asked:
            clean_run(each.steps)
            choice.tell(each, verdict(behaviour_of(each.steps, each.answer, [answer_key_of(each.answer)])))
    Card().count(problem, searched, choice)
    rules = Selection(quarantine_programs=2, quarantine_prm=0.0)
    behaviours = {each.fingerprint: Behaviour((), True, "alike") for each in suspects(searched, rules)}
    disagreement(searched, rules, behaviours)
