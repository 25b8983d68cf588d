"""Programs of problems that are kept apart say how far a fine-tuning goes; a line's weight says how much it counts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet.contracts.training import Lora, SftConfig
from ratchet.solutions.step_formats import CONFIG_KEY, Markers
from services.trainer.training import checkpoints, loop
from services.trainer.training.jobs import SftJob, SftResult, TrainingFailedError
from services.trainer.training.sft import Demonstration, encode, train
from services.trainer.training.sft_validation import SCALES, speak_against, validation_steps
from tests.models import make_checkpoint

CONFIG = SftConfig(
    epochs=3,
    lr=3e-3,
    batch_tokens=600,
    micro_tokens=512,
    max_length=512,
    dtype="fp32",
    save_every_steps=2,
    validations=4,
    threads=1,
)
LORA = Lora(r=4, alpha=16)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("validation") / "base")


@pytest.fixture(scope="module")
def skilled(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows cups in boxes already."""
    job = job_of(base, tmp_path_factory.mktemp("skilled"), cups(*range(2, 30)), [], epochs=12)
    train(job.model_copy(update={"validation": None}))
    return job.out / "model"


def cups(*numbers: int, of: str = "boxes") -> list[dict[str, Any]]:
    """Demonstrations of one kind."""
    return [
        {
            "id": f"{of}-{number}",
            "problem": f"A shelf holds {number} {of} of 12 cups. How many cups?",
            "steps": [f"# Step 1: Count all.\ncups = {number} * 12", "# Step 2: Say it.\nprint(cups)"],
        }
        for number in numbers
    ]


def noise(*seeds: int) -> list[dict[str, Any]]:
    """Programs that nothing is in common with."""
    found = []
    for seed in seeds:
        drawn = torch.randint(33, 127, (120,), generator=torch.Generator().manual_seed(seed))
        found.append(
            {"id": f"noise-{seed}", "problem": "Anything?", "steps": ["".join(map(chr, drawn.tolist()))]}
        )
    return found


