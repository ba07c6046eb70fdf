"""What processes of different nodes say to each other's daemons: it goes from daemon to daemon.

``Relay`` carries what a process says, ``Deliver`` what it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.links import Link, Links
from skate.runtime.node.redirecting import Redirecting
from skate.runtime.wire import cluster as wire
from skate.runtime.wire.messages import LeaseGranted, LeaseRefused, PeerLost, ReturnLease

#: A grant's number has the number of its node above this many bits.
GRANT_BITS = 40


class Relaying:
    """Passes on what is not for this node, and takes in what others have passed on."""

    def __init__(
        self,
        info: wire.NodeInfo,
        local: Links,
        links: ClusterLinks,
        view: ClusterView,
        homes: dict[bytes, bytes],
        redirecting: Redirecting,
        relayed: Callable[[bytes, Any], None],
    ) -> None:
        """``local``: the links of our own processes.  ``homes``: the nodes of all others.
        ``relayed(process_id, message)``: one of these says something to us."""
        self._info = info
        self._local = local
        self._links = links
        self._view = view
        self._homes = homes
        self._redirecting = redirecting
        self._relayed = relayed
        #: The head node, once that is known.
        self.head_id = b""

    def takes(self, process_id: bytes, message: Any) -> bool:
        """Relay what one of our processes says if it is not for us; return whether it is not."""
        kind = type(message)
        target = b""
        if kind is ReturnLease:
            number = message.lease_id >> GRANT_BITS
            node = None if number == self._info.number else self._view.numbered(number)
            target = node.node_id if node is not None else b""
        elif kind is PeerLost:
            target = self._homes.get(message.process_id, b"")
        elif kind in wire.FOR_THE_HEAD and self.head_id != self._info.node_id:
            target = self.head_id
        if target:
            self._links.send(target, wire.Relay(process_id, message))
        return bool(target)

    def deliver(self, process_id: bytes, message: Any) -> None:
        """Send a message to a process of another node."""
        node_id = self._homes.get(process_id)
        if node_id is not None:
            self._links.send(node_id, wire.Deliver(process_id, message))

    def tell_head(self, message: object) -> None:
        """Send a message to the daemon of the head node."""
        self._links.send(self.head_id, message)

    def on_relay(self, link: Link, message: wire.Relay) -> None:
        """Another daemon passes on what one of its processes says."""
        # What a process has said just before its end may come after the news of that.
        if self._homes.get(message.process_id) == link.process_id:
            self._relayed(message.process_id, message.message)

    def on_deliver(self, _link: Link, message: wire.Deliver) -> None:
        """Another daemon answers one of our processes."""
        process_id, inner = message.process_id, message.message
        if isinstance(inner, LeaseGranted | LeaseRefused):
            self._redirecting.settled((process_id, inner.request_id))
        if process_id in self._local.by_process:
            self._local.send(process_id, inner)
