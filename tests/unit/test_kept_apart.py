"""Which problems are kept from both trainings."""

from pathlib import Path

import pytest

from ratchet.round_files import KEPT_APART_FILE
from services.trainer.kept_apart import held_out_problems
from services.trainer.stages import train
from services.trainer.stages.context import RoundFailedError


def test_problems_are_held_out_by_their_id_and_mostly_stay_so() -> None:
    ids = [f"problem {number}" for number in range(500)]

    def kept_out(known: list[str], seed: int = 0) -> set[str]:
        return held_out_problems(known, fraction=0.1, at_least=20, seed=seed)

    assert len(kept_out(ids)) == 50
    assert len(kept_out(ids[:100])) == 20
    assert len(kept_out(ids[:10])) == 5
    assert kept_out(ids) == kept_out(ids[::-1] + ids)
    assert kept_out(ids) != kept_out(ids, seed=1)
    # With more problems of the same kind most of those that were held out still are.
    assert len(kept_out(ids[:400]) & kept_out(ids)) >= 0.9 * 40


def test_the_prm_is_judged_by_the_problems_in_the_rounds_file_and_a_damaged_one_fails_the_round(
    tmp_path: Path,
) -> None:
    file = tmp_path / KEPT_APART_FILE
    # A round that an older version has selected for has none.
    assert train._ids(file) == []
    file.write_text('["a", "b"]\n')
    assert train._ids(file) == ["a", "b"]
    for damaged in ('["a", ', '{"a": 1}', "[1]"):
        file.write_text(damaged)
        with pytest.raises(RoundFailedError, match=r"kept_apart\.json cannot be read"):
            train._ids(file)
