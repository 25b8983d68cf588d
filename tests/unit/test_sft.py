"""Fine-tuning on a tiny random model: the loss is that of completions, and neither kills nor bad input do harm."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet.contracts.policy import Prefix
from ratchet.contracts.training import Lora, SftConfig
from ratchet.models.checkpoint import local_checkpoint
from ratchet.models.prompts import choose
from ratchet.solutions.step_formats import CONFIG_KEY, Markers
from services.policy.engines.transformers import TransformersEngine
from services.trainer.training import checkpoints, loop, sft
from services.trainer.training.checkpoints import copy_tokenizer
from services.trainer.training.jobs import (
    ERROR_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    Progress,
    SftJob,
    SftResult,
    TrainingFailedError,
    run_job,
)
from services.trainer.training.sft import Demonstration, completion_losses, encode, train
from services.trainer.training.sft_rows import collate, forward_passes, optimizer_steps
from tests.models import make_checkpoint

CONFIG = SftConfig(
    epochs=2,
    lr=3e-3,
    batch_tokens=600,
    micro_tokens=512,
    max_length=512,
    dtype="fp32",
    save_every_steps=2,
    threads=1,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sft") / "base")


def demonstrations(count: int = 24) -> list[dict[str, Any]]:
    return [
        {
            "id": f"cups-{number}",
            "problem": f"A shelf holds {number} boxes of 12 cups. 5 cups are broken. How many are whole?  ",
            "steps": [
                f"# Step 1: Count all cups.\ncups = {number} * 12",
                "# Step 2: Take away the broken ones.\nprint(cups - 5)",
            ],
            "q": 0.5,
        }
        for number in range(2, 2 + count)
    ]


def written(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def job(base: Path, tmp_path: Path) -> SftJob:
    data = written(tmp_path / "data.jsonl", demonstrations())
    return SftJob(base=base, data=data, out=tmp_path / "out", step_format="markers", config=CONFIG)


def configured(job: SftJob, **changes: Any) -> SftJob:
    return job.model_copy(update={"config": job.config.model_copy(update=changes)})


def fails(job: SftJob) -> str:
    """Run the job as its process does; the reason that it leaves."""
    file = job.data.with_name("job.json")
    file.write_text(job.model_dump_json())
    assert run_job(SftJob, train, ["sft", str(file)]) == 1
    assert not (job.out / RESULT_FILE).exists()
    assert not (job.out / "model").exists()
    reason: str = json.loads((job.out / ERROR_FILE).read_text())["reason"]
    return reason


def weights(job: SftJob) -> dict[str, torch.Tensor]:
    return load_file(job.out / "model" / "model.safetensors")


# --- what is learned -------------------------------------------------------------------------------------------------


async def test_a_completion_begins_where_the_policy_service_lets_the_model_begin(base: Path) -> None:
    engine = TransformersEngine(base, "test", device="cpu")
    await engine.start()
    tokenizer = AutoTokenizer.from_pretrained(base)
    # Line breaks, blanks and letters on both sides of the boundary, where a tokenizer could merge.
    for problem in ("How many?", "What is 1 +\n 1 =", "x ", "Ends with a break.\n"):
        steps = ["    indented = 1", "# Two lines.\n\nx = 2", "print(x)"]
        example = encode(tokenizer, Markers(), Demonstration(id="1", problem=problem, steps=steps))
        prompts = [
            Markers().render(Prefix(problem=problem, steps=steps[:count])) for count in range(len(steps) + 1)
        ]
        seen = engine.encode(prompts)
        assert seen[0] == example.ids[: example.prompt]
        for ids in seen[1:]:
            assert ids == example.ids[: len(ids)]
        text = tokenizer.decode(example.ids)
        assert text == prompts[-1] + "<end_of_code>" + tokenizer.eos_token
    await engine.stop()


def test_the_loss_is_the_mean_over_completion_tokens(base: Path, job: SftJob) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [encode(tokenizer, Markers(), Demonstration.model_validate(line)) for line in demonstrations()]
    by_hand = []
    with torch.inference_mode():
        for example in examples:
            logprobs = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
            by_hand += [
                -logprobs[place - 1, example.ids[place]].item()
                for place in range(example.prompt, len(example.ids))
            ]
        passes = forward_passes(examples, 700)
        assert len(passes) > 2
        total = sum(completion_losses(model, collate(rows), "fp32").sum().item() for rows in passes)
    assert total == pytest.approx(sum(by_hand), rel=1e-5)

    # The same, as the training reports it: one step over all.
    result = train(configured(job, epochs=1, batch_tokens=100_000))
    assert result.losses == [pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)]


def test_prompt_tokens_are_no_targets(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [
        encode(tokenizer, Markers(), Demonstration.model_validate(line)) for line in demonstrations(3)
    ]
    (rows,) = forward_passes(examples, 10_000)
    batch = collate(rows)
    seen: list[torch.Tensor] = []
    real = model.lm_head.forward

    def watched(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = real(hidden)
        logits.retain_grad()
        seen.append(logits)
        return logits

    model.lm_head.forward = watched
    completion_losses(model, batch, "fp32").sum().backward()
    assert seen[0].grad is not None
    learned = int((seen[0].grad.abs().sum(-1) > 0).sum())
    assert learned == sum(len(each) - each.prompt for each in examples)


def test_it_learns_and_the_result_says_what_was_done(job: SftJob) -> None:
    told: list[Progress] = []
    result = train(configured(job, epochs=6), on_progress=told.append)
    assert result.final_loss < 0.5 * result.losses[0]
    assert (result.examples, result.dropped_too_long, result.epochs) == (24, 0, 6)
    assert len(result.losses) == result.steps
    lines = (job.out / PROGRESS_FILE).read_text().splitlines()
    assert [Progress.model_validate_json(line) for line in lines] == told
    assert (told[-1].step, told[-1].steps, told[-1].tokens) == (result.steps, result.steps, result.tokens)
    model = job.out / "model"
    assert result.sha256 == local_checkpoint(model, job.out).sha256
    assert choose("auto", model).name == "markers"
    assert (model / "tokenizer.json").read_bytes() == (job.base / "tokenizer.json").read_bytes()
    assert not (job.out / "checkpoints").exists()


def test_how_a_step_is_cut_into_passes_changes_nothing(job: SftJob) -> None:
    whole = train(configured(job, micro_tokens=100_000))
    cut = train(configured(job, micro_tokens=128))
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)


def test_bf16_and_checkpointing_follow_fp32(job: SftJob) -> None:
    exact = train(job)
    rough = train(configured(job, dtype="bf16", gradient_checkpointing=True))
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)
    assert rough.losses != exact.losses


def test_lora_is_merged_and_the_base_keeps_its_dtype(job: SftJob, tmp_path: Path) -> None:
    base = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.bfloat16).save_pretrained(base)
    copy_tokenizer(job.base, base)
    job = configured(job.model_copy(update={"base": base}), lora=Lora(r=4, alpha=8), epochs=6, dtype="bf16")
    result = train(job)
    assert result.final_loss < 0.9 * result.losses[0]
    before, after = load_file(base / "model.safetensors"), weights(job)
    assert before.keys() == after.keys()
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj.weight" in name}
    assert json.loads((job.out / "model" / "config.json").read_text())[CONFIG_KEY] == "markers"


def test_two_processes_learn_what_one_does(job: SftJob, tmp_path: Path) -> None:
    # In a step of one example the second process has no share.
    job = configured(job, batch_tokens=90, micro_tokens=80, epochs=1, save_every_steps=1000, validations=2)
    others = [line | {"id": f"other-{line['id']}"} for line in demonstrations(5)]
    job = job.model_copy(update={"validation": written(tmp_path / "validation.jsonl", others)})
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    lengths = [
        len(encode(tokenizer, Markers(), Demonstration.model_validate(line))) for line in demonstrations()
    ]
    plan = optimizer_steps(lengths, batch_tokens=90, epochs=1, seed=CONFIG.seed)
    assert {len(step) for step in plan} == {1, 2}
    one = train(job)
    job = job.model_copy(update={"out": tmp_path / "two"})
    file = tmp_path / "two.json"
    file.write_text(job.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "services.trainer.training.sft", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = SftResult.model_validate_json((job.out / RESULT_FILE).read_bytes())
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    assert two.tokens == one.tokens
    assert one.validation is not None
    assert two.validation is not None
    assert two.validation.nll == pytest.approx(one.validation.nll, rel=1e-4) != one.validation.base_nll
    assert (two.validation.step, two.validation.scale) == (one.validation.step, one.validation.scale)


# --- the same again --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(job: SftJob, tmp_path: Path) -> None:
    first = train(job).sha256
    assert train(job.model_copy(update={"out": tmp_path / "again"})).sha256 == first
    other = configured(job, seed=1).model_copy(update={"out": tmp_path / "other"})
    assert train(other).sha256 != first


class Killed(BaseException):
    """Stands for a kill right after a checkpoint was written: nothing may catch it."""


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8, dropout=0.3)])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    job: SftJob, tmp_path: Path, lora: Lora | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = configured(job, lora=lora)
    whole = train(job.model_copy(update={"out": tmp_path / "whole"}))
    save = checkpoints.save_state

    def save_and_die(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(Killed):
        train(job)
    assert not (job.out / "model").exists()
    monkeypatch.undo()
    steps: list[int] = []
    gradients = sft._gradients

    def counted(*args: Any) -> Any:
        steps.append(1)
        return gradients(*args)

    monkeypatch.setattr(sft, "_gradients", counted)
    resumed = train(job)
    assert len(steps) == whole.steps - CONFIG.save_every_steps
    assert (resumed.sha256, resumed.losses) == (whole.sha256, whole.losses)


def test_a_job_that_is_done_is_not_trained_again_but_a_changed_one_is(job: SftJob) -> None:
    told: list[Progress] = []
    first = train(job, on_progress=told.append)
    count = len(told)
    assert train(job, on_progress=told.append) == first
    assert len(told) == count
    written(job.data, demonstrations(12))
    second = train(job, on_progress=told.append)
    assert (second.examples, len(told) > count) == (12, True)
    assert len((job.out / PROGRESS_FILE).read_text().splitlines()) == len(told) - count


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_training_that_diverges_stops_and_keeps_its_last_checkpoint(job: SftJob) -> None:
    reason = fails(configured(job, lr=1e30, save_every_steps=1, warmup_ratio=0.0))
    assert "diverged" in reason
    assert "Lower lr" in reason
    assert [path.name for path in (job.out / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_base_with_nan_in_it_fails_at_once(job: SftJob, tmp_path: Path) -> None:
    base = Path(shutil.copytree(job.base, tmp_path / "nan"))
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert "at step 1 " in fails(job.model_copy(update={"base": base}))


def test_a_base_that_lacks_a_weight_is_refused(job: SftJob, tmp_path: Path) -> None:
    base = Path(shutil.copytree(job.base, tmp_path / "partial"))
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    reason = fails(job.model_copy(update={"base": base}))
    assert "lacks weights: model.norm.weight" in reason


def test_a_base_that_is_no_checkpoint_is_refused(job: SftJob, tmp_path: Path) -> None:
    assert "no config.json" in fails(job.model_copy(update={"base": tmp_path / "none"}))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to write more; a full disk differs only in the error's number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save_every_steps", [2, 1000])
def test_a_full_disk_is_named_and_the_job_ends_when_there_is_room(job: SftJob, save_every_steps: int) -> None:
    # Too small for a checkpoint or, in the second case, for the model; large enough for error.json.
    job = configured(job, save_every_steps=save_every_steps)
    with files_of_at_most(50_000):
        reason = fails(job)
    assert "disk is full" in reason
    train(job)
    assert not (job.out / ERROR_FILE).exists()


def test_too_little_memory_is_named(job: SftJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any) -> Any:
        # More than any machine's address space, so torch's allocator raises its own error.
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(sft, "collate", too_large)
    assert "lower them" in fails(job)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "nothing to train on"),
        ([{"id": "1", "problem": "How many?", "steps": []}], r"Line 1 .*\(steps: "),
        ([{"id": "1", "problem": "How many?", "steps": ["print(1)" * 400]}], "None of 1 demonstrations fits"),
    ],
)
def test_data_that_teach_nothing_are_refused(job: SftJob, lines: list[dict[str, Any]], told: str) -> None:
    written(job.data, lines)
    with pytest.raises(TrainingFailedError, match=told):
        train(job)


def test_missing_data_are_named(job: SftJob) -> None:
    job.data.unlink()
    assert "No such file" in fails(job)


def test_examples_that_are_too_long_are_dropped_and_counted(job: SftJob) -> None:
    long = {"id": "long", "problem": "How many?", "steps": ["print(1)" * 400]}
    written(job.data, [*demonstrations(), long])
    result = train(job)
    assert (result.examples, result.dropped_too_long) == (24, 1)
