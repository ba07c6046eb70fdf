"""What one daemon knows of the other nodes, and where it would send work.  No I/O.

What is known of free resources is a little old.  A node that is sent more than fits sends it back,
so nothing depends on it but speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from skate.runtime.wire.cluster import NodeInfo

Units = Mapping[str, int]


#: Nodes that are gone and still listed.
MOST_LEFT = 100


class KnownNode:
    """Another node."""

    __slots__ = ("free", "info")

    def __init__(self, info: NodeInfo, free: Units) -> None:
        self.info = info
        #: Units that nobody holds, less what was sent there since it last said so.
        self.free = dict(free)

    @property
    def node_id(self) -> bytes:
        """Its id."""
        return self.info.node_id

    def has_room(self, units: Units) -> bool:
        """Whether the request should fit now."""
        return _covers(self.free, units)

    def could_have(self, units: Units) -> bool:
        """Whether the request would fit if everything were free."""
        return _covers(self.info.total, units)

    def load(self, units: Units) -> float:
        """How full the scarcest of the wanted resources is there, from 0 to 1."""
        total = self.info.total
        loads = [
            1.0 - self.free.get(name, 0) / total[name]
            for name in (units or total)
            if total.get(name)
        ]
        return max(loads, default=0.0)


class ClusterView:
    """All other nodes that a daemon knows."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, KnownNode] = {}
        #: Nodes that are gone, and why.
        self.left: deque[tuple[NodeInfo, str]] = deque(maxlen=MOST_LEFT)

    def add(self, info: NodeInfo, free: Units) -> None:
        """A node has introduced itself."""
        self._nodes[info.node_id] = KnownNode(info, free)

    def remove(self, node_id: bytes, cause: str) -> KnownNode | None:
        """A node is gone; return what was known of it."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self.left.append((node.info, cause))
        return node

    def update(self, node_id: bytes, free: Units) -> None:
        """A node has said what it has free."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.free = dict(free)

    def get(self, node_id: bytes) -> KnownNode | None:
        """Return a node if it is known."""
        return self._nodes.get(node_id)

    def numbered(self, number: int) -> KnownNode | None:
        """Return the node that the head has given this number."""
        return next((n for n in self._nodes.values() if n.info.number == number), None)

    def __iter__(self) -> Iterator[KnownNode]:
        return iter(list(self._nodes.values()))

    def __len__(self) -> int:
        return len(self._nodes)

    def send_to(self, node_id: bytes, units: Units) -> None:
        """Count what was sent to a node until it says itself what it has free."""
        node = self._nodes.get(node_id)
        if node is not None:
            for name, count in units.items():
                node.free[name] = node.free.get(name, 0) - count

    def with_room(self, units: Units) -> bytes | None:
        """Return the emptiest node with room for the request, None if there is none."""
        nodes = [node for node in self._nodes.values() if node.has_room(units)]
        return min(nodes, key=lambda node: node.load(units)).node_id if nodes else None

    def large_enough(self, units: Units) -> bytes | None:
        """Return the emptiest node that could ever serve the request, None if there is none."""
        nodes = [node for node in self._nodes.values() if node.could_have(units)]
        return min(nodes, key=lambda node: node.load(units)).node_id if nodes else None


def _covers(available: Units, units: Units) -> bool:
    return all(count <= available.get(name, 0) for name, count in units.items())
