"""How the comparison with optillm reads its answers and chooses Ratchet's budgets."""

import pytest

from benchmarks.optillm_peer import distinct, number_in


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So 3 + 4 = 7. The final answer is 7.", "7"),
        ("The final answer is: **$1,234.50**, and not 9", "1,234.50"),
        (r"Therefore \boxed{-12} of 30", "-12"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("72", "72"),
        ("first 5, then 6", "6"),
        ("Unable to determine a valid answer.", None),
    ],
)
def test_the_number_that_a_text_gives_as_its_answer(text: str, number: str | None) -> None:
    assert number_in(text) == number


def test_budgets_that_are_about_the_same_are_one() -> None:
    assert distinct([900.2, 410.0, 450.0, 2000.0], 10_000) == [410, 900, 2000]
    assert distinct([900.2, 410.0, 450.0, 2000.0], 1000) == [410, 900]
