"""A node's part in placement groups: its bundles, and where those of other nodes are.

The groups themselves are kept by the head (``placement_service``).  A node learns where a group is
when it holds a part of it, or when a process of its own first asks for something in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Protocol

from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.requests import Request
from skate.runtime.wire.messages import REMOVED_KIND
from skate.runtime.wire.placement import PlacementGroupState, ReleaseBundles, ReserveBundles

#: Ended groups that are remembered with their cause.
REMEMBERED = 1_000


class HeadOfGroups(Protocol):
    """Who keeps the placement groups, as a node sees it."""

    def reserved(self, node_id: bytes, group_id: bytes, attempt: int) -> None:
        """A node has reserved its part of a group."""

    def asked(self, node_id: bytes, group_id: bytes) -> None:
        """A node wants to know where a group is, now and whenever that changes."""


class Placement:
    """Placement groups as this node sees them."""

    def __init__(self, node_id: bytes, dispatcher: Dispatcher) -> None:
        self._node_id = node_id
        self._dispatcher = dispatcher
        self._scheduler = dispatcher.scheduler
        self.head: HeadOfGroups
        #: The node of each bundle of the groups that are created, as far as is known here.
        self._nodes: dict[bytes, list[bytes]] = {}
        #: Of the groups whose bundles wait in the queue.
        self._attempts: dict[bytes, int] = {}
        #: Groups that the head was asked about.
        self._asked: set[bytes] = set()
        #: Groups that have ended, and why.
        self._gone: OrderedDict[bytes, str] = OrderedDict()
        #: How many requests for any bundle of a group were sent to others.
        self._turns: dict[bytes, int] = {}
        dispatcher.placement = self

    # ------------------------------------------------------------------ the head says

    def reserve(self, message: ReserveBundles) -> None:
        """Reserve bundles, or queue for them."""
        request = Request.for_group(message.owner, message.group_id, message.bundles, message.name)
        self._attempts[message.group_id] = message.attempt
        self._dispatcher.submit(request)

    def release(self, message: ReleaseBundles) -> None:
        """Give bundles back that were to be, or are, of a group which will be planned anew."""
        group_id = message.group_id
        self._scheduler.cancel(group_id)
        self._end(group_id, message.indices, "a node of its placement group has died", final=False)

    def told(self, message: PlacementGroupState) -> None:
        """The state of a group has changed."""
        group_id = message.group_id
        if message.state == "created":
            self._nodes[group_id] = message.nodes
            self._scheduler.reservations.commit(group_id)
        elif message.state == "pending":
            self._nodes.pop(group_id, None)
        else:
            self._ended(group_id, message.cause)
        self._dispatcher.look_again()

    def _ended(self, group_id: bytes, cause: str) -> None:
        self._nodes.pop(group_id, None)
        self._turns.pop(group_id, None)
        self._attempts.pop(group_id, None)
        self._asked.discard(group_id)
        self._gone[group_id] = cause
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        self._scheduler.cancel(group_id)
        self._end(group_id, None, cause, final=True)
        for request in self._scheduler.cancel_place(group_id):
            self._dispatcher.refuse(request, self._refusal(group_id), REMOVED_KIND)

    def _end(
        self, group_id: bytes, indices: Collection[int] | None, cause: str, final: bool
    ) -> None:
        for grant in self._scheduler.grants_in(group_id, indices):
            self._dispatcher.end_in_group(grant, cause, final)
        self._scheduler.reservations.remove(group_id, indices)
        self._dispatcher.look_again()

    # ------------------------------------------------------------------ the dispatcher asks

    def reserved(self, request: Request) -> None:
        """The bundles of a group that waited in the queue are reserved."""
        group_id = request.group_id
        self.head.reserved(self._node_id, group_id, self._attempts.pop(group_id))

    def refusal(self, group_id: bytes) -> str:
        """Say why nothing can run in a group any more; "" if it can, or perhaps will."""
        known = group_id in self._nodes or group_id in self._gone or group_id in self._asked
        if not known:
            self._asked.add(group_id)
            # The answer may be there when this returns.
            self.head.asked(self._node_id, group_id)
        return self._refusal(group_id)

    def _refusal(self, group_id: bytes) -> str:
        cause = self._gone.get(group_id)
        return f"its placement group {group_id.hex()} is gone: {cause}" if cause else ""

    def elsewhere(self, request: Request) -> bytes:
        """Return the node that a request for a bundle, which cannot be served now, is to go to.

        Empty: none; it waits here.
        """
        assert request.place is not None
        group_id, index = request.place
        nodes = self._nodes.get(group_id, [])
        if index >= 0:
            nodes = nodes[index : index + 1]
        elif request.origin and self._node_id in nodes:
            # Another node has chosen this one.
            return b""
        elif nodes:
            turn = self._turns[group_id] = self._turns.get(group_id, -1) + 1
            nodes = [nodes[turn % len(nodes)]]
        return nodes[0] if nodes and nodes[0] != self._node_id else b""
