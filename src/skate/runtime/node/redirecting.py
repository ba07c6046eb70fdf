"""Carries out what ``redirects.py`` decides: requests travel between nodes, and so do answers."""

from __future__ import annotations

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.redirects import Redirect, Redirects
from skate.runtime.node.requests import Key, Request
from skate.runtime.wire.cluster import (
    DequeueActor,
    ForwardLease,
    KillProcess,
    NodeStatus,
    PlaceActor,
    Relay,
    RequestBounced,
    StopProcess,
)
from skate.runtime.wire.messages import CancelLeaseRequest


class Redirecting:
    """The other nodes, as the dispatcher of this one sees them."""

    def __init__(
        self,
        links: ClusterLinks,
        dispatcher: Dispatcher,
        view: ClusterView,
        homes: dict[bytes, bytes],
    ) -> None:
        """``homes``: the node of each process that is not here."""
        self._links = links
        self._dispatcher = dispatcher
        self._scheduler = dispatcher.scheduler
        self._redirects = Redirects(view)
        self._homes = homes
        self._view = view
        self._scheduler.totals_elsewhere = lambda: [node.info.total for node in view]

    # ------------------------------------------------------------------ for the dispatcher

    def attract(self) -> None:
        """Send away the requests that are attracted to other nodes."""
        if len(self._view):
            for redirect in self._redirects.attracted(self._scheduler.queue):
                self._send(redirect)

    def redirect(self, stuck: list[Request]) -> None:
        """Send away those of the requests that cannot be served here now and can elsewhere."""
        free: list[Request] = []
        for request in stuck:
            if request.place is not None:
                self._send_to(request, self._dispatcher.placement.elsewhere(request))
            elif request.bound_to:
                self._send_to(request, request.bound_to)
            else:
                free.append(request)
        for request in free:
            if request.origin and self._redirects.comes_back(request):
                self._bounce(request)
        if len(self._view):
            for redirect in self._redirects.elsewhere(free, self._feasible_here):
                self._send(redirect)

    def _send_to(self, request: Request, node_id: bytes) -> None:
        """Send a request to the only node that may serve it, if it is known."""
        if self._view.get(node_id) is None:
            return
        if request.origin:
            # It was sent here for a bundle that is not here any more.
            self._bounce(request)
        else:
            self._send(self._redirects.sent(request, node_id))

    def next_node(self, request: Request) -> bytes:
        """Return whose turn it is when requests are spread; empty: our own."""
        return self._redirects.next_node(request, self._feasible_here(request))

    def knows(self, node_id: bytes, request: Request, feasible: bool) -> bool:
        """Whether there is such a node (and, if wanted, whether it could ever serve this)."""
        node = self._view.get(node_id)
        return node is not None and (not feasible or node.could_have(request.units))

    def home_of(self, process_id: bytes) -> bytes:
        """Return the node of a process, if it is another one; else empty."""
        return self._homes.get(process_id, b"")

    def _feasible_here(self, request: Request) -> bool:
        return self._scheduler.resources.feasible(request.units)

    def cancel(self, key: Key) -> None:
        """A request that is not here is not needed any more."""
        found = self._redirects.take_back(key)
        if found is None:
            return
        request, node_id = found
        if request.actor_id:
            self._links.send(node_id, DequeueActor(request.actor_id))
        else:
            cancel = CancelLeaseRequest(request.request_id)
            self._links.send(node_id, Relay(request.holder, cancel))

    def kill(self, worker_id: bytes, cause: str) -> None:
        """End a worker of another node at once."""
        self._links.send(self._homes.get(worker_id, b""), KillProcess(worker_id, cause))

    def stop(self, worker_id: bytes) -> None:
        """Let a worker of another node finish what it has, then end."""
        self._links.send(self._homes.get(worker_id, b""), StopProcess(worker_id))

    # ------------------------------------------------------------------ requests travel

    def _send(self, redirect: Redirect) -> None:
        request = redirect.request
        self._scheduler.cancel(request.key)
        message: object
        if request.actor_order is not None:
            order = request.actor_order
            message = PlaceActor(order.actor, order.owner, order.restarts, redirect.stay)
        else:
            assert request.message is not None
            message = ForwardLease(request.holder, request.message, redirect.stay)
        self._links.send(redirect.node_id, message)

    def _bounce(self, request: Request) -> None:
        self._scheduler.cancel(request.key)
        free = self._scheduler.resources.free
        self._links.send(
            request.origin,
            RequestBounced(request.holder, request.request_id, request.actor_id, free),
        )

    def received_lease(self, node_id: bytes, message: ForwardLease) -> None:
        """Another node has a request for us."""
        self._dispatcher.request_lease(message.holder, message.request, node_id, message.stay)

    def received_actor(self, node_id: bytes, message: PlaceActor) -> None:
        """The head has an actor for us."""
        self._dispatcher.queue_actor(message, node_id)

    def bounced(self, node_id: bytes, message: RequestBounced) -> None:
        """A request comes back."""
        self._view.update(node_id, message.free)
        key: Key = message.actor_id or (message.holder, message.request_id)
        self._requeue(key)

    def _requeue(self, key: Key) -> None:
        found = self._redirects.take_back(key)
        if found is not None:
            self._dispatcher.submit(found[0])

    def settled(self, key: Key) -> None:
        """Another node has answered a request."""
        self._redirects.take_back(key)

    # ------------------------------------------------------------------ others come and go

    def status(self, node_id: bytes, message: NodeStatus) -> None:
        """Another node has said what it has free."""
        self._view.update(node_id, message.free)
        if self._scheduler.queue:
            self._dispatcher.look_again()

    def process_died(self, process_id: bytes) -> None:
        """A process is gone, of whatever node."""
        self._redirects.forget_all_of(process_id)

    def node_left(self, node_id: bytes) -> None:
        """A node is gone: what it had to do for us is to be done elsewhere, for it not at all."""
        for request in [r for r in self._scheduler.queue if r.origin == node_id]:
            self._scheduler.cancel(request.key)
        for request in self._redirects.node_left(node_id):
            self._dispatcher.submit(request)
        self._dispatcher.look_again()
