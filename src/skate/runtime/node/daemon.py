"""The node daemon: puts the pieces together, and knows what the end of a process means to each."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from skate.runtime.head.actors import ActorDirectory
from skate.runtime.head.view import ClusterView
from skate.runtime.node import processes, session_dir
from skate.runtime.node.actor_service import ActorService
from skate.runtime.node.breakpoints import Breakpoints
from skate.runtime.node.config import LAST_WORDS, ClusterConfig, NodeConfig, Paths
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.drivers import Drivers
from skate.runtime.node.environments import Environments
from skate.runtime.node.hangs import Hangs
from skate.runtime.node.holders import Holders
from skate.runtime.node.links import Acceptor, Link, Links
from skate.runtime.node.log_files import LogFiles
from skate.runtime.node.looking import Looking
from skate.runtime.node.loop import Loop
from skate.runtime.node.memory_watch import MemoryWatch
from skate.runtime.node.metrics import Metrics
from skate.runtime.node.objects import NodeObjects
from skate.runtime.node.packages import PackageStore
from skate.runtime.node.placement import Placement
from skate.runtime.node.placement_service import PlacementService
from skate.runtime.node.resources import NodeResources
from skate.runtime.node.routing import Router
from skate.runtime.node.spill_place import spill_place
from skate.runtime.node.state import State
from skate.runtime.node.store_links import StoreLinks
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.store.server import SegmentTable
from skate.runtime.store.spill import open_storage
from skate.runtime.wire import messages as wire
from skate.runtime.wire.cluster import ProcessInfo
from skate.runtime.wire.connection import ProtocolError

if TYPE_CHECKING:
    from skate.runtime.node.cluster import Cluster

logger = logging.getLogger(__name__)

#: Between SIGTERM and SIGKILL for workers when the session ends, in seconds.
GRACE_SECONDS = 0.1
#: The zygote may take so long to end all workers, in seconds; afterwards the daemon does it.
END_SECONDS = 6.0
#: Processes that were killed may take so long to disappear, in seconds.
REAP_SECONDS = 1.0
#: The driver may take so long to read the last messages, in seconds.
LAST_FLUSH_SECONDS = 1.0


class Daemon:
    """One node of one session."""

    def __init__(
        self,
        config: NodeConfig,
        paths: Paths,
        node_id: bytes,
        sockets: list[socket.socket],
        zygote: socket.socket,
    ) -> None:
        """``sockets``: listening, for node and store links and, in a cluster, for other nodes.
        ``zygote``: our end of the pair."""
        self._config = config
        self._paths = paths
        self.node_id = node_id
        #: The process whose end is that of the node; 0 for none.
        self.owner_pid = config.driver_pid
        #: The session ends; "" while it does not, else why, for the log.
        self.ending = ""
        self._failed = False
        self.loop = Loop()
        hello = wire.Hello(node_id, os.getpid(), paths.node_socket)
        self.router = Router(self)
        self.links = Links(self.loop, hello, self.router.on_message, self._on_closed)
        self.drivers = Drivers(self.loop, self.links, config, self._end, self._on_driver_gone)
        self.workers = Workers(self.loop, zygote, config, node_id, paths, self.drivers.forward_for)
        self.workers.on_ended = self._on_worker_ended
        self.workers.before_ended = self._drain
        self.workers.on_zygote_gone = self._on_zygote_gone
        self.workers.on_warning = self.warn
        resources = NodeResources(config.resources)
        self.packages = PackageStore()
        self.environments = Environments(self.loop, self.workers, self.packages, paths.directory)
        self.dispatcher = Dispatcher(
            node_id,
            self.loop,
            self.links,
            self.workers,
            resources,
            self.environments,
            prestart=config.cluster is None,
        )
        self.dispatcher.job_of = self._job_of
        self.actors = ActorService(
            self.loop, self.links, self.dispatcher, ActorDirectory(config.namespace)
        )
        self.dispatcher.actor_keeper = self.actors
        self.dispatcher.on_warning = self.drivers.warn
        self.workers.on_forked = self.dispatcher.starts.forked
        #: The other nodes, in a cluster.
        self.view = ClusterView()
        self.placement = PlacementService(
            node_id,
            self.loop,
            self.links,
            self.dispatcher,
            Placement(node_id, self.dispatcher),
            self.view,
            config.namespace,
            self.lives,
        )
        self.placement.on_removed = self.actors.group_removed
        self.segments = SegmentTable(node_id, config.object_store_memory)
        self.objects = NodeObjects(
            self.loop,
            node_id,
            self.segments,
            open_storage(spill_place(config.spill_uri, paths)),
            self.links.deliver,
        )
        self._store_links = StoreLinks(
            self.loop, self.segments, self._is_member, self.links.deliver
        )
        self.state = State(
            node_id,
            paths,
            self.dispatcher.scheduler,
            self.dispatcher.pool,
            self.actors.directory,
            self.placement.groups,
            self.workers,
            self.segments,
            self.links,
            config,
            self.view,
            self.drivers,
            self.environments.table,
        )
        self.breakpoints = Breakpoints()
        self._log_files = LogFiles(node_id, paths, self.workers.logs)
        self.looking = Looking(self.loop, self.links, node_id, self._rows, self._log_files.read)
        self._memory_watch = MemoryWatch(
            self.loop,
            self.workers,
            self.dispatcher,
            self.looking,
            config.memory_usage_threshold,
        )
        holders = Holders(
            node_id, self.segments, self.looking, self.workers, self.dispatcher.work_of
        )
        self.objects.explain = holders.explain
        self.objects.spiller.on_moved = self.looking.moved
        self.metrics = Metrics(
            self.loop, self.links, self.looking, self.state, self.objects.spiller, config
        )
        self.hangs = Hangs(self.loop, self.looking, node_id, config.hang_warning_s, self.warn)
        self.state.metrics_port = self.metrics.port
        if self.metrics.problem:
            self.warn(self.metrics.problem)
        self._sockets = sockets
        self._acceptors: list[Acceptor] = []
        self.router.open()
        self.loop.after_round = self._after_round
        self._watch_signals()
        self.drivers.start()
        self.cluster: Cluster | None = None
        if config.cluster is None:
            self.accept()
        else:
            self._enter_cluster(config.cluster)

    def accept(self) -> None:
        """Let processes come."""
        self._acceptors += [
            Acceptor(self.loop, self._sockets[0], self.links.adopt),
            Acceptor(self.loop, self._sockets[1], self._store_links.adopt),
        ]

    # ------------------------------------------------------------------ life

    def run(self) -> int:
        """Work until the session ends; return the exit status."""
        self.loop.run()
        self._finish()
        return 1 if self._failed else 0

    def _after_round(self) -> None:
        if not self.ending:
            self.dispatcher.run()
            self.objects.run()
        self.drivers.flush()
        if self.cluster is not None:
            self.cluster.after_round()
        self.links.flush()

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
            self.drivers.warn_own(
                "the node daemon was told to end (SIGTERM); the session ends with it"
            )
            self._end("SIGTERM")

    def _end(self, reason: str) -> None:
        if self.ending:
            return
        logger.info("the session ends: %s", reason)
        self.ending = reason
        if self.cluster is not None:
            self.cluster.leave(reason)
        if self.workers.zygote_gone:
            self.loop.stopped = True
            return
        self.workers.end(GRACE_SECONDS)
        # From here on only output is collected, until the zygote has ended.
        self.loop.call_later(END_SECONDS, self._stop)

    def fail(self, reason: str) -> None:
        """End the session because it cannot go on."""
        if not self.ending:
            self._failed = True
            self.warn(reason + LAST_WORDS)
            self._end(reason)

    def _stop(self) -> None:
        self.loop.stopped = True

    def _on_zygote_gone(self) -> None:
        if not self.ending:
            self._failed = True
            self.warn("the process that starts workers (zygote) has died, and the session with it")
            self._end("the zygote has died")
        self._stop()

    def _finish(self) -> None:
        """Everything that can run has ended: tell the driver, remove what is left."""
        self.workers.abandon()
        # The zygote, and what comes to us if it was killed.
        processes.end_children(REAP_SECONDS)
        for acceptor in self._acceptors:
            acceptor.close()
        self.metrics.close()
        self.objects.close()
        self.segments.close()
        if self._failed:
            session_dir.keep_log(self._paths, self._paths.node_log)
        session_dir.remove(self._paths)
        self.drivers.flush()
        driver = self.drivers.owner
        if driver is not None:
            if not self._failed:
                self.links.send(driver.process_id, wire.ShutdownDone())
            self._flush_driver(driver)

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

    def register(self, link: Link, message: wire.Register) -> None:
        if link.kind:
            raise ProtocolError("it registered twice")
        namespace, job_id = self._config.namespace, self._config.job_id
        if message.kind == "driver":
            own = self.drivers.register(link, message)
            namespace, job_id = own.namespace, own.job_id
        elif message.kind == "worker":
            worker = self.workers.by_id.get(link.process_id)
            if worker is None or worker.link is not None or worker.address:
                raise ProtocolError("nobody has started such a worker")
            if link.peer_pid and worker.pid and worker.pid != link.peer_pid:
                raise ProtocolError("it claims to be another process")
            link.pid = link.peer_pid or link.pid
            self.workers.registered(worker, link, message.address)
            if worker.job is not None:
                namespace, job_id = worker.job.namespace, worker.job.job_id
        elif message.kind == "tool":
            if link.process_id in self.links.by_process:
                raise ProtocolError("it has the id of another process")
        else:
            raise ProtocolError(f"it registered as {message.kind!r}")
        self.links.registered(link, message.kind)
        self.links.send(
            link.process_id,
            wire.Registered(
                self.node_id,
                self.state.total(),
                namespace,
                job_id,
                self._paths.log_dir,
                self.segments.limit_bytes,
            ),
        )
        if self.cluster is not None and message.kind != "tool":
            job = self._job_of(link.process_id)
            self.cluster.process_joined(ProcessInfo(link.process_id, link.pid, message.kind, job))
        if message.kind == "worker":
            self.dispatcher.worker_registered(self.workers.by_id[link.process_id])
        elif message.kind == "driver":
            self.drivers.registered(link)

    def _drain(self, link: Link) -> None:
        while self.links.read(link):
            pass

    def _on_closed(self, link: Link) -> None:
        if link.kind:
            ended = self.workers.by_id.get(link.process_id)
            self.looking.gone(link.process_id, ended is not None and ended.expected)
            self.metrics.gone(link.process_id)
        if link.kind == "driver":
            self.drivers.closed(link)
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
        self.breakpoints.process_died(process_id)
        self.hangs.gone(process_id)
        if self.ending:
            return
        if worker.address:
            self._process_gone(
                wire.WorkerDied(process_id, worker.pid, cause, worker.log_path, worker.kind)
            )
        else:
            self.objects.process_died(process_id)
        self._memory_watch.worker_ended(process_id)
        self.dispatcher.worker_ended(worker, cause)

    def _on_driver_gone(self, link: Link) -> None:
        """One of several drivers has gone, and with it everything that is its own."""
        process_id = link.process_id
        if self.links.by_process.get(process_id) is link:
            del self.links.by_process[process_id]
        self._store_links.process_died(process_id)
        if not self.ending:
            self._process_gone(wire.WorkerDied(process_id, link.pid, "the driver has ended", ""))
            self.job_ended(process_id)

    def job_ended(self, driver_id: bytes) -> None:
        """A driver, of this or another node, is gone."""
        self.drivers.job_ended(driver_id)
        self.dispatcher.job_ended(driver_id)

    def flush_output(self) -> None:
        """Send what our workers have printed so far."""
        self.workers.read_output()
        self.drivers.flush()

    def _job_of(self, process_id: bytes) -> wire.Job | None:
        """Whose work a process does; None where there is only one driver."""
        worker = self.workers.by_id.get(process_id)
        if worker is not None:
            return worker.job
        job = self.drivers.job_of(process_id)
        if job is None and self.cluster is not None:
            job = self.cluster.processes.job_of(process_id)
        return job

    def _process_gone(self, death: wire.WorkerDied) -> None:
        """Tell everybody, and end what cannot be without the process."""
        self.objects.process_died(death.process_id)
        self.links.broadcast(death)
        if self.cluster is not None:
            self.cluster.process_died(death)
        self.dispatcher.process_died(death.process_id)
        self.packages.process_died(death.process_id)
        self.placement.process_died(death.process_id)

    # ------------------------------------------------------------------ the cluster

    def _enter_cluster(self, config: ClusterConfig) -> None:
        # Here: a node that is alone starts sooner without them.
        from skate.runtime.node.cluster_host import ClusterHost, OtherNodes
        from skate.runtime.node.remote_head import RemoteActorKeeper, RemoteHeadOfGroups

        self.cluster = ClusterHost(
            self, config, self._paths, self._sockets[2].getsockname()[1]
        ).cluster
        cluster = self.cluster
        self.state.home_of = lambda worker_id: cluster.node_of(worker_id) or b""
        self.drivers.elsewhere = self.cluster.processes.drivers
        self.drivers.flush_all = self.cluster.flush_output
        self.looking.others = OtherNodes(self.cluster, self.view)
        cluster.tell_of_transfers(self.looking.moved)
        self.state.is_head = not config.head
        self._acceptors.append(Acceptor(self.loop, self._sockets[2], self.cluster.links.adopt))
        if config.head:
            self.dispatcher.actor_keeper = RemoteActorKeeper(self.cluster)
            self.dispatcher.placement.head = RemoteHeadOfGroups(self.cluster)
            self.cluster.join(config.head)
        else:
            self.placement.cluster = self.cluster
            self.cluster.found(self.actors)

    def lives(self, process_id: bytes) -> bool:
        """Whether it is a process of ours or of another node."""
        return process_id in self.links.by_process or (
            self.cluster is not None and process_id in self.cluster.processes.homes
        )

    def _rows(self, what: str) -> list[dict[str, Any]]:
        if what == "breakpoints":
            return self.breakpoints.rows()
        return self._log_files.rows() if what == "logs" else self.state.rows(what)

    def warn(self, text: str) -> None:
        """Tell the users, now or when a driver has registered."""
        logger.warning("%s", text)
        self.drivers.warn(text)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes the signal write to the wake-up descriptor."""
