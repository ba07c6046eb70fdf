"""Which waiting requests go to which other node, and where those are that went.  Plain decisions.

A request belongs to one daemon: that of the process that asks, or the head if it is an actor's.
While it is away its own daemon remembers it; it comes back when the other node has no room after
all, or is gone.  One that its own node could never serve stays with a node that could, until
it is served or a third one has room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from skate.runtime.head.view import ClusterView
from skate.runtime.node.requests import Key, Request


class Redirect(NamedTuple):
    """Send a request to a node; ``stay``: it may wait there."""

    request: Request
    node_id: bytes
    stay: bool


class Redirects:
    """The requests of one daemon that other nodes might serve, or are about to."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._away: dict[Key, tuple[Request, bytes]] = {}
        #: How many requests were spread.
        self._turn = -1

    # ------------------------------------------------------------------ decisions

    def attracted(self, queue: Iterable[Request]) -> Iterator[Redirect]:
        """Yield the requests that another node attracts and has room for."""
        for request in list(queue):
            if not request.attracted_to or request.origin:
                continue
            node = self._view.get(request.attracted_to)
            # Once: whatever comes of it, the request is not to wait for this node.
            request.attracted_to = b""
            if node is not None and node.has_room(request.units):
                yield self._send(request, node.node_id, stay=False)

    def elsewhere(
        self, stuck: Iterable[Request], feasible: Callable[[Request], bool]
    ) -> Iterator[Redirect]:
        """Yield those of our own requests, which cannot be served here now, that others may serve.

        ``feasible(request)``: whether it could be served here if enough were free.
        """
        # Nothing becomes free within this walk: what does not fit for one fits for no other.
        hopeless: set[tuple[tuple[str, int], ...]] = set()
        for request in stuck:
            shape = tuple(request.units.items())
            # What belongs into a bundle is served where that is.
            if request.origin or request.place is not None or shape in hopeless:
                continue
            node_id = self._view.with_room(request.units)
            if node_id is not None:
                yield self._send(request, node_id, stay=False)
                continue
            node_id = None if feasible(request) else self._view.large_enough(request.units)
            if node_id is not None:
                yield self._send(request, node_id, stay=True)
            else:
                hopeless.add(shape)

    def sent(self, request: Request, node_id: bytes) -> Redirect:
        """Send a request to the only node that may serve it, to wait there."""
        self._away[request.key] = (request, node_id)
        return Redirect(request, node_id, stay=True)

    def next_node(self, request: Request, feasible_here: bool) -> bytes:
        """Return the node whose turn it is when requests are spread over all that could serve them.

        Empty: our own.
        """
        nodes = sorted(node.node_id for node in self._view if node.could_have(request.units))
        if feasible_here or not nodes:
            nodes.insert(0, b"")
        self._turn += 1
        return nodes[self._turn % len(nodes)]

    def _send(self, request: Request, node_id: bytes, stay: bool) -> Redirect:
        self._view.send_to(node_id, request.units)
        self._away[request.key] = (request, node_id)
        return Redirect(request, node_id, stay)

    def comes_back(self, request: Request) -> bool:
        """Whether a request of another node, which waits here, is to go back to it now."""
        return not request.stays or self._view.with_room(request.units) is not None

    # ------------------------------------------------------------------ who is away

    def take_back(self, key: Key) -> tuple[Request, bytes] | None:
        """A request is served, refused, sent back or not needed any more.

        Returns:
            The request and the node that had it, or None if it was not away.
        """
        return self._away.pop(key, None)

    def forget_all_of(self, holder: bytes) -> None:
        """A process is gone, which the other nodes learn as well."""
        for key in [k for k, (r, _) in self._away.items() if r.holder == holder and not r.actor_id]:
            del self._away[key]

    def node_left(self, node_id: bytes) -> list[Request]:
        """A node is gone: return what it had."""
        lost = [r for r, where in self._away.values() if where == node_id]
        for request in lost:
            del self._away[request.key]
        return lost
