"""The interpreter states that are kept, those of all sessions together, in the order of their last use.

The least recently used is given up first: when there are too many, when a session's share of memory is nearly used up, or
when the machine's memory runs short. What was given up can be made again.
"""

from collections import OrderedDict

from services.sandbox.session_tree import Hand, Node, Tree

SESSION_SNAPSHOTS = 512
"""Most snapshots that one session keeps."""
MEMORY_SHARE = 0.75
"""A session that uses more than this share of its memory gives up half of its snapshots."""


class Snapshots:
    """At most `most` kept states. `session_bytes` is what one session may hold, where that is counted."""

    def __init__(self, most: int, session_bytes: int) -> None:
        self._most = most
        self._session_bytes = session_bytes
        self._trees: OrderedDict[Node, Tree] = OrderedDict()
        self.given_up = 0
        """How many so far."""

    def __len__(self) -> int:
        return len(self._trees)

    def touch(self, node: Node) -> None:
        """Note that the node's snapshot, if it is kept, was used just now."""
        if node in self._trees:
            self._trees.move_to_end(node)

    def keep(self, tree: Tree, hand: Hand) -> None:
        """Keep a state as its node's snapshot, or let go of it where that cannot be."""
        processes, process, node = tree.processes, hand.process, hand.node
        process.stop_reading()
        process.freeze()
        current = processes is not None and processes.living.get(process.inner_pid) is process
        if not current or not process.forkable or node.process is not None or node.parent is None:
            if processes is not None:
                processes.discard(process)
            else:
                process.discard()
            return
        node.process = process
        self._trees[node] = tree
        self._make_room(tree)

    def give_up(self, node: Node) -> None:
        """Kill a node's snapshot, if it has one."""
        tree = self._trees.pop(node, None)
        process, node.process = node.process, None
        if process is None:
            return
        self.given_up += 1
        if tree is not None and tree.processes is not None:
            tree.processes.discard(process)
        else:
            process.discard()

    def give_up_oldest_quarter(self) -> None:
        """Make room in the machine's memory."""
        for node in list(self._trees)[: max(1, len(self._trees) // 4)]:
            self.give_up(node)

    def _make_room(self, tree: Tree) -> None:
        while len(self._trees) > self._most:
            self.give_up(next(iter(self._trees)))
        if self._is_crowded(tree):
            kept = [node for node, owner in self._trees.items() if owner is tree]
            for node in kept[: len(kept) // 2]:
                self.give_up(node)

    def _is_crowded(self, tree: Tree) -> bool:
        if tree.processes is None:
            return False
        cgroup = tree.processes.cgroup
        if cgroup is not None and cgroup.memory_used() > MEMORY_SHARE * self._session_bytes:
            return True
        return len(tree.processes.living) > SESSION_SNAPSHOTS
