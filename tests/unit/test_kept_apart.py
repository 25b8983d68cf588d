"""Which problems are kept from both trainings."""

from services.trainer.kept_apart import held_out_problems


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
