"""Packing: every example is trained on once an epoch, in rows that fit, sees itself alone, and shares what is shared."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from services.trainer.training.sft import completion_losses
from services.trainer.training.sft_rows import (
    LEAST_ROW,
    Batch,
    Example,
    by_problem,
    collate,
    forward_passes,
    optimizer_steps,
)
from tests.models import make_checkpoint

LENGTHS = st.lists(st.integers(min_value=2, max_value=700), min_size=1, max_size=60)


def example(length: int, start: int = 5) -> Example:
    return Example([start + (7 * place) % 200 for place in range(length)], max(1, length // 3))


def chat_examples(problems: int, programs: int, *, instructions: int = 60) -> list[Example]:
    """As of a chat model: instructions, the problem, a program. Programs of one problem may begin alike."""
    found = []
    for problem in range(problems):
        prompt = [*range(10, 10 + instructions), *(80 + (problem * 5 + place) % 90 for place in range(30))]
        for program in range(programs):
            body = [200 + (program // 2 + place) % 40 for place in range(10)]
            body += [250 + (program * 9 + place * 3) % 100 for place in range(10 + 5 * program)]
            found.append(Example([*prompt, *body], len(prompt), 1 / (1 + program), problem))
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("packing") / "random")


def load(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, attn_implementation="sdpa", dtype=torch.float32
    ).eval()


def losses_alone(model: Any, each: Example) -> list[float]:
    """The loss of each of its tokens, read as a text of its own."""
    with torch.inference_mode():
        logprobs = model(torch.tensor([each.ids]), use_cache=False).logits[0].log_softmax(-1)
    return [
        -each.weight * logprobs[place - 1, each.ids[place]].item()
        for place in range(each.prompt, len(each.ids))
    ]


def losses_packed(model: Any, batch: Batch) -> list[float]:
    with torch.inference_mode():
        found: list[float] = completion_losses(model, batch, "fp32").tolist()
    return found


def test_losses_of_packed_examples_are_those_of_the_examples_alone(checkpoint: Path) -> None:
    model = load(checkpoint)
    shared = chat_examples(3, 4)
    rows = [
        [example(40), example(25, 9), example(30, 17)],
        [example(50, 3), example(12, 30)],
        shared[:7],
        # One is the beginning of another, and one is there twice.
        [shared[0], Example(shared[0].ids[:-3], shared[0].prompt), shared[0]],
    ]
    expected = [loss for row in rows for each in row for loss in losses_alone(model, each)]
    assert losses_packed(model, collate(rows)) == pytest.approx(expected, abs=1e-4)


def test_the_gradients_of_what_is_shared_are_those_of_every_example(checkpoint: Path) -> None:
    def gradient(passes: list[list[list[Example]]]) -> torch.Tensor:
        model = load(checkpoint)
        for rows in passes:
            completion_losses(model, collate(rows), "fp32").sum().backward()
        found: torch.Tensor = model.model.layers[0].mlp.up_proj.weight.grad
        return found

    examples = chat_examples(2, 3)
    alone = gradient([[[each]] for each in examples])
    torch.testing.assert_close(gradient([[examples]]), alone, atol=1e-3, rtol=1e-3)


def test_without_the_mask_the_second_example_would_see_the_first(checkpoint: Path) -> None:
    # What the test above would look like.
    model = load(checkpoint)
    second = example(25, 9)
    batch = collate([[example(40), second]])
    with torch.inference_mode():
        joined = model(input_ids=batch.ids, use_cache=False).logits[0, 40:]
        alone = model(input_ids=torch.tensor([second.ids]), use_cache=False).logits[0]
    assert (joined - alone).abs().max() > 0.1


def test_targets_are_the_completions_tokens_and_nothing_else() -> None:
    first, second = Example([1, 2, 3, 4, 5], 2, 0.5, 7), Example([6, 7, 8], 1, 1.0, 9)
    third = Example([1, 2, 3, 9], 2, 2.0, 7)
    batch = collate([[first, second, third]])
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    row, place, token, problem = batch.targets.tolist()
    assert row == [0] * 7
    assert [batch.ids[0, batch.kept[at]].item() for at in place] == [2, 3, 4, 6, 7, 2, 3]
    assert token == [3, 4, 5, 7, 8, 3, 9]
    assert problem == [7, 7, 7, 9, 9, 7, 7]
    assert batch.weights.tolist() == [0.5] * 3 + [1.0] * 2 + [2.0] * 2


@given(LENGTHS, st.integers(min_value=1, max_value=2000))
def test_each_example_is_in_one_row_and_each_pass_within_its_tokens(
    lengths: list[int], micro_tokens: int
) -> None:
    examples = [
        Example(example(length, number % 7).ids, 1, problem=number // 3)
        for number, length in enumerate(lengths)
    ]
    passes = forward_passes(examples, micro_tokens)
    packed = [each for rows in passes for row in rows for each in row]
    assert sorted(map(id, packed)) == sorted(map(id, examples))
    for rows in passes:
        width = collate(rows).ids.shape[1]
        assert width <= max(*lengths, micro_tokens)
        assert len(rows) == 1 or width * len(rows) <= micro_tokens


@given(LENGTHS, st.integers(min_value=1, max_value=5000), st.integers(min_value=1, max_value=3))
def test_an_epoch_has_each_problem_once_in_steps_of_like_size(
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
    examples = [Example([number] * (60 + number % 40), 1, problem=number) for number in range(100)]
    rows = [sum(map(len, row)) for each in forward_passes(examples, 4096) for row in each]
    assert sum(rows) / (len(rows) * LEAST_ROW) > 0.9


def test_a_prompt_is_read_once_for_all_its_programs_and_instructions_once_a_row() -> None:
    examples = chat_examples(40, 4)
    assert [len(each) for each in by_problem(examples)] == [4] * 40
    read = sum(collate(rows).ids.numel() for rows in forward_passes(examples, 1024))
    assert read < 0.45 * sum(map(len, examples))
