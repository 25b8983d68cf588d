"""What a session remembers: a tree of steps, what each did, and the processes in which some of their states are kept."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field

from ratchet.contracts.sandbox import ROOT_NODE, SessionRequest, StepStatus
from services.sandbox.node_process import Process
from services.sandbox.processes import Processes, Step


@dataclass(eq=False)
class Node:
    """A step after its parent, and what it did. The root has no step."""

    id: str
    parent: "Node | None"
    code: str
    depth: int
    children: "dict[str, Node]" = field(default_factory=dict)
    step: Step | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: float = 0.0
    """Wall-clock seconds of all steps from the root to here."""
    process: Process | None = None
    """The snapshot, if it is kept."""

    @property
    def ran(self) -> bool:
        """Whether its step ran to its end, so that another one can follow it."""
        return self.step is not None and self.step.status is StepStatus.OK

    def path(self) -> "list[Node]":
        """From the first step to this one; empty for the root."""
        path: list[Node] = []
        node: Node = self
        while node.parent is not None:
            path.append(node)
            node = node.parent
        return path[::-1]


@dataclass(eq=False)
class Tree:
    """A session and all that belongs to it."""

    id: str
    request: SessionRequest
    root: Node = field(default_factory=lambda: Node(ROOT_NODE, None, "", 0))
    nodes: dict[str, Node] = field(default_factory=dict)
    processes: Processes | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    used: float = field(default_factory=time.monotonic)
    under_way: int = 0
    """Chains that are being run."""
    chars: int = 0
    """How many characters of code and output are remembered."""
    executed: int = 0
    replayed: int = 0
    closed: bool = False

    @property
    def kept(self) -> list[Node]:
        """Nodes with a snapshot."""
        return [node for node in self.nodes.values() if node.process is not None]


@dataclass
class Hand:
    """A process that one chain has for itself, and the node whose state it is in."""

    process: Process
    node: Node
    seconds: float = 0.0
    """What it would take to make this state from the nearest kept one."""


def node_id(parent: Node, code: str) -> str:
    """The name of the node of a step after its parent: the same for the same steps, in every session."""
    return hashlib.sha256(f"{parent.id}\0{code}".encode()).hexdigest()[:24]
