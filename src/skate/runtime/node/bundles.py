"""The bundles of placement groups that a node has reserved: each a pool of resources of its own.

A group's bundles are reserved all together or not at all.  They are used from ``commit`` on: with
several nodes that is when all of them have reserved their part.  When a group ends, what its tasks
and actors hold comes back to the node with the last of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from skate.runtime.amounts import Units
from skate.runtime.node.resources import Allocation, NodeResources

#: Where a request is to be served: a placement group and the index of a bundle, -1 for any of them.
Place: TypeAlias = tuple[bytes, int]


class Bundle(NodeResources):
    """One reserved bundle."""

    __slots__ = ("allocation", "ending", "group_id", "index", "users")

    def __init__(self, group_id: bytes, index: int, allocation: Allocation) -> None:
        self.divide(allocation)
        self.group_id = group_id
        self.index = index
        #: What it holds of the node.
        self.allocation = allocation
        #: Leases and actors in it.
        self.users = 0
        #: Its group has ended: it goes back to the node with the last user.
        self.ending = False


class Scratch:
    """Copies of pools for trying out what would fit, made when a pool is first looked at."""

    __slots__ = ("_copies",)

    def __init__(self) -> None:
        self._copies: dict[NodeResources, NodeResources] = {}

    def of(self, pool: NodeResources) -> NodeResources:
        """Return the copy of a pool."""
        copy = self._copies.get(pool)
        if copy is None:
            copy = self._copies[pool] = pool.copy()
        return copy


class Reservations:
    """The groups that have bundles on this node."""

    __slots__ = ("_committed", "_groups", "_node")

    def __init__(self, node: NodeResources) -> None:
        self._node = node
        self._groups: dict[bytes, dict[int, Bundle]] = {}
        self._committed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._groups)

    def reserve(self, group_id: bytes, parts: Mapping[int, Units]) -> bool:
        """Take the bundles (by index) of a group; change nothing if they do not fit together."""
        allocations = self._node.acquire_all(list(parts.values()))
        if allocations is None:
            return False
        group = self._groups.setdefault(group_id, {})
        for index, allocation in zip(parts, allocations, strict=True):
            self._node.hold(allocation.units, 1)
            group[index] = Bundle(group_id, index, allocation)
        return True

    def commit(self, group_id: bytes) -> None:
        """The group exists: its bundles may be used."""
        if group_id in self._groups:
            self._committed.add(group_id)

    def remove(self, group_id: bytes, indices: Collection[int] | None = None) -> None:
        """The group, or a part of it, has ended or will not be: give back what nobody uses."""
        group = self._groups.get(group_id, {})
        for index in list(group) if indices is None else indices:
            bundle = group.pop(index, None)
            if bundle is not None:
                bundle.ending = True
                if not bundle.users:
                    self._give_back(bundle)
        if not group:
            self._groups.pop(group_id, None)
            self._committed.discard(group_id)

    def left(self, bundle: Bundle) -> None:
        """A lease or an actor in this bundle has ended."""
        bundle.users -= 1
        if bundle.ending and not bundle.users:
            self._give_back(bundle)

    def _give_back(self, bundle: Bundle) -> None:
        self._node.release(bundle.allocation)
        self._node.hold(bundle.allocation.units, -1)

    def pools(self, place: Place) -> list[Bundle]:
        """Return the bundles in which a request for this place may be served, in order."""
        group_id, index = place
        if group_id not in self._committed:
            return []
        group = self._groups[group_id]
        if index < 0:
            return list(group.values())
        return [group[index]] if index in group else []