def written(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def job_of(
    base: Path, folder: Path, data: list[dict[str, Any]], validation: list[dict[str, Any]], **changes: Any
) -> SftJob:
    folder.mkdir(exist_ok=True)
    return SftJob(
        base=base,
        data=written(folder / "data.jsonl", data),
        validation=written(folder / "validation.jsonl", validation),
        out=folder / "out",
        step_format="markers",
        config=CONFIG.model_copy(update=changes),
    )


def loss_by_hand(folder: Path, lines: list[dict[str, Any]]) -> float:
    """Negative log-likelihood of the completions, nats a token, each token with its line's weight."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total = count = 0.0
    for line in map(Demonstration.model_validate, lines):
        example = encode(tokenizer, Markers(), line)
        with torch.inference_mode():
            logprobs = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
        for place in range(example.prompt, len(example.ids)):
            total -= line.weight * logprobs[place - 1, example.ids[place]].item()
            count += line.weight
    return total / count


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [(12, 4, {0, 3, 6, 9, 12}), (3, 8, {0, 1, 2, 3}), (7, 2, {0, 4, 7}), (1, 1, {0, 1})],
)
def test_points_lie_at_even_distances_from_the_base_to_the_last_step(
    steps: int, count: int, expected: set[int]
) -> None:
    assert validation_steps(steps, count) == expected


@pytest.mark.parametrize(
    ("losses", "against"),
    [
        ([1.0, 2.0, 3.0], False),
        ([0.9, 2.0, 3.0], False),
        # Alike in all problems: sure.
        ([1.01, 2.01, 3.01], True),
        # One problem alone is worse, the others are not: by chance.
        ([1.0, 2.0, 3.3], False),
        ([1.0, 1.9, 3.2], False),
        ([1.1, 2.0, 3.3], False),
        ([1.1, 2.1, 3.2], True),
    ],
)
def test_a_point_is_left_when_the_paired_losses_of_problems_speak_against_it(
    losses: list[float], against: bool
) -> None:
    assert speak_against(losses, [1.0, 2.0, 3.0], 2.0) is against
    assert speak_against(losses, [1.0, 2.0, 3.0], 0.0) is (sum(losses) > 6.0), "the least loss"


def test_one_problem_has_the_last_word() -> None:
    assert speak_against([1.1], [1.0], 2.0)
    assert not speak_against([1.0], [1.0], 2.0)


@pytest.mark.parametrize("lora", [None, LORA])
def test_what_is_kept_is_what_the_validation_problems_do_not_speak_against(
    base: Path, tmp_path: Path, lora: Lora | None
) -> None:
    validation = [cups(40)[0] | {"weight": 0.25}, *cups(41, 42)]
    result = train(job_of(base, tmp_path, cups(*range(2, 26)), validation, lora=lora))
    told = result.validation
    assert told is not None
    assert (told.problems, told.programs) == (3, 3)
    assert told.curve[0].step == 0
    assert told.curve[-1].step == result.steps
    assert len(told.curve) == min(result.steps, CONFIG.validations * CONFIG.epochs) + 1
    assert told.base_nll == told.curve[0].nll == pytest.approx(loss_by_hand(base, validation), rel=1e-4)
    assert told.step > 0
    assert told.scale in SCALES[1:]
    best = min(point.nll for point in told.curve)
    assert max(best, told.nll) < 0.9 * told.base_nll
    # The checkpoint is what was chosen.
    assert told.nll == pytest.approx(loss_by_hand(tmp_path / "out" / "model", validation), rel=1e-3)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_training_that_only_harms_leaves_the_base(skilled: Path, tmp_path: Path, lora: Lora | None) -> None:
    result = train(job_of(skilled, tmp_path, noise(*range(8)), cups(*range(40, 48)), lr=0.03, lora=lora))
    told = result.validation
    assert told is not None
    assert (told.step, told.scale, told.nll) == (0, 0.0, told.base_nll)
    assert all(point.nll > told.base_nll for point in told.curve[1:])
    before, after = weights(skilled), weights(tmp_path / "out" / "model")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config[CONFIG_KEY] == "markers"


@pytest.mark.parametrize("lora", [None, LORA])
def test_half_a_step_is_taken_where_a_whole_one_goes_too_far(
    base: Path, tmp_path: Path, lora: Lora | None
) -> None:
    # Steps so long that they overshoot.
    job = job_of(
        base,
        tmp_path,
        cups(*range(2, 8)),
        cups(40, 41),
        lr=0.1,
        epochs=2,
        batch_tokens=10_000,
        warmup_ratio=0.0,
        schedule="constant",
        lora=lora,
    )
    result = train(job)
    told = result.validation
    assert told is not None
    assert 0 < told.scale < 1
    assert told.nll < min(point.nll for point in told.curve)
    assert told.nll == pytest.approx(loss_by_hand(tmp_path / "out" / "model", cups(40, 41)), rel=1e-3)


class Killed(BaseException):
    """Stands for a kill right after a checkpoint was written: nothing may catch it."""


@pytest.mark.parametrize("lora", [None, LORA])
def test_an_interrupted_training_chooses_what_it_would_have_chosen(
    skilled: Path, tmp_path: Path, lora: Lora | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It helps at first and then harms, so that the weights that are kept are older than the checkpoint.
    data, validation = cups(2, 3, 4, of="bags"), cups(60, 61, 62, of="bags")
    rates = {"lr": 0.01, "schedule": "constant", "warmup_ratio": 0.0}
    changes = rates | {"epochs": 12, "batch_tokens": 10_000, "save_every_steps": 10, "lora": lora}
    changes["validation_errors"] = 0.0
    whole = train(job_of(skilled, tmp_path / "whole", data, validation, **changes))
    assert whole.validation is not None
    assert 0 < whole.validation.step < 10

    job = job_of(skilled, tmp_path / "killed", data, validation, **changes)
    save = checkpoints.save_state

    def save_and_die(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(Killed):
        train(job)
    monkeypatch.undo()
    resumed = train(job)
    assert (resumed.sha256, resumed.validation) == (whole.sha256, whole.validation)


def test_a_line_of_weight_two_counts_as_two_lines(base: Path, tmp_path: Path) -> None:
    lines = cups(*range(2, 8))
    once = {"epochs": 1, "batch_tokens": 100_000, "schedule": "constant", "warmup_ratio": 0.0}
    twice = [*lines, lines[0] | {"id": "again"}]
    weighted = [lines[0] | {"weight": 2.0}, *lines[1:]]
    halved = [line | {"weight": line.get("weight", 1.0) / 2} for line in weighted]
    results: list[SftResult] = []
    for name, data in (("twice", twice), ("weighted", weighted), ("halved", halved), ("plain", lines)):
        job = job_of(base, tmp_path / name, data, cups(40), **once)
        results.append(train(job.model_copy(update={"validation": None})))
    assert results[1].losses == pytest.approx(results[0].losses, rel=1e-5)
    assert results[2].losses == pytest.approx(results[1].losses, rel=1e-5), "only their ratio counts"
    assert results[3].losses != pytest.approx(results[1].losses, rel=1e-4)
    first, second, _, _ = (weights(tmp_path / name / "out" / "model") for name in ("twice", "weighted") * 2)
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


@pytest.mark.parametrize("weight", [0, -1, "NaN", "Infinity", None])
def test_a_weight_that_is_none_is_refused_with_its_line(base: Path, tmp_path: Path, weight: Any) -> None:
    job = job_of(base, tmp_path, [*cups(2), cups(3)[0] | {"weight": weight}], cups(40))
    with pytest.raises(TrainingFailedError, match=r"Line 2 of .*data\.jsonl .*\(weight: "):
        train(job)


def test_a_problem_may_not_judge_what_it_has_taught(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError, match=r"1 problems are in .*, boxes-3 among them"):
        train(job_of(base, tmp_path, cups(2, 3), cups(3, 4)))


def test_programs_that_are_too_long_to_be_read_judge_nothing(base: Path, tmp_path: Path) -> None:
    long = cups(40)[0] | {"steps": ["x = 1\n" * 400]}
    result = train(job_of(base, tmp_path / "one", cups(2, 3, 4), [long, *cups(41)], epochs=1))
    assert result.validation is not None
    assert (result.validation.problems, result.validation.programs) == (1, 1)
    assert train(job_of(base, tmp_path / "none", cups(2, 3, 4), [long], epochs=1)).validation is None


def test_validation_is_part_of_the_job(base: Path, tmp_path: Path) -> None:
    job = job_of(base, tmp_path, cups(2, 3, 4), cups(40), epochs=1)
    first = train(job)
    assert train(job) == first
    assert job.validation is not None
    written(job.validation, cups(41))
    second = train(job)
    assert second.job != first.job
    third = train(job.model_copy(update={"validation": None}))
    assert third.validation is None
    assert third.job not in (first.job, second.job)
