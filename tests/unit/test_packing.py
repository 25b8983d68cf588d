"""Packing: every example is trained on once an epoch, in rows that fit, and sees itself alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from services.trainer.training.sft_rows import (
    IGNORED,
    LEAST_ROW,
    Example,
    collate,
    forward_passes,
    optimizer_steps,
)
from tests.models import make_checkpoint

LENGTHS = st.lists(st.integers(min_value=2, max_value=700), min_size=1, max_size=60)


def example(length: int, start: int = 5) -> Example:
    return Example([start + (7 * place) % 200 for place in range(length)], length // 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("packing") / "random")


def load(checkpoint: Path, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, attn_implementation=attention, dtype=torch.float32
    ).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_of_packed_examples_are_those_of_the_examples_alone(checkpoint: Path, attention: str) -> None:
    model = load(checkpoint, attention)
    rows = [[example(40), example(25, 9), example(30, 17)], [example(50, 3), example(12, 30)]]
    batch = collate(rows)
    with torch.inference_mode():
        packed = model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).logits
        for number, row in enumerate(rows):
            start = 0
            for each in row:
                alone = model(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0]
                torch.testing.assert_close(
                    packed[number, start : start + len(each)], alone, atol=1e-4, rtol=1e-4
                )
                start += len(each)


def test_without_positions_the_second_example_would_see_the_first(checkpoint: Path) -> None:
    # What the test above would look like if there were no block mask.
    model = load(checkpoint, "sdpa")
    first, second = example(40), example(25, 9)
    with torch.inference_mode():
        joined = model(input_ids=collate([[first, second]]).ids, use_cache=False).logits[0, 40:]
        alone = model(input_ids=torch.tensor([second.ids]), use_cache=False).logits[0]
    assert (joined - alone).abs().max() > 0.1


def test_padding_changes_no_logits_and_bears_no_labels(checkpoint: Path) -> None:
    model = load(checkpoint, "sdpa")
    long, short = example(60), example(20, 9)
    batch = collate([[long], [short]])
    assert batch.labels[1, 20:].eq(IGNORED).all()
    with torch.inference_mode():
        padded = model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).logits[1, :20]
        alone = model(input_ids=torch.tensor([short.ids]), use_cache=False).logits[0]
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


def test_labels_are_the_completions_tokens_and_nothing_else() -> None:
    first, second = Example([1, 2, 3, 4, 5], 2), Example([6, 7, 8], 1)
    batch = collate([[first, second]])
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 3, 4, 5, IGNORED, 7, 8]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]


@given(LENGTHS, st.integers(min_value=1, max_value=2000))
def test_each_example_is_in_one_row_and_each_pass_within_its_tokens(
    lengths: list[int], micro_tokens: int
) -> None:
    examples = [example(length, number) for number, length in enumerate(lengths)]
    passes = forward_passes(examples, micro_tokens)
    packed = [each.ids for rows in passes for row in rows for each in row]
    assert sorted(packed) == sorted(each.ids for each in examples)
    room = max(max(lengths), min(LEAST_ROW, micro_tokens))
    for rows in passes:
        widths = [sum(map(len, row)) for row in rows]
        assert max(widths) <= room
        assert len(rows) == 1 or max(widths) * len(rows) <= micro_tokens


@given(LENGTHS, st.integers(min_value=1, max_value=5000), st.integers(min_value=1, max_value=3))
def test_an_epoch_has_each_example_once_in_steps_of_like_size(
    lengths: list[int], batch_tokens: int, epochs: int
) -> None:
    steps = optimizer_steps(lengths, batch_tokens=batch_tokens, epochs=epochs, seed=1)
    assert sorted(index for step in steps for index in step) == sorted([*range(len(lengths))] * epochs)
    for step in steps:
        assert step
        assert sum(lengths[index] for index in step) < batch_tokens + max(lengths)


def test_the_order_is_new_each_epoch_and_with_each_seed_and_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> list[int]:
        steps = optimizer_steps([10] * 50, batch_tokens=100, epochs=2, seed=seed)
        return [index for step in steps for index in step]

    assert order(1) == order(1)
    assert order(1)[:50] != order(1)[50:]
    assert order(1) != order(2)


def test_short_examples_fill_their_rows() -> None:
    passes = forward_passes([example(60 + number % 40) for number in range(100)], 4096)
    rows = [sum(map(len, row)) for each in passes for row in each]
    assert sum(rows) / (len(rows) * LEAST_ROW) > 0.9
