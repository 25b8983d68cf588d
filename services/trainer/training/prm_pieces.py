"""From search trees to what a PRM is trained on: packed sequences, where they are read, and what is to be found there.

A tree becomes one piece, or, beyond `limit` tokens, several: siblings that are compared stay together, and the steps on
their way from the root are read in each part, though they count once. Shapes: T tokens of a piece, R steps that are read,
P pairs.

Limits: a group of siblings that is longer than `limit` by itself still makes one piece.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet.models.prm_head import prm_text, tokens_at
from ratchet.solutions.preferences import Node, Pair, Preferences, Tree, path
from services.trainer.training.token_trie import Array, TokenTrie


@dataclass(frozen=True)
class Piece:
    """A tree, or a part of one, as one sequence.

    `values` [R, 2] and `token_values` [T, 2] are targets and their weights, 0 where there is none or where another piece
    counts it. `better` and `worse` [P] are places in `ends` [R], the tokens that are read.
    """

    problem_id: str
    tokens: Array
    parents: list[int]
    positions: Array
    nodes: tuple[str, ...]
    ends: Array
    values: Array
    token_values: Array
    better: Array
    worse: Array
    pair_weights: Array

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class _Encoded:
    """Tokens from the root to the end of a step, and where the step's own tokens start."""

    tokens: list[int]
    start: int


def pieces(
    tree: Tree,
    nodes: dict[str, Node],
    found: Preferences,
    tokenizer: Any,
    *,
    limit: int,
    max_length: int,
) -> tuple[list[Piece], int]:
    """The pieces of a tree, and how many of its steps were left out because they end beyond `max_length` tokens.

    `nodes` are the nodes of the tree that ran, `found` its preferences.
    """
    wanted = dict.fromkeys(
        [*(one for pair in found.pairs for one in (pair.better, pair.worse)), *found.values]
    )
    if not wanted:
        return [], 0
    coded = _encode(tree, nodes, list(wanted), tokenizer)
    fits = {node: one for node, one in coded.items() if len(one.tokens) <= max_length}
    pairs = [pair for pair in found.pairs if pair.better in fits and pair.worse in fits]
    counted: set[str] = set()
    done: list[Piece] = []
    for group in _parts(_groups(nodes, pairs, [node for node in wanted if node in fits]), fits, limit):
        done.append(_piece(tree.problem_id, group, fits, found, counted))
        counted.update(done[-1].nodes)
    return done, len(coded) - len(fits)


@dataclass(frozen=True)
class _Group:
    """Steps that are read together."""

    nodes: list[str]
    pairs: list[Pair]


def _encode(tree: Tree, nodes: dict[str, Node], wanted: list[str], tokenizer: Any) -> dict[str, _Encoded]:
    """The tokens of each wanted node, from one text for each path that none of the others goes on from."""
    inner = {node.parent for node in nodes.values()}
    ways = [path(nodes, one) for one in nodes if one not in inner]
    texts = [prm_text(tree.problem, [node.text for node in way]) for way in ways]
    batch = tokenizer([text for text, _ in texts], return_offsets_mapping=True)
    coded: dict[str, _Encoded] = {}
    keep = set(wanted)
    for way, (_, ends), tokens, spans in zip(
        ways, texts, batch["input_ids"], batch["offset_mapping"], strict=True
    ):
        reads = tokens_at(ends, [end for _, end in spans])
        begin = tokens_at([len(prm_text(tree.problem, [])[0])], [end for _, end in spans])[0] + 1
        for node, read in zip(way, reads, strict=True):
            if node.id in keep and node.id not in coded:
                coded[node.id] = _Encoded(tokens[: read + 1], begin)
            begin = read + 1
    return coded


def _groups(nodes: dict[str, Node], pairs: list[Pair], wanted: list[str]) -> Iterator[_Group]:
    """Pairs of one parent, or of trajectories, are a group; a step in no pair is one by itself."""
    by_parent: dict[tuple[str | None, ...], list[Pair]] = defaultdict(list)
    for pair in pairs:
        better, worse = nodes[pair.better].parent, nodes[pair.worse].parent
        by_parent[(better,) if better == worse else ()].append(pair)
    paired: set[str] = set()
    for group in by_parent.values():
        members = list(dict.fromkeys(one for pair in group for one in (pair.better, pair.worse)))
        paired.update(members)
        yield _Group(members, group)
    for node in wanted:
        if node not in paired:
            yield _Group([node], [])


def _parts(groups: Iterable[_Group], coded: dict[str, _Encoded], limit: int) -> Iterator[_Group]:
    """Groups joined as long as their trie has at most `limit` tokens."""
    trie, joined = TokenTrie(), _Group([], [])
    for group in groups:
        # What the members share is counted for each: a part may be a little shorter than it could be.
        added = sum(trie.missing(coded[node].tokens) for node in group.nodes)
        if joined.nodes and len(trie) + added > limit:
            yield joined
            trie, joined = TokenTrie(), _Group([], [])
        for node in group.nodes:
            trie.add(coded[node].tokens)
        joined.nodes.extend(group.nodes)
        joined.pairs.extend(group.pairs)
    if joined.nodes:
        yield joined


def _piece(
    problem_id: str, group: _Group, coded: dict[str, _Encoded], found: Preferences, counted: set[str]
) -> Piece:
    trie = TokenTrie()
    members = list(dict.fromkeys(group.nodes))
    places = {node: trie.add(coded[node].tokens) for node in members}
    place = {node: number for number, node in enumerate(members)}
    values = np.zeros((len(members), 2), dtype=np.float32)
    # Tokens that siblings have in common have the mean of their targets.
    sums = np.zeros((len(trie), 2), dtype=np.float32)
    for number, node in enumerate(members):
        value = found.values.get(node)
        if value is None or node in counted:
            continue
        values[number] = value.target, value.weight
        sums[places[node][coded[node].start :]] += value.target * value.weight, value.weight
    targets = np.divide(
        sums[:, 0], sums[:, 1], out=np.zeros(len(trie), dtype=np.float32), where=sums[:, 1] > 0
    )
    return Piece(
        problem_id,
        np.array(trie.tokens),
        trie.parents,
        np.array(trie.positions),
        tuple(members),
        np.array([places[node][-1] for node in members]),
        values,
        np.stack([targets, sums[:, 1]], axis=1),
        np.array([place[pair.better] for pair in group.pairs], dtype=int),
        np.array([place[pair.worse] for pair in group.pairs], dtype=int),
        np.array([pair.weight for pair in group.pairs], dtype=np.float32),
    )
