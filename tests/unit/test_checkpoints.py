"""Checkpoints: whole or not there, and a training that is put back goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ratchet.models.checkpoint import local_checkpoint
from services.trainer.files import write_atomically
from services.trainer.training.checkpoints import checkpoint_sha256, load_state, save_state
from services.trainer.training.jobs import TrainingFailedError
from tests.models import make_checkpoint

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from services.trainer.training.checkpoints import write_atomically

def fill(folder):
    (folder / "weights").write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), fill)
"""


def writes(text: str):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / "weights").write_text(text)


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_atomically(target, writes("one"))
    write_atomically(target, writes("two"))
    assert (target / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_write_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_atomically(target, writes("one"))

    def fill(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(target, fill)
    assert (target / "weights").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_atomically(target, writes("one"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(target)], cwd=Path.cwd(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (target / "weights").read_text() == "one"
    # The rest of the killed writer is in nobody's way.
    write_atomically(target, writes("two"))
    assert (target / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_atomically(target, writes("one"))
    target.rename(tmp_path / ".model.old")
    with pytest.raises(OSError, match="full"):
        write_atomically(target, lambda _: (_ for _ in ()).throw(OSError("full")))
    assert (target / "weights").read_text() == "one"


def test_the_digest_is_the_one_that_the_services_report(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    assert checkpoint_sha256(folder) == local_checkpoint(folder, tmp_path / "cache").sha256
    with pytest.raises(TrainingFailedError, match=r"no config\.json"):
        checkpoint_sha256(tmp_path)


class Training:
    """A small training with dropout, so that it depends on all of weights, optimizer, schedule and random numbers."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (step + 1))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.model(torch.ones(3, 4)).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()

    def save(self, folder: Path, step: int, job: str = "a") -> None:
        tensors = dict(self.model.named_parameters())
        save_state(
            folder,
            job=job,
            step=step,
            tensors=tensors,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            notes={"losses": [0.1]},
            kept={"0.bias": torch.arange(8.0)},
        )


def test_a_training_that_is_put_back_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = Training()
    whole.run(3)
    whole.save(tmp_path, 3)
    whole.run(4)

    resumed = Training()
    torch.manual_seed(99)
    state = load_state(tmp_path, job="a", optimizer=resumed.optimizer, scheduler=resumed.scheduler)
    assert state is not None
    assert (state.step, state.notes) == (3, {"losses": [0.1]})
    assert state.kept.keys() == {"0.bias"}
    assert torch.equal(state.kept["0.bias"], torch.arange(8.0))
    resumed.model.load_state_dict(state.tensors)
    resumed.run(4)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_the_newest_state_is_kept_and_none_of_another_job_is_read(tmp_path: Path) -> None:
    training = Training()
    for step in (1, 2, 10):
        training.run(1)
        training.save(tmp_path, step)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert all(file.suffix in (".safetensors", ".json") for file in (tmp_path / "step-00000010").iterdir()), (
        "no pickles"
    )
    assert load_state(tmp_path, job="b", optimizer=training.optimizer, scheduler=training.scheduler) is None


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    training = Training()
    training.run(1)
    training.save(tmp_path, 1)
    os.truncate(tmp_path / "step-00000001" / "optimizer.safetensors", 100)
    with pytest.raises(TrainingFailedError, match="delete it"):
        load_state(tmp_path, job="a", optimizer=training.optimizer, scheduler=training.scheduler)
