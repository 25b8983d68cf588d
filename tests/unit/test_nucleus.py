"""Draws without a sort are those of the definition."""

import pytest
import torch

from services.policy.engines.nucleus import BLOCK, HEAD, draw, draw_at_once
from tests.drawn_tokens import drawn, nucleus_of

ROWS = 60


@pytest.mark.parametrize("vocabulary", [3, HEAD, 256, 1000, 40 * BLOCK, 150 * BLOCK + 7])
@pytest.mark.parametrize("rounded", [False, True])
def test_draws_are_those_of_the_definition(vocabulary: int, *, rounded: bool) -> None:
    random = torch.Generator().manual_seed(vocabulary)
    # Peaked rows, and flat ones whose nucleus is wider than the head that is looked at.
    logits = torch.randn(ROWS, vocabulary, generator=random) * torch.linspace(0.01, 12, ROWS)[:, None]
    if rounded:
        # As bf16 gives them: many tokens are as likely as others, at the nucleus's border, too.
        logits = logits.bfloat16().float()
    top_p = torch.rand(ROWS, generator=random).clamp(min=1e-6)
    top_p[::3] = 1.0
    temperature = torch.rand(ROWS, generator=random) + 0.2
    differing = 0
    for _ in range(20):
        numbers = torch.rand(ROWS, generator=random, dtype=torch.float64)
        found = draw(logits, top_p, numbers, temperature)
        differing += int((found != drawn(logits, top_p, numbers, temperature)).sum())
        inside = torch.isfinite(nucleus_of(logits / temperature[:, None], top_p + 1e-6))
        assert inside.gather(1, found[:, None]).all()
        # The first row greedy.
        at_once, known = draw_at_once(logits, top_p, numbers, temperature * (torch.arange(ROWS) > 0))
        assert known[0]
        assert at_once[0] == logits[0].argmax()
        assert (at_once == found)[known][1:].all()
        assert known[top_p >= 1].all()
    # fp32 and fp64 may put the border of two tokens, or of the nucleus, at the two sides of a number.
    assert differing <= 3


def test_the_edges_of_the_random_numbers_fall_on_tokens_that_may_be_drawn() -> None:
    logits = torch.full((4, 300), -torch.inf)
    logits[:, 140], logits[:, 141] = 1.0, 2.0
    top_p = torch.tensor([1.0, 1.0, 0.9, 0.5])
    least, most = torch.zeros(4, dtype=torch.float64), torch.full((4,), 1 - 2.0**-53, dtype=torch.float64)
    assert draw(logits, top_p, least).tolist() == [140, 140, 140, 141]
    assert draw(logits, top_p, most).tolist() == [141, 141, 141, 141]


def test_no_rows_no_tokens() -> None:
    assert draw(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.float64)).shape == (0,)
