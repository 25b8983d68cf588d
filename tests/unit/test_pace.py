"""How long a stage will take, from what it did so far."""

from services.trainer.pace import Pace


def test_the_rate_of_this_attempt_says_how_long_the_rest_takes() -> None:
    pace = Pace()
    assert pace.seconds_left(40, 100, 1000.0) is None, "an earlier attempt did the 40"
    assert pace.seconds_left(41, 100, 1000.5) is None, "too early to say"
    assert pace.seconds_left(50, 100, 1020.0) == 100.0
    assert pace.seconds_left(100, 100, 1120.0) == 0.0


def test_other_work_of_the_same_stage_has_a_rate_of_its_own() -> None:
    pace = Pace()
    pace.seconds_left(0, 100, 0.0)
    assert pace.seconds_left(50, 100, 50.0) == 50.0
    assert pace.seconds_left(50, 400, 51.0) is None
    assert pace.seconds_left(60, 400, 71.0) == 680.0
    assert pace.seconds_left(0, 400, 80.0) is None, "begun again"
    assert pace.seconds_left(0, 0, 90.0) is None
