"""Ids of rows."""

import time

from ratchet.store.ids import new_id


def test_ids_are_uuid7_and_in_order_of_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
    assert len({new_id() for _ in range(10_000)}) == 10_000
