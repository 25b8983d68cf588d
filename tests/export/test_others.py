"""What leaves, in the hands of those who use it: datasets and TRL, Inspect AI and lm-eval, after a real round of nano.

`make test-export` runs these, in an environment of their own: they are no part of the other tests.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict, load_dataset
from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes, match
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import sandbox
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from ratchet.contracts.rounds import RoundView
from ratchet.evaluators import lm_eval as _registers  # noqa: F401
from ratchet.evaluators.inspect_ai import same_answer, search
from ratchet.problems import Problem, load
from tests.cli_process import ratchet
from tests.small_rounds import Rounds, is_over, running_rounds, trained_versions

PROBLEMS = 40
STRATEGY, TOKENS = "greedy", 200

# The first test of the module waits for a stack, a whole round and its export.
pytestmark = pytest.mark.timeout(1200)
ROUND_SECONDS = 900


@dataclass(frozen=True)
class Ran:
    """A stack that is up, and the round that it has run."""

    data: Path
    rounds: Rounds
    round: RoundView


@pytest.fixture(scope="module")
async def ran(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ran]:
    data = tmp_path_factory.mktemp("stack")
    async with running_rounds(data) as rounds:
        over = await rounds.until(await rounds.begin("exported"), is_over, ROUND_SECONDS)
        assert over.metrics.selection is not None, over.reason
        yield Ran(data, rounds, over)


@pytest.fixture(autouse=True)
def _the_stack_is_known(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_DATA", str(ran.data))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("INSPECT_DISPLAY", "none")


@pytest.fixture(scope="module")
async def exported(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run's data by format, and its policy."""
    folder = tmp_path_factory.mktemp("exported")
    for format_ in ("jsonl", "parquet"):
        asked = (
            "export",
            str(folder / format_),
            "--data",
            str(ran.data),
            "--format",
            format_,
            "--style",
            "markers",
        )
        done = await asyncio.to_thread(ratchet, *asked)
        assert done.returncode == 0, done.stderr
    version = trained_versions(ran.round)["policy"]
    model = ("models", "export", version, str(folder / "policy"), "--data", str(ran.data))
    done = await asyncio.to_thread(ratchet, *model)
    assert done.returncode == 0, done.stderr
    return {name: folder / name for name in ("jsonl", "parquet", "policy")}


def loaded(folder: Path, kind: str, cache: Path) -> DatasetDict:
    return load_dataset(str(folder), kind, cache_dir=str(cache / folder.name))


