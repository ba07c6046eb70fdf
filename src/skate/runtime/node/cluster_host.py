"""What a cluster means to the daemon of one node: whom to tell what when others come and go."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from skate.runtime.head.view import ClusterView
from skate.runtime.node.cluster import Cluster
from skate.runtime.node.config import ClusterConfig, Paths
from skate.runtime.node.fan_out import Member
from skate.runtime.node.links import RemoteLink
from skate.runtime.node.placement_service import PlacementService
from skate.runtime.wire import addresses
from skate.runtime.wire.authentication import read_token
from skate.runtime.wire.cluster import AskNode, NodeAnswered, NodeInfo, ProcessInfo
from skate.runtime.wire.messages import ClusterResources, WorkerDied

if TYPE_CHECKING:
    from skate.runtime.node.daemon import Daemon


class ClusterHost:
    """A daemon, as its part in the cluster sees it."""

    def __init__(self, daemon: Daemon, config: ClusterConfig, paths: Paths, port: int) -> None:
        """``port``: where this daemon listens for others."""
        self._daemon = daemon
        self._config = config
        self._paths = paths
        dispatcher = daemon.dispatcher
        self._info = NodeInfo(
            daemon.node_id,
            addresses.join(config.host, port),
            socket.gethostname(),
            os.getpid(),
            dispatcher.scheduler.resources.total,
            daemon.segments.limit_bytes,
            paths.node_socket,
            paths.store_socket,
        )
        self.cluster = Cluster(
            daemon.loop,
            self._info,
            read_token(paths.token),
            daemon.links,
            dispatcher,
            daemon.view,
            daemon.packages,
            daemon.objects,
            self,
        )

    def joined_cluster(self) -> None:
        """All other nodes are known: processes may come, and are told where."""
        self._daemon.accept()
        description = {
            "node_id": self._info.node_id.hex(),
            "address": self._info.address,
            "head_address": self._config.head or self._info.address,
            "host": self._config.host,
            "pid": self._info.pid,
            "owner_pid": self._daemon.owner_pid,
        }
        fresh = self._paths.description + ".new"
        with open(fresh, "x", encoding="utf-8") as file:
            json.dump(description, file)
        os.rename(fresh, self._paths.description)

    def relayed(self, process_id: bytes, message: Any) -> None:
        """A process of another node says something to us."""
        self._daemon.router.relayed(RemoteLink(process_id), message)

    def remote_process_died(self, death: WorkerDied) -> None:
        """A process of another node is gone."""
        daemon = self._daemon
        process_id = death.process_id
        daemon.objects.process_died(process_id)
        daemon.links.broadcast(death)
        daemon.dispatcher.process_died(process_id)
        if self.cluster.is_head:
            where = f" (pid {death.pid})"
            if death.log_path:
                where += f"; its output: {death.log_path}"
            daemon.actors.worker_ended(process_id, death.cause, where, death.kind)
            self.placement.process_died(process_id)

    @property
    def placement(self) -> PlacementService:
        """The placement groups, if this is the head."""
        return self._daemon.placement

    def job_ended(self, driver_id: bytes) -> None:
        """A driver of another node is gone."""
        self._daemon.job_ended(driver_id)

    def flush_output(self) -> None:
        """Send what our workers have printed so far."""
        self._daemon.flush_output()

    def nodes_changed(self) -> None:
        """A node has come or gone."""
        if self.cluster.is_head:
            # Later: what a new node is told first is that it is welcome.
            self._daemon.loop.call_later(0.0, self.placement.nodes_changed)
        self._daemon.links.broadcast(ClusterResources(self._daemon.state.total()))

    def node_left(self, node_id: bytes) -> None:
        """A node is gone; its processes were reported before."""
        self._daemon.looking.gone(node_id, expected=False)
        if self.cluster.is_head:
            self.placement.node_left(node_id)

    def asked(self, node_id: bytes, message: AskNode) -> None:
        """Another node wants to know what we and our processes know."""
        self._daemon.looking.asked_by_node(node_id, message)

    def answered(self, node_id: bytes, message: NodeAnswered) -> None:
        """Another node has answered us."""
        self._daemon.looking.answered_by_node(node_id, message)

    def processes(self) -> list[ProcessInfo]:
        """Return our drivers and workers."""
        return [
            ProcessInfo(
                link.process_id,
                link.pid,
                link.kind,
                self._daemon.dispatcher.job_of(link.process_id),
            )
            for link in self._daemon.links.by_process.values()
            if link.kind in ("driver", "worker")
        ]

    def leave_cluster(self, reason: str) -> None:
        """End, because there is no cluster any more that we belong to."""
        self._daemon.fail(reason)


class OtherNodes:
    """The other nodes, for whoever looks inside the cluster."""

    def __init__(self, cluster: Cluster, view: ClusterView) -> None:
        self._cluster = cluster
        self._view = view

    def members(self) -> list[Member]:
        """Return those that can be asked."""
        return [Member(node.node_id, node.info.pid, "node") for node in self._view]

    def send(self, node_id: bytes, message: object) -> None:
        """Send a message to the daemon of one."""
        self._cluster.links.send(node_id, message)
