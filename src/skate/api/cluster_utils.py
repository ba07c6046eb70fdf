"""``Cluster``: several nodes on this machine, each with its own daemon, workers and memory."""

from __future__ import annotations

import os
import time
from typing import Any

from skate.api import session
from skate.api.cluster_nodes import LOOK_SECONDS, ClusterNode, start_node
from skate.runtime.wire.authentication import read_token


class Cluster:
    """Several nodes on this machine, as ``ray.cluster_utils.Cluster``.

    They end with this process, however that ends.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        """Make a cluster.

        Args:
            initialize_head: Start the head node now; otherwise the first ``add_node`` does.
            connect: Call ``skate.init`` with the cluster's address as well.
            head_node_args: Options of the head node, as in ``add_node``.
            shutdown_at_exit: Accepted for compatibility; nodes always end with this process.
        """
        self.head_node: ClusterNode | None = None
        self.worker_nodes: list[ClusterNode] = []
        if initialize_head:
            self.add_node(**(head_node_args or {}))
        if connect:
            self.connect()

    @property
    def address(self) -> str:
        """What ``skate.init(address=...)`` takes; "" without nodes."""
        return self.head_node.address if self.head_node is not None else ""

    @property
    def list_all_nodes(self) -> list[ClusterNode]:
        """All nodes, the head first."""
        return [*([self.head_node] if self.head_node is not None else []), *self.worker_nodes]

    def add_node(self, wait: bool = True, **node_args: Any) -> ClusterNode:
        """Start another node.

        Args:
            wait: Return when it has joined.
            node_args: ``num_cpus``, ``num_gpus``, ``resources``, ``object_store_memory``,
                ``preload`` as in ``init``.

        Raises:
            SessionError: It could not be started.
            TypeError, ValueError: An option that is unknown or wrong.
        """
        head = self.head_node
        token = None if head is None else read_token(head.process.token_path)
        node = start_node(head=self.address, token=token, owner_pid=os.getpid(), **node_args)
        if head is None:
            self.head_node = node
        else:
            self.worker_nodes.append(node)
        if wait or head is None:
            try:
                node.wait_until_joined()
            except BaseException:
                self._forget(node)
                raise
        return node

    def _forget(self, node: ClusterNode) -> None:
        if node is self.head_node:
            self.head_node = None
        else:
            self.worker_nodes.remove(node)

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node: in good order, or (not ``allow_graceful``) by SIGKILL.

        Raises:
            ValueError: It is none of this cluster.
        """
        if node not in self.list_all_nodes:
            raise ValueError(f"{node} is no node of this cluster")
        self._forget(node)
        if allow_graceful:
            node.end()
        else:
            node.kill_daemon()

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Wait until the head knows of exactly the nodes that this object has.

        Needs a session that was connected to the cluster, or makes one for the time being.

        Raises:
            TimeoutError: It did not come to that in time.
        """
        wanted = {node.node_id for node in self.list_all_nodes}
        connected = session.is_initialized()
        if not connected:
            self.connect()
        try:
            deadline = time.monotonic() + timeout
            while True:
                rows = session.current().state("nodes")
                found = {row["NodeID"] for row in rows if row["Alive"]}
                if found == wanted:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the cluster has nodes {sorted(found)}, not {sorted(wanted)}, after "
                        f"{timeout:g} s"
                    )
                time.sleep(LOOK_SECONDS)
        finally:
            if not connected:
                session.shutdown()

    def connect(self, namespace: str | None = None) -> session.Context:
        """Call ``skate.init`` with the cluster's address."""
        return session.init(self.address, namespace=namespace, engine="native")

    def shutdown(self) -> None:
        """End all nodes."""
        for node in reversed(self.list_all_nodes):
            self.remove_node(node)
