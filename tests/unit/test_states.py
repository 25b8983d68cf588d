"""The transition tables: complete, and with real beginnings and ends."""

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.states import (
    MODEL_TRANSITIONS,
    NODE_TRANSITIONS,
    ROUND_TRANSITIONS,
    SEARCH_TRANSITIONS,
    IllegalTransitionError,
    ModelState,
    NodeState,
    RoundState,
    SearchState,
    check_transition,
    is_end,
)

Table = Mapping[Any, frozenset[Any]]

# enum, table, where a life begins, where it ends
MACHINES: list[tuple[type[StrEnum], Table, Set[StrEnum], Set[StrEnum]]] = [
    (
        SearchState,
        SEARCH_TRANSITIONS,
        {SearchState.QUEUED},
        set(SearchState) - {SearchState.QUEUED, SearchState.RUNNING},
    ),
    (
        NodeState,
        NODE_TRANSITIONS,
        {NodeState.OPEN, NodeState.TERMINAL, NodeState.ABANDONED, NodeState.FAILED},
        {NodeState.EXHAUSTED, NodeState.FAILED},
    ),
    (
        RoundState,
        ROUND_TRANSITIONS,
        {RoundState.CREATED},
        {RoundState.PROMOTED, RoundState.REJECTED},
    ),
    (ModelState, MODEL_TRANSITIONS, {ModelState.CANDIDATE}, {ModelState.REJECTED}),
]
machines = pytest.mark.parametrize(
    ("states", "table", "beginnings", "ends"), MACHINES, ids=[machine[0].__name__ for machine in MACHINES]
)


@machines
def test_every_state_has_a_row(
    states: type[StrEnum], table: Table, beginnings: set[StrEnum], ends: set[StrEnum]
) -> None:
    assert set(table) == set(states)
    assert all(following <= set(states) for following in table.values())


@machines
def test_every_state_is_reached_from_a_beginning(
    states: type[StrEnum], table: Table, beginnings: set[StrEnum], ends: set[StrEnum]
) -> None:
    reached = set(beginnings)
    while more := {following for state in reached for following in table[state]} - reached:
        reached |= more
    assert reached == set(states)


@machines
def test_nothing_follows_an_end(
    states: type[StrEnum], table: Table, beginnings: set[StrEnum], ends: set[StrEnum]
) -> None:
    assert {state for state in states if is_end(table, state)} == ends


@machines
def test_every_life_can_end(
    states: type[StrEnum], table: Table, beginnings: set[StrEnum], ends: set[StrEnum]
) -> None:
    for state in states:
        reached, seen = {state}, set[StrEnum]()
        while reached - seen:
            seen = set(reached)
            reached |= {following for one in seen for following in table[one]}
        # A model that has served can always serve again: it is retired, and never over.
        served = states is ModelState and state in {ModelState.SERVING, ModelState.RETIRED}
        assert served or reached & ends, f"{state} never ends"


@given(
    st.sampled_from(MACHINES).flatmap(lambda m: st.tuples(st.just(m[1]), *[st.sampled_from(list(m[0]))] * 2))
)
def test_check_transition_allows_exactly_what_the_table_says(drawn: tuple[Table, StrEnum, StrEnum]) -> None:
    table, old, new = drawn
    if new in table[old]:
        check_transition(table, old, new)
    else:
        with pytest.raises(IllegalTransitionError, match=f"{old} -> {new}"):
            check_transition(table, old, new)