@pytest.mark.parametrize(
    "kind", ["messages", "prompt_completion", "preference", "stepwise", "kto", "verified"]
)
def test_every_kind_loads_and_both_formats_hold_the_same(
    exported: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    by_format = [loaded(exported[name], kind, tmp_path) for name in ("jsonl", "parquet")]
    assert by_format[0]["train"].num_rows > 0
    assert by_format[0]["train"].features == by_format[1]["train"].features
    for split, rows in by_format[0].items():
        assert rows.to_list() == by_format[1][split].to_list()
    if kind == "stepwise":
        for row in by_format[0]["train"]:
            assert len(row["completions"]) == len(row["labels"]) == len(row["soft_labels"])


@pytest.mark.parametrize(
    ("kind", "trainer", "config", "own"),
    [
        ("prompt_completion", SFTTrainer, SFTConfig, {"max_length": 256}),
        ("preference", DPOTrainer, DPOConfig, {"max_length": 256}),
        ("kto", KTOTrainer, KTOConfig, {"max_length": 256}),
    ],
)
def test_a_step_of_training_in_trl(
    exported: dict[str, Path], kind: str, trainer: Any, config: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    rows = loaded(exported["jsonl"], kind, tmp_path)["train"].shuffle(seed=0)
    model = AutoModelForCausalLM.from_pretrained(exported["policy"])
    tokenizer = AutoTokenizer.from_pretrained(exported["policy"])
    before = {name: value.clone() for name, value in model.named_parameters()}
    settings = config(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        **own,
    )
    trained = trainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    result = trained.train()
    assert math.isfinite(result.training_loss)
    moved = [name for name, value in trained.model.named_parameters() if not value.equal(before[name])]
    assert moved


# --- evaluators ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return load(f"nano:held_out?count={PROBLEMS}&seed=5").problems


@pytest.fixture(scope="module")
async def accuracy(ran: Ran, problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> float:
    """What `ratchet eval` measures on the problems."""
    folder = tmp_path_factory.mktemp("eval")
    file = folder / "problems.jsonl"
    lines = [json.dumps({"problem": each.text, "answer": each.answer}) for each in problems]
    file.write_text("\n".join(lines) + "\n")
    asked = ("eval", str(file), "--strategy", STRATEGY, "--tokens", str(TOKENS), "--data", str(ran.data))
    done = await asyncio.to_thread(ratchet, *asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["n"] == PROBLEMS
    found: float = summary["accuracy"]
    # Of all or of none any evaluator would say the same.
    assert 0 < found < 1
    return found


def samples(problems: list[Problem]) -> list[Sample]:
    return [Sample(input=each.text, target=each.answer, id=each.id) for each in problems]


def inspected(log: Any, scorer: str) -> float:
    assert log.status == "success", log.error
    [score] = [each for each in log.results.scores if each.name.rpartition("/")[2] == scorer]
    assert log.results.completed_samples == PROBLEMS
    value: float = score.metrics["accuracy"].value
    return value


async def test_inspect_measures_with_the_model_what_ratchet_measures(
    accuracy: float, problems: list[Problem], tmp_path: Path
) -> None:
    task = Task(dataset=samples(problems), scorer=[same_answer(), match(numeric=True)])
    [log] = await eval_async(
        task,
        model=f"ratchet/{STRATEGY}",
        model_args={"tokens": TOKENS},
        log_dir=str(tmp_path),
    )
    assert inspected(log, "same_answer") == pytest.approx(accuracy)
    assert inspected(log, "match") == pytest.approx(accuracy)
    [usage] = log.stats.model_usage.values()
    assert usage.output_tokens > PROBLEMS


async def test_inspect_measures_with_the_solver_what_ratchet_measures(
    accuracy: float, problems: list[Problem], tmp_path: Path
) -> None:
    task = Task(
        dataset=samples(problems),
        solver=search(strategy=STRATEGY, tokens=TOKENS),
        scorer=same_answer(),
    )
    [log] = await eval_async(task, model="none/none", log_dir=str(tmp_path))
    assert inspected(log, "same_answer") == pytest.approx(accuracy)


async def test_lm_eval_measures_what_ratchet_measures(
    accuracy: float, problems: list[Problem], tmp_path: Path
) -> None:
    lines = [json.dumps({"question": each.text, "answer": each.answer}) for each in problems]
    (tmp_path / "test.jsonl").write_text("\n".join(lines) + "\n")
    # As gsm8k is: a prompt around the question, and a filter that looks for the last line.
    (tmp_path / "nano_words.yaml").write_text(
        f"""
task: nano_words
dataset_path: json
dataset_kwargs:
  data_files:
    test: {tmp_path / "test.jsonl"}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["Question:"]
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"
      - function: take_first
num_fewshot: 0
"""
    )
    found = await asyncio.to_thread(
        simple_evaluate,
        model="ratchet",
        model_args=f"strategy={STRATEGY},tokens={TOKENS},concurrency=8",
        tasks=["nano_words"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    assert found["results"]["nano_words"]["exact_match,strict-match"] == pytest.approx(accuracy)


@solver
def in_the_jail() -> Solver:
    async def run(state: TaskState, generate: Generate) -> TaskState:
        jail = sandbox()
        await jail.write_file("parts/numbers.txt", "17\n25\n")
        await jail.write_file("add.py", "import sys\nprint(sum(map(int, open(sys.argv[1]))))")
        ran = [
            await jail.exec(["python", "-c", "print(6 * 7)"]),
            await jail.exec(["python3", "add.py", "parts/numbers.txt"]),
            await jail.exec(["python3", "-"], input="print(input.__name__)\nraise SystemExit(3)"),
            await jail.exec(["python3", "-c", "print(int(input()) + 2)"], input="40"),
            await jail.exec(["bash", "-c", "id"]),
            await jail.exec(["python3", "-c", "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)"]),
        ]
        state.metadata["ran"] = [(each.returncode, each.stdout, each.success) for each in ran]
        state.metadata["read"] = await jail.read_file("parts/numbers.txt")
        for file, error in (("none", FileNotFoundError), ("../../etc/passwd", PermissionError)):
            with pytest.raises(error):
                await jail.read_file(file)
        with pytest.raises(TimeoutError):
            await jail.exec(["python3", "-c", "while True: pass"], timeout=1)
        state.output.completion = ran[0].stdout
        return state

    return run


async def test_programs_of_inspect_run_in_our_jail(ran: Ran, tmp_path: Path) -> None:
    task = Task(
        dataset=[Sample(input="6 * 7?", target="42")],
        solver=in_the_jail(),
        scorer=includes(),
        sandbox="ratchet",
    )
    [log] = await eval_async(task, model="none/none", log_dir=str(tmp_path))
    assert log.status == "success", log.error
    [sample] = log.samples
    assert sample.metadata["read"] == "17\n25\n"
    *said, shell, network = sample.metadata["ran"]
    assert [tuple(each) for each in said] == [
        (0, "42\n", True),
        (0, "42\n", True),
        (3, "input\n", False),
        (0, "42\n", True),
    ]
    assert shell[0] == 127
    assert not network[2]


async def test_what_an_evaluator_searched_does_not_leave_as_training_data(
    ran: Ran, accuracy: float, tmp_path: Path
) -> None:
    asked = ("export", str(tmp_path / "out"), "--data", str(ran.data), "--from", "searches")
    done = await asyncio.to_thread(ratchet, *asked)
    assert (done.returncode, "nothing that may leave" in done.stderr) == (1, True)
