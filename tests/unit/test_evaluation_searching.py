"""How often an evaluation looks at its searches."""

from itertools import accumulate, islice

from ratchet.cli.evaluation.searching import POLL_SECONDS, SHORTEST_POLL_SECONDS, Pauses


def test_the_first_searches_are_looked_at_ever_more_seldom() -> None:
    pauses = list(islice(Pauses(), 30))
    assert pauses[0] == SHORTEST_POLL_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == POLL_SECONDS


def test_short_searches_are_seen_soon_and_long_ones_are_not_asked_all_the_time() -> None:
    for seconds in (0.3, 3.0, 60.0):
        pauses = Pauses()
        pauses.learn(seconds)
        looks = list(accumulate(islice(pauses, 200)))
        assert looks[0] == max(SHORTEST_POLL_SECONDS, seconds / 2)
        late = next(look for look in looks if look >= seconds) - seconds
        assert late <= POLL_SECONDS
        assert sum(look < seconds for look in looks) <= max(4, seconds)


def test_who_waits_already_learns_how_long_searches_take() -> None:
    pauses = Pauses()
    waits = iter(pauses)
    assert next(waits) == SHORTEST_POLL_SECONDS
    pauses.learn(60.0)
    assert next(waits) > POLL_SECONDS
