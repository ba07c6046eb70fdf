"""Which part of a node daemon each message is for, and who may send it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.ids import owner_of
from skate.runtime.node.links import Link
from skate.runtime.wire import messages as wire
from skate.runtime.wire.connection import ProtocolError

if TYPE_CHECKING:
    from skate.runtime.node.daemon import Daemon

#: What a tool may say: it looks, and changes nothing.
TOOL_MESSAGES = frozenset((wire.Register, wire.StateRequest, wire.Inspect))


class Router:
    """Passes on what processes say."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._handlers: dict[type, Callable[[Link, Any], None]] = {}

    def on_message(self, link: Link, message: Any) -> None:
        """A process of this node says something.

        Raises:
            ProtocolError: that is not for it to say.
        """
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is no message for a daemon")
        if not link.kind and type(message) is not wire.Register:
            raise ProtocolError(f"it sent {type(message).__name__} before Register")
        if link.kind == "tool" and type(message) not in TOOL_MESSAGES:
            raise ProtocolError(f"a tool may not send {type(message).__name__}")
        daemon = self._daemon
        if daemon.ending:
            # Nothing is started or answered any more, whatever still arrives.
            return
        cluster = daemon.cluster
        if cluster is not None and cluster.relaying.takes(link.process_id, message):
            return
        handler(link, message)

    def relayed(self, link: Link, message: Any) -> None:
        """A process of another node says something to this one."""
        self._handlers[type(message)](link, message)

    def open(self) -> None:
        """The daemon is complete: pass messages on from now on."""
        daemon = self._daemon
        dispatcher, actors, links = daemon.dispatcher, daemon.actors, daemon.links
        placement, looking, objects = daemon.placement, daemon.looking, daemon.objects
        packages = daemon.packages
        self._handlers = {
            wire.Register: daemon.register,
            wire.RequestLease: lambda link, m: dispatcher.request_lease(link.process_id, m),
            wire.CancelLeaseRequest: lambda link, m: dispatcher.cancel_request(
                link.process_id, m.request_id
            ),
            wire.ReturnLease: lambda link, m: dispatcher.return_lease(link.process_id, m.lease_id),
            wire.PeerLost: lambda link, m: dispatcher.peer_lost(m.process_id, m.reason),
            wire.WorkerRetires: lambda link, m: dispatcher.retires(link.process_id),
            wire.StillNeeded: lambda link, m: dispatcher.still_needed(link.process_id),
            wire.Blocked: self._blocked,
            wire.Resumed: self._resumed,
            wire.CreateActor: lambda link, m: actors.create(link.process_id, m),
            wire.WatchActor: lambda link, m: actors.watch(
                link.process_id, m, daemon.lives(owner_of(m.actor_id))
            ),
            wire.KillActor: lambda link, m: actors.kill(m),
            wire.ActorStarted: lambda link, m: actors.started(link.process_id, m),
            wire.GetNamedActor: lambda link, m: actors.find(link.process_id, m),
            wire.StateRequest: looking.ask_for_table,
            wire.Inspect: looking.ask,
            wire.StateReply: looking.replied,
            wire.EventsFlushed: looking.flushed,
            wire.AtBreakpoint: lambda link, m: daemon.warn(
                daemon.breakpoints.add(link.process_id, link.pid, m)
            ),
            wire.LeftBreakpoint: lambda link, m: daemon.breakpoints.remove(m.breakpoint_id),
            wire.MetricsFlushed: daemon.metrics.flushed,
            wire.ObjectStored: lambda link, m: objects.stored(link.process_id, m),
            wire.ObjectFreed: lambda link, m: objects.freed(m),
            wire.ObjectsUsed: lambda link, m: objects.used(m),
            wire.RequestRoom: lambda link, m: objects.wants_room(link.process_id, m),
            wire.LocateObject: lambda link, m: objects.locate(link.process_id, m),
            wire.PrepareEnvironment: lambda link, m: daemon.environments.expect(m.environment),
            wire.FindPackages: lambda link, m: links.send(
                link.process_id,
                wire.PackagesMissing(m.request_id, packages.missing(m.package_ids)),
            ),
            wire.StorePackage: lambda link, m: links.send(
                link.process_id,
                wire.PackageStored(m.request_id, packages.store(link.process_id, m)),
            ),
            wire.ReadPackage: lambda link, m: links.send(
                link.process_id, packages.read(m.request_id, m.package_id, m.offset)
            ),
            wire.CreatePlacementGroup: lambda link, m: placement.create(link.process_id, m),
            wire.RemovePlacementGroup: lambda link, m: placement.remove(m.group_id),
            wire.WatchPlacementGroup: lambda link, m: placement.watch(link.process_id, m.group_id),
            wire.FindPlacementGroups: lambda link, m: placement.find(link.process_id, m),
            wire.Shutdown: lambda link, m: daemon.drivers.shut_down(link),
        }

    def _blocked(self, link: Link, _message: wire.Blocked) -> None:
        self._daemon.dispatcher.blocked(link.process_id)
        self._daemon.hangs.blocked(link.process_id)

    def _resumed(self, link: Link, _message: wire.Resumed) -> None:
        self._daemon.dispatcher.resumed(link.process_id)
        self._daemon.hangs.gone(link.process_id)
