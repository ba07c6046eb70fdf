"""One node's part in a cluster: joining it, and who else is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from skate.runtime.head.membership import HEARTBEAT_SECONDS, SILENCE_SECONDS, Membership
from skate.runtime.head.view import ClusterView
from skate.runtime.node.actor_service import ActorService
from skate.runtime.node.cluster_links import ClusterLinks
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.links import Link, Links
from skate.runtime.node.loop import Loop, Timer
from skate.runtime.node.objects import NodeObjects
from skate.runtime.node.package_fetching import PackageFetcher
from skate.runtime.node.packages import PackageStore
from skate.runtime.node.placement_service import PlacementService
from skate.runtime.node.redirecting import Redirecting
from skate.runtime.node.relaying import GRANT_BITS, Relaying
from skate.runtime.node.remote_processes import RemoteProcesses
from skate.runtime.node.transfers import Transfers
from skate.runtime.wire import cluster as wire
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.environments import PackageData, ReadPackage
from skate.runtime.wire.messages import (
    Hello,
    PlacementGroupState,
    WatchPlacementGroup,
    WorkerDied,
)

logger = logging.getLogger(__name__)

#: What is free is told to others at most this often, in seconds.
STATUS_SECONDS = 0.02
#: A node that another one cannot reach, and that has not died by then, is given up, in seconds.
UNREACHABLE_SECONDS = 2.0


class Host(Protocol):
    """The daemon, as its part in the cluster sees it."""

    @property
    def placement(self) -> PlacementService:
        """The placement groups, if this is the head."""

    def joined_cluster(self) -> None:
        """All other nodes are known: processes may come."""

    def relayed(self, process_id: bytes, message: Any) -> None:
        """A process of another node says something to us."""

    def remote_process_died(self, death: WorkerDied) -> None:
        """A process of another node is gone."""

    def job_ended(self, driver_id: bytes) -> None:
        """A driver of another node is gone."""

    def flush_output(self) -> None:
        """Send what our workers have printed so far."""

    def nodes_changed(self) -> None:
        """A node has come or gone."""

    def asked(self, node_id: bytes, message: wire.AskNode) -> None:
        """Another node wants to know what we and our processes know."""

    def answered(self, node_id: bytes, message: wire.NodeAnswered) -> None:
        """Another node has answered us."""

    def node_left(self, node_id: bytes) -> None:
        """A node is gone; its processes were reported before."""

    def processes(self) -> list[wire.ProcessInfo]:
        """Return our drivers and workers."""

    def leave_cluster(self, reason: str) -> None:
        """End, because there is no cluster any more that we belong to."""


class Cluster:
    """The other nodes, and the way to them."""

    def __init__(
        self,
        loop: Loop,
        info: wire.NodeInfo,
        token: bytes,
        links: Links,
        dispatcher: Dispatcher,
        view: ClusterView,
        packages: PackageStore,
        objects: NodeObjects,
        host: Host,
    ) -> None:
        """``links``: of our own processes."""
        self._loop = loop
        self._info = info
        self._local = links
        self._dispatcher = dispatcher
        self._view = view
        self._host = host
        hello = Hello(info.node_id, info.pid, info.address)
        self.links = ClusterLinks(loop, hello, token, self._on_message, self._on_closed)
        self.processes = RemoteProcesses()
        homes = self.processes.homes
        self.redirecting = Redirecting(self.links, dispatcher, view, homes)
        dispatcher.elsewhere = self.redirecting
        self.packages = PackageFetcher(info.node_id, self.links, view, packages)
        packages.fetch = self.packages.fetch
        self._transfers = Transfers(loop, info.node_id, self.links, view, objects, self.node_of)
        self.relaying = Relaying(
            info, links, self.links, view, homes, self.redirecting, host.relayed
        )
        links.elsewhere = self.relaying.deliver
        #: Only in the head.
        self._membership: Membership | None = None
        self._actors: ActorService | None = None
        self._head_heard = loop.now()
        #: Links that we have opened, and nodes from which an introduction is awaited.
        self._opened: set[Link] = set()
        self._awaited: set[bytes] = set()
        #: Drivers of ours that leave: who still has to send their output, and what comes then.
        self._flushing: dict[bytes, tuple[set[bytes], Callable[[], None]]] = {}
        self.joined = False
        self.ending = False
        self._said: dict[str, int] = {}
        self._said_at = 0.0
        self._status_timer: Timer | None = None
        self._handlers = self._make_handlers()
        self._chunk_handlers: dict[type, Callable[[Link, Any], None]] = {
            wire.PullChunk: self._transfers.wanted,
            wire.ObjectChunk: self._transfers.chunk,
            wire.ChunkFailed: self._transfers.chunk_failed,
        }

    # ------------------------------------------------------------------ joining

    @property
    def is_head(self) -> bool:
        """Whether this is the head node."""
        return self._membership is not None

    def found(self, actors: ActorService) -> None:
        """Begin a cluster as its head."""
        self._membership = Membership()
        self._actors = actors
        self.relaying.head_id = self._info.node_id
        self._complete(0)

    def join(self, address: str) -> None:
        """Join the cluster whose head is at ``address``."""
        try:
            link = self.links.connect(address)
        except (OSError, ValueError) as error:
            self._host.leave_cluster(f"cannot reach the head node at {address}: {error}")
            return
        self._opened.add(link)
        self.links.queue(link, wire.JoinCluster(self._info))

    def _complete(self, number: int) -> None:
        self._info.number = number
        self._dispatcher.scheduler.number_grants_from(number << GRANT_BITS)
        self.joined = True
        self._loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)
        self._host.joined_cluster()

    def _introduction(self) -> wire.Introduce:
        free = dict(self._dispatcher.scheduler.resources.free)
        return wire.Introduce(self._info, free, self._host.processes())

    def _on_join(self, link: Link, message: wire.JoinCluster) -> None:
        membership = self._membership
        if membership is None:
            raise ProtocolError("it wants to join here, and this is not the head")
        node = message.node
        if node.node_id != link.process_id or node.node_id in membership:
            raise ProtocolError("it is not the node that it says it is")
        others = [known.info for known in self._view]
        node.number = membership.join(node.node_id, self._loop.now())
        self._known(link, node, node.total, [])
        self.links.queue(link, wire.Welcome(node.number, others))
        self.links.queue(link, self._introduction())
        logger.info("node %s (%s) has joined", node.node_id.hex(), node.address)

    def _on_welcome(self, link: Link, message: wire.Welcome) -> None:
        if link not in self._opened or self.relaying.head_id:
            raise ProtocolError("it is not the head, and welcomes us")
        self.relaying.head_id = link.process_id
        self._info.number = message.number
        self._awaited = {self.relaying.head_id, *(node.node_id for node in message.others)}
        for node in message.others:
            other = self.links.connect(node.address)
            self._opened.add(other)
            self.links.queue(other, self._introduction())

    def _on_introduce(self, link: Link, message: wire.Introduce) -> None:
        node = message.node
        if node.node_id != link.process_id or self._view.get(node.node_id) is not None:
            raise ProtocolError("it is not the node that it says it is")
        self._known(link, node, message.free, message.processes)
        if link not in self._opened:
            self.links.queue(link, self._introduction())
        self._arrived(node.node_id)

    def _known(
        self,
        link: Link,
        node: wire.NodeInfo,
        free: dict[str, int],
        processes: list[wire.ProcessInfo],
    ) -> None:
        self.links.registered(link, "node")
        self._view.add(node, free)
        self.processes.node_joined(node.node_id, processes)
        self._host.nodes_changed()
        self._dispatcher.look_again()

    def _arrived(self, node_id: bytes) -> None:
        self._awaited.discard(node_id)
        if self.relaying.head_id and not self._awaited and not self.joined:
            self._complete(self._info.number)

    # ------------------------------------------------------------------ nodes go

    def _heartbeat(self) -> None:
        if self.ending:
            return
        self._loop.call_later(HEARTBEAT_SECONDS, self._heartbeat)
        now = self._loop.now()
        self._say_status(now)
        if self._membership is not None:
            for node_id in self._membership.silent(now):
                self._lose(node_id, f"it was silent for {SILENCE_SECONDS:g} s")
        elif now - self._head_heard > SILENCE_SECONDS + HEARTBEAT_SECONDS:
            self._head_heard = now
            self._host.leave_cluster(f"the head node was silent for {SILENCE_SECONDS:g} s")

    def _on_closed(self, link: Link) -> None:
        if link.kind == "chunks":
            self._transfers.chunk_links.closed(link)
            return
        was_opened = link in self._opened
        self._opened.discard(link)
        node_id = link.process_id
        if self.ending or (link.kind != "node" and (self.joined or not was_opened)):
            return
        if self._membership is not None:
            self._lose(node_id, "its connection has ended")
        elif not self.relaying.head_id:
            self._host.leave_cluster(_why_not_joined(link))
        elif node_id == self.relaying.head_id:
            self._host.leave_cluster("the head node is gone")
        else:
            self.relaying.tell_head(wire.NodeUnreachable(node_id))

    def _on_unreachable(self, link: Link, message: wire.NodeUnreachable) -> None:
        reporter, node_id = link.process_id, message.node_id

        def decide() -> None:
            membership = self._membership
            if membership is not None and reporter in membership and node_id in membership:
                self._lose(node_id, f"node {reporter.hex()} cannot reach it")

        self._loop.call_later(UNREACHABLE_SECONDS, decide)

    def _lose(self, node_id: bytes, cause: str) -> None:
        """Head: a node is gone."""
        membership = self._membership
        if membership is not None and membership.leave(node_id):
            logger.warning("node %s is lost: %s", node_id.hex(), cause)
            self.links.broadcast(wire.NodeLeft(node_id, cause))
            self._node_left(node_id, cause)

    def _on_left(self, link: Link, message: wire.NodeLeft) -> None:
        if link.process_id != self.relaying.head_id:
            raise ProtocolError("it is not the head")
        if message.node_id == self._info.node_id:
            self._host.leave_cluster(f"the head has given this node up: {message.cause}")
            return
        self._node_left(message.node_id, message.cause)

    def _node_left(self, node_id: bytes, cause: str) -> None:
        node = self._view.remove(node_id, cause)
        if node is None:
            self._arrived(node_id)
            return
        link = self.links.by_process.get(node_id)
        if link is not None:
            # Not a node any more: nothing is to be made of the end of its connection.
            link.kind = "lost"
            self.links.close(link)
        name = f"node {node_id.hex()} ({node.info.hostname}) died: {cause}"
        for process in self.processes.node_left(node_id):
            self._report_death(process, WorkerDied(process.process_id, process.pid, name, ""))
        self.redirecting.node_left(node_id)
        self.packages.node_left(node_id)
        self._transfers.node_left(node_id)
        self._host.node_left(node_id)
        self._host.nodes_changed()
        self._arrived(node_id)

    def leave(self, cause: str) -> None:
        """This node ends."""
        if not self.ending:
            self.ending = True
            self.relaying.tell_head(wire.Leaving(cause))
            self.links.flush()

    # ------------------------------------------------------------------ what is free

    def after_round(self) -> None:
        """Tell the others what has changed, and send everything."""
        if self.joined and self._status_timer is None:
            free = self._dispatcher.scheduler.resources.free
            if free != self._said and self._view:
                wait = self._said_at + STATUS_SECONDS - self._loop.now()
                if wait <= 0:
                    self._say_status(self._loop.now())
                else:
                    self._status_timer = self._loop.call_later(wait, self._on_status_timer)
        self.links.flush()

    def _on_status_timer(self) -> None:
        self._status_timer = None
        self._say_status(self._loop.now())

    def _say_status(self, now: float) -> None:
        self._said = dict(self._dispatcher.scheduler.resources.free)
        self._said_at = now
        self.links.broadcast(wire.NodeStatus(self._said))

    def _on_status(self, link: Link, message: wire.NodeStatus) -> None:
        now = self._loop.now()
        if self._membership is not None:
            self._membership.heard(link.process_id, now)
        elif link.process_id == self.relaying.head_id:
            self._head_heard = now
        self.redirecting.status(link.process_id, message)

    # ------------------------------------------------------------------ processes

    def process_joined(self, process: wire.ProcessInfo) -> None:
        """One of our processes has registered."""
        self.links.broadcast(wire.ProcessJoined(process))

    def process_died(self, death: WorkerDied) -> None:
        """One of our processes is gone."""
        self.redirecting.process_died(death.process_id)
        self._transfers.process_died(death.process_id)
        self.links.broadcast(wire.ProcessDied(death))

    def tell_of_transfers(self, on_moved: Callable[[str, float, str], None]) -> None:
        """Have ``on_moved`` called for each object that has come from another node."""
        self._transfers.on_moved = on_moved

    def node_of(self, process_id: bytes) -> bytes | None:
        """Return the node of a process that lives."""
        if process_id in self._local.by_process:
            return self._info.node_id
        return self.processes.homes.get(process_id)

    def flush_output(self, driver_id: bytes, done: Callable[[], None]) -> None:
        """Have all nodes send what was printed for a driver of ours, then call ``done``."""
        self._host.flush_output()
        self._flushing[driver_id] = (set(self.links.by_process), done)
        self.links.broadcast(wire.FlushOutput(driver_id))
        self._flushed(driver_id, b"")

    def _on_flush(self, link: Link, message: wire.FlushOutput) -> None:
        self._host.flush_output()
        self.links.queue(link, wire.OutputFlushed(message.driver_id))

    def _flushed(self, driver_id: bytes, node_id: bytes) -> None:
        awaited, done = self._flushing.get(driver_id, (set(), None))
        awaited.discard(node_id)
        if not awaited and done is not None:
            del self._flushing[driver_id]
            done()

    def _on_process_died(self, link: Link, message: wire.ProcessDied) -> None:
        death = message.death
        process = self.processes.died(link.process_id, death.process_id)
        if process is not None:
            self._report_death(process, death)

    def _report_death(self, process: wire.ProcessInfo, death: WorkerDied) -> None:
        self.redirecting.process_died(death.process_id)
        self._transfers.process_died(death.process_id)
        self._host.remote_process_died(death)
        if process.kind == "driver":
            self._host.job_ended(process.process_id)

    # ------------------------------------------------------------------ messages

    def _on_message(self, link: Link, message: Any) -> None:
        if self.ending:
            return
        handlers = self._handlers
        if link.kind == "chunks":
            handlers = self._chunk_handlers
        elif link.kind != "node" and not isinstance(
            message, wire.JoinCluster | wire.Welcome | wire.Introduce | wire.CarryChunks
        ):
            raise ProtocolError(f"it sent {type(message).__name__} before it was introduced")
        handler = handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is no message for this node")
        handler(link, message)

    def _make_handlers(self) -> dict[type, Callable[[Link, Any], None]]:
        redirecting, dispatcher = self.redirecting, self._dispatcher
        transfers = self._transfers
        return {
            ReadPackage: lambda link, m: self.packages.answer(link.process_id, m),
            PackageData: lambda link, m: self.packages.answered(link.process_id, m),
            wire.CarryChunks: transfers.chunk_links.opened,
            wire.NoteCopy: transfers.note_copy,
            wire.CopyNoted: transfers.noted,
            wire.FreeCopy: transfers.free_copy,
            wire.JoinCluster: self._on_join,
            wire.Welcome: self._on_welcome,
            wire.Introduce: self._on_introduce,
            wire.NodeStatus: self._on_status,
            wire.NodeLeft: self._on_left,
            wire.NodeUnreachable: self._on_unreachable,
            wire.Leaving: lambda link, m: self._lose(link.process_id, m.cause),
            wire.ProcessJoined: lambda link, m: self.processes.joined(link.process_id, m.process),
            wire.ProcessDied: self._on_process_died,
            wire.Relay: self.relaying.on_relay,
            wire.Deliver: self.relaying.on_deliver,
            wire.FlushOutput: self._on_flush,
            wire.OutputFlushed: lambda link, m: self._flushed(m.driver_id, link.process_id),
            wire.KillProcess: lambda link, m: dispatcher.kill(m.process_id, m.cause),
            wire.StopProcess: lambda link, m: dispatcher.stop(m.process_id),
            wire.ForwardLease: lambda link, m: redirecting.received_lease(link.process_id, m),
            wire.PlaceActor: lambda link, m: redirecting.received_actor(link.process_id, m),
            wire.RequestBounced: lambda link, m: redirecting.bounced(link.process_id, m),
            wire.DequeueActor: lambda link, m: dispatcher.dequeue_actor(m.actor_id),
            wire.ActorGranted: self._on_actor_granted,
            wire.ActorRefused: self._on_actor_refused,
            wire.AskNode: lambda link, m: self._host.asked(link.process_id, m),
            wire.NodeAnswered: lambda link, m: self._host.answered(link.process_id, m),
            wire.ReserveBundles: lambda link, m: dispatcher.placement.reserve(m),
            wire.ReleaseBundles: lambda link, m: dispatcher.placement.release(m),
            PlacementGroupState: lambda link, m: dispatcher.placement.told(m),
            wire.BundlesReserved: lambda link, m: self._host.placement.reserved(
                link.process_id, m.group_id, m.attempt
            ),
            WatchPlacementGroup: lambda link, m: self._host.placement.asked(
                link.process_id, m.group_id
            ),
        }

    def _on_actor_granted(self, _link: Link, message: wire.ActorGranted) -> None:
        self.redirecting.settled(message.actor_id)
        if self._actors is not None and not self._actors.granted(
            message.actor_id, message.worker_id, message.address, message.pid
        ):
            self._dispatcher.kill(message.worker_id, "its actor has ended")

    def _on_actor_refused(self, _link: Link, message: wire.ActorRefused) -> None:
        self.redirecting.settled(message.actor_id)
        if self._actors is not None:
            self._actors.refused(message.actor_id, message.cause, message.kind)


def _why_not_joined(link: Link) -> str:
    failure = link.connection.failure
    if link.refused:
        return (
            f"what listens at {link.where} is no head node of this cluster, or hangs:"
            f" {link.refused}"
        )
    if failure is None or isinstance(failure, ConnectionResetError | BrokenPipeError):
        return (
            f"the head node at {link.where} did not let us in: it has another token, or what "
            "listens there is no head node"
        )
    return f"the head node at {link.where} cannot be reached: {failure.strerror or failure}"
