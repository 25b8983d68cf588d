"""The steps of a search whose ends were compared with a reference answer, as trainings and exports read them."""

from collections.abc import Sequence
from typing import Any

from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord


def labelled_nodes(nodes: Sequence[NodeRecord]) -> list[dict[str, Any]]:
    """The steps of a tree, the root apart; the value of an end is +1 where it is right."""
    roots = {node.id for node in nodes if node.parent is None}
    return [
        {
            "id": node.id,
            "parent": None if node.parent in roots else node.parent,
            "text": node.text,
            "ran": node.state is not NodeState.FAILED,
            "q": max(-1.0, min(1.0, node.value_sum / node.visits)) if node.visits else 0.0,
            "visits": node.visits,
            "terminal": node.answer is not None,
            # Of an end that was abandoned nobody asked whether it was right.
            "correct": None if node.answer is None or not node.visits else node.value_sum > 0,
        }
        for node in nodes
        if node.parent is not None
    ]
