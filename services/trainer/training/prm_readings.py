"""What a PRM's figures are computed from: logits of held-out trees, beside what these trees say of their own steps.

Steps without a label do not count: those that did not run, and those that a search has abandoned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet.solutions.preferences import Node, Preferences, path
from services.trainer.training.prm_network import read_nodes
from services.trainer.training.prm_pieces import Piece
from services.trainer.training.prm_quality import Array, Readings


@dataclass(frozen=True)
class HeldOut:
    """A tree that the PRM is judged by: its nodes that ran, what it says of them, and its pieces."""

    problem_id: str
    nodes: dict[str, Node]
    found: Preferences
    pieces: list[Piece]


def readings(model: Any, trees: Sequence[HeldOut], *, margin: float, tokens: int) -> Readings:
    """Read the trees in passes of so many tokens. Siblings whose Q differs by at least `margin` are pairs."""
    logits = read_nodes(model, [piece for tree in trees for piece in tree.pieces], tokens)
    numbers: dict[str, int] = {}
    steps: list[tuple[float, float, float, bool, int, int]] = []
    siblings: list[Array] = []
    ways: list[tuple[list[int], int]] = []
    for tree in trees:
        known = {node: logit for piece in tree.pieces for node, logit in logits[id(piece)].items()}
        places: dict[str, int] = {}
        depths = _depths(tree.nodes)
        for node, value in tree.found.values.items():
            if node in known:
                problem = numbers.setdefault(tree.problem_id, len(numbers))
                places[node] = len(steps)
                steps.append(
                    (known[node], value.target, value.weight, node in tree.found.ends, depths[node], problem)
                )
        siblings.append(_sibling_pairs(tree, places, margin))
        ways += _trajectories(tree, places)
    step = np.array(steps, dtype=np.float64).reshape(-1, 6).T
    paths = np.full((len(ways), max((len(way) for way, _ in ways), default=0)), -1)
    for row, (way, _) in zip(paths, ways, strict=True):
        row[: len(way)] = way
    return Readings(
        logits=step[0],
        targets=step[1],
        weights=step[2],
        is_end=step[3].astype(bool),
        depths=step[4].astype(int),
        problems=step[5].astype(int),
        siblings=np.concatenate([np.zeros((0, 2), dtype=int), *siblings]),
        paths=paths,
        first_errors=np.array([error for _, error in ways], dtype=int),
    )


def first_error(way: Sequence[str], right: bool, leading: set[str]) -> int | None:
    """The place, from 0, of the first step of a wrong trajectory through which no rollout was right; -1 for a right one.

    `leading` are the steps that lead to right ends. None where the tree has no right end, and so does not know it.
    """
    if right:
        return -1
    return next(place for place, node in enumerate(way) if node not in leading) if leading else None


def _depths(nodes: dict[str, Node]) -> dict[str, int]:
    """From 1. Parents stand before their children."""
    depths: dict[str, int] = {}
    for node in nodes.values():
        depths[node.id] = 1 if node.parent is None else depths[node.parent] + 1
    return depths


def _sibling_pairs(tree: HeldOut, places: dict[str, int], margin: float) -> Array:
    """Places of the better and the worse step, [pairs, 2]."""
    groups: dict[str | None, list[str]] = {}
    for node in places:
        groups.setdefault(tree.nodes[node].parent, []).append(node)
    found = [np.zeros((0, 2), dtype=int)]
    for group in groups.values():
        # A value is Q on a scale half as long.
        q = 2 * np.array([tree.found.values[node].target for node in group])
        better, worse = np.nonzero(q[:, None] - q[None, :] >= max(margin, 1e-9) - 1e-9)
        keep = q[better] > q[worse]
        at = np.array([places[node] for node in group])
        found.append(np.stack([at[better[keep]], at[worse[keep]]], axis=1))
    return np.concatenate(found)


def _trajectories(tree: HeldOut, places: dict[str, int]) -> Iterator[tuple[list[int], int]]:
    """Each finished trajectory as the places of its steps, and where its first error is."""
    ends = tree.found.ends
    leading = {node.id for one, right in ends.items() if right for node in path(tree.nodes, one)}
    for end, right in ends.items():
        way = [node.id for node in path(tree.nodes, end)]
        error = first_error(way, right, leading)
        if error is not None and all(node in places for node in way):
            yield [places[node] for node in way], error
