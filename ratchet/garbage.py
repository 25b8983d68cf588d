"""Python's collector of cyclic garbage, asked to look less often."""

import gc

NEW_OBJECTS = 50_000
"""Python's own number is 700, for programs that hold little."""


def collect_less_often() -> None:
    """Look for garbage after NEW_OBJECTS new objects that stay.

    A worker with a hundred trees makes and keeps so many that looking took two fifths of its time
    (docs/measurements/search-speed.md). What waits meanwhile takes some ten MB.
    """
    _, middle, old = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, middle, old)
