"""The node daemon: puts the pieces together and routes messages between them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from skate.ids import owner_of
from skate.runtime.head.actors import ActorDirectory
from skate.runtime.node import processes, session_dir
from skate.runtime.node.actor_service import ActorService
from skate.runtime.node.config import NodeConfig, Paths
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.environments import Environments
from skate.runtime.node.links import Acceptor, Link, Links
from skate.runtime.node.logs import Forwarder
from skate.runtime.node.looking import Looking
from skate.runtime.node.loop import Loop
from skate.runtime.node.objects import NodeObjects
from skate.runtime.node.packages import PackageStore
from skate.runtime.node.resources import NodeResources
from skate.runtime.node.state import State
from skate.runtime.node.store_links import StoreLinks
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire import messages as wire
from skate.runtime.wire.connection import ProtocolError

logger = logging.getLogger(__name__)

#: Between SIGTERM and SIGKILL for workers when the session ends, in seconds.
GRACE_SECONDS = 0.1
#: The zygote may take so long to end all workers, in seconds; afterwards the daemon does it.
END_SECONDS = 6.0
#: Processes that were killed may take so long to disappear, in seconds.
REAP_SECONDS = 1.0
#: The driver may take so long to read the last messages, in seconds.
LAST_FLUSH_SECONDS = 1.0
#: How often to look for the driver where the kernel cannot tell of its end, in seconds.
PARENT_CHECK_SECONDS = 1.0


#: What a tool may say: it looks, and changes nothing.
TOOL_MESSAGES = frozenset((wire.Register, wire.StateRequest, wire.Inspect))


class Daemon:
    """One node of one session."""

    def __init__(
        self,
        config: NodeConfig,
        paths: Paths,
        node_id: bytes,
        sockets: tuple[socket.socket, socket.socket],
        zygote: socket.socket,
    ) -> None:
        """``sockets``: listening, for node and store links.  ``zygote``: our end of the pair."""
        self._config = config
        self._paths = paths
        self._node_id = node_id
        self._driver: Link | None = None
        #: The session ends; "" while it does not, else why, for the log.
        self._ending = ""
        self._failed = False
        self.loop = Loop()
        hello = wire.Hello(node_id, os.getpid(), paths.node_socket)
        self.links = Links(self.loop, hello, self._on_message, self._on_closed)
        self._forwarder = Forwarder(self._send_log)
        self.workers = Workers(self.loop, zygote, config, node_id, paths, self._forwarder)
        self.workers.on_ended = self._on_worker_ended
        self.workers.before_ended = self._drain
        self.workers.on_zygote_gone = self._on_zygote_gone
        self._warnings: list[str] = []
        self.workers.on_warning = self._warn
        resources = NodeResources(config.resources)
        self.packages = PackageStore()
        self.environments = Environments(self.loop, self.workers, self.packages, paths.directory)
        self.dispatcher = Dispatcher(
            self.loop, self.links, self.workers, resources, self.environments
        )
        self.actors = ActorService(
            self.loop, self.links, self.dispatcher, ActorDirectory(config.namespace)
        )
        self.dispatcher.actor_keeper = self.actors
        self.workers.on_forked = self.dispatcher.worker_forked
        self.segments = SegmentTable(node_id, config.object_store_memory)
        self.objects = NodeObjects(self.loop, node_id, self.segments, self.links.deliver)
        self._store_links = StoreLinks(
            self.loop, self.segments, self._is_member, self.links.deliver
        )
        self._state = State(
            node_id,
            paths,
            self.dispatcher.scheduler,
            self.dispatcher.pool,
            self.actors.directory,
            self.workers,
            self.segments,
            self.links,
            config,
        )
        self._looking = Looking(self.loop, self.links, node_id)
        self._acceptors = [
            Acceptor(self.loop, sockets[0], self.links.adopt),
            Acceptor(self.loop, sockets[1], self._store_links.adopt),
        ]
        self._handlers = self._make_handlers()
        self.loop.after_round = self._after_round
        self._watch_driver()
        self._watch_signals()

    # ------------------------------------------------------------------ life

    def run(self) -> int:
        """Work until the session ends; return the exit status."""
        self.loop.run()
        self._finish()
        return 1 if self._failed else 0

    def _after_round(self) -> None:
        if not self._ending:
            self.dispatcher.run()
        self._forwarder.flush()
        self.links.flush()

    def _watch_driver(self) -> None:
        """End the session when the driver's process is gone, even if copies of its sockets live."""
        pid = self._config.driver_pid
        fd = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
        if os.getppid() != pid:
            self._end("the driver is gone")
        elif fd >= 0:
            self.loop.add(fd, lambda _events: self._on_driver_gone(fd))
        else:
            self.loop.call_later(PARENT_CHECK_SECONDS, self._watch_driver)

    def _on_driver_gone(self, fd: int) -> None:
        self.loop.remove(fd)
        os.close(fd)
        self._end("the driver has ended")

    def _watch_signals(self) -> None:
        read, write = socket.socketpair()
        read.setblocking(False)
        write.setblocking(False)
        self._signals = (read, write)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _ignore)
        signal.signal(signal.SIGINT, _ignore)
        signal.signal(signal.SIGHUP, _ignore)
        self.loop.add(read, self._on_signal)

    def _on_signal(self, _events: int) -> None:
        numbers = self._signals[0].recv(64)
        if signal.SIGTERM in numbers:
            self._warn("the node daemon was told to end (SIGTERM); the session ends with it")
            self._end("SIGTERM")

    def _end(self, reason: str) -> None:
        if self._ending:
            return
        logger.info("the session ends: %s", reason)
        self._ending = reason
        if self.workers.zygote_gone:
            self.loop.stopped = True
            return
        self.workers.end(GRACE_SECONDS)
        # From here on only output is collected, until the zygote has ended.
        self.loop.call_later(END_SECONDS, self._stop)

    def _stop(self) -> None:
        self.loop.stopped = True

    def _on_zygote_gone(self) -> None:
        if not self._ending:
            self._failed = True
            self._warn("the process that starts workers (zygote) has died, and the session with it")
            self._end("the zygote has died")
        self._stop()

    def _finish(self) -> None:
        """Everything that can run has ended: tell the driver, remove what is left."""
        self.workers.abandon()
        # The zygote, and what comes to us if it was killed.
        processes.end_children(REAP_SECONDS)
        for acceptor in self._acceptors:
            acceptor.close()
        self.segments.close()
        if self._failed:
            session_dir.keep_log(self._paths, self._paths.node_log)
        session_dir.remove(self._paths)
        self._forwarder.flush()
        if self._driver is not None:
            if not self._failed:
                self.links.send(self._driver.process_id, wire.ShutdownDone())
            self._flush_driver(self._driver)

    def _flush_driver(self, driver: Link) -> None:
        deadline = time.monotonic() + LAST_FLUSH_SECONDS
        connection = driver.connection
        while not connection.flush() and (left := deadline - time.monotonic()) > 0:
            connection.sock.settimeout(left)
            try:
                # A blocking send of nothing returns when there is room.
                connection.sock.send(b"")
            except OSError:
                return
            connection.sock.setblocking(False)

    # ------------------------------------------------------------------ processes

    def _is_member(self, process_id: bytes, peer_pid: int) -> bool:
        """Whether a process may use the store; it may ask before its Register was read."""
        link = self.links.by_process.get(process_id)
        return (
            process_id in self.workers.by_id
            or (link is not None and link.kind != "tool")
            or peer_pid == self._config.driver_pid
        )

    def _register(self, link: Link, message: wire.Register) -> None:
        if link.kind:
            raise ProtocolError("it registered twice")
        if message.kind == "driver":
            if self._driver is not None:
                raise ProtocolError("this session has a driver already")
            self._driver = link
            link.on_flushed = self._forwarder.caught_up
        elif message.kind == "worker":
            worker = self.workers.by_id.get(link.process_id)
            if worker is None or worker.link is not None or worker.address:
                raise ProtocolError("nobody has started such a worker")
            if link.peer_pid and worker.pid and worker.pid != link.peer_pid:
                raise ProtocolError("it claims to be another process")
            link.pid = link.peer_pid or link.pid
            self.workers.registered(worker, link, message.address)
        elif message.kind == "tool":
            if link.process_id in self.links.by_process:
                raise ProtocolError("it has the id of another process")
        else:
            raise ProtocolError(f"it registered as {message.kind!r}")
        self.links.registered(link, message.kind)
        self.links.send(
            link.process_id,
            wire.Registered(
                self._node_id,
                self._state.total(),
                self._config.namespace,
                self._config.job_id,
                self._paths.log_dir,
            ),
        )
        if message.kind == "worker":
            self.dispatcher.worker_registered(self.workers.by_id[link.process_id])
        elif message.kind == "driver":
            for text in self._warnings:
                self.dispatcher.warn(text)
            self._warnings.clear()

    def _drain(self, link: Link) -> None:
        while self.links.read(link):
            pass

    def _on_closed(self, link: Link) -> None:
        if link.kind:
            ended = self.workers.by_id.get(link.process_id)
            self._looking.gone(link.process_id, ended is not None and ended.expected)
        if link is self._driver:
            self._driver = None
            self._end("the driver has closed its connection")
        elif link.kind == "worker":
            worker = self.workers.by_id.get(link.process_id)
            if worker is not None and worker.link is link:
                self.dispatcher.pool.remove(worker.worker_id)
                self.workers.link_lost(worker)

    def _on_worker_ended(self, worker: Worker, cause: str) -> None:
        link = worker.link
        worker.link = None
        if link is not None:
            self.links.close(link)
        process_id = worker.worker_id
        self._store_links.process_died(process_id)
        if self._ending:
            return
        self.objects.process_died(process_id)
        if worker.address:
            self.links.broadcast(wire.WorkerDied(process_id, worker.pid, cause, worker.log_path))
            self.dispatcher.process_died(process_id)
            self.packages.process_died(process_id)
        self.dispatcher.worker_ended(worker, cause)

    # ------------------------------------------------------------------ messages

    def _on_message(self, link: Link, message: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"{type(message).__name__} is no message for a daemon")
        if not link.kind and type(message) is not wire.Register:
            raise ProtocolError(f"it sent {type(message).__name__} before Register")
        if link.kind == "tool" and type(message) not in TOOL_MESSAGES:
            raise ProtocolError(f"a tool may not send {type(message).__name__}")
        if self._ending:
            # Nothing is started or answered any more, whatever still arrives.
            return
        handler(link, message)

    def _make_handlers(self) -> dict[type, Callable[[Link, Any], None]]:
        dispatcher, actors, links = self.dispatcher, self.actors, self.links
        return {
            wire.Register: self._register,
            wire.RequestLease: lambda link, m: dispatcher.request_lease(link.process_id, m),
            wire.CancelLeaseRequest: lambda link, m: dispatcher.cancel_request(
                link.process_id, m.request_id
            ),
            wire.ReturnLease: lambda link, m: dispatcher.return_lease(link.process_id, m.lease_id),
            wire.PeerLost: lambda link, m: dispatcher.peer_lost(m.process_id),
            wire.StillNeeded: lambda link, m: dispatcher.still_needed(link.process_id),
            wire.Blocked: lambda link, m: dispatcher.blocked(link.process_id),
            wire.Resumed: lambda link, m: dispatcher.resumed(link.process_id),
            wire.CreateActor: lambda link, m: actors.create(link.process_id, m),
            wire.WatchActor: lambda link, m: actors.watch(
                link.process_id, m, owner_of(m.actor_id) in links.by_process
            ),
            wire.KillActor: lambda link, m: actors.kill(m),
            wire.ActorStarted: lambda link, m: actors.started(link.process_id, m),
            wire.GetNamedActor: lambda link, m: actors.find(link.process_id, m),
            wire.StateRequest: lambda link, m: links.send(
                link.process_id, wire.StateAnswer(m.request_id, self._state.rows(m.what))
            ),
            wire.Inspect: self._looking.ask,
            wire.StateReply: self._looking.replied,
            wire.EventsFlushed: self._looking.flushed,
            wire.ObjectStored: lambda link, m: self.objects.stored(link.process_id, m),
            wire.ObjectFreed: lambda link, m: self.objects.freed(m),
            wire.LocateObject: lambda link, m: self.objects.locate(link.process_id, m),
            wire.PrepareEnvironment: lambda link, m: self.environments.expect(m.environment),
            wire.FindPackages: lambda link, m: links.send(
                link.process_id,
                wire.PackagesMissing(m.request_id, self.packages.missing(m.package_ids)),
            ),
            wire.StorePackage: lambda link, m: links.send(
                link.process_id,
                wire.PackageStored(m.request_id, self.packages.store(link.process_id, m)),
            ),
            wire.ReadPackage: lambda link, m: links.send(
                link.process_id, self.packages.read(m.request_id, m.package_id, m.offset)
            ),
            wire.Shutdown: self._shutdown,
        }

    def _shutdown(self, link: Link, _message: wire.Shutdown) -> None:
        if link is not self._driver:
            raise ProtocolError("only the driver ends the session")
        self._end("the driver said so")

    def _send_log(self, message: wire.LogLines) -> None:
        if self._driver is not None and self._config.log_to_driver:
            self.links.send(self._driver.process_id, message)

    def _warn(self, text: str) -> None:
        """Tell the driver's user, now or when the driver has registered."""
        logger.warning("%s", text)
        if self._driver is None:
            self._warnings.append(text)
        else:
            self.dispatcher.warn(text)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes the signal write to the wake-up descriptor."""
