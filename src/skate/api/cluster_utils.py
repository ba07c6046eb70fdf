"""``Cluster``: several nodes on this machine, each with its own daemon, workers and memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

from skate.api import session, session_config
from skate.api.options import nearest
from skate.exceptions import SessionError
from skate.runtime.node.launch import ClusterConfig, NodeConfig, NodeProcess, launch
from skate.runtime.wire.authentication import read_token

#: The nodes of a ``Cluster`` talk to each other on this machine only.
HOST = "127.0.0.1"
#: A node has so many seconds to start; the machine may be busy.
START_SECONDS = 60.0
#: Between two looks at something that a node does, in seconds.
LOOK_SECONDS = 0.01
#: A node that was told to end has so many seconds.
END_SECONDS = 15.0

#: Options of Ray's nodes that have no meaning here.
_IGNORED = frozenset(
    (
        "dashboard_agent_listen_port",
        "dashboard_host",
        "dashboard_port",
        "env_vars",
        "include_dashboard",
        "labels",
        "node_name",
        "redis_password",
        "_system_config",
    )
)


class ClusterNode:
    """One node of a ``Cluster``."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        #: As in ``skate.nodes()``.
        self.node_id = process.node_id.hex()
        #: Of its daemon.
        self.pid = process.pid
        self.address = process.cluster_address

    @property
    def unique_id(self) -> str:
        """The node's id, as Ray calls it."""
        return self.node_id

    def wait_until_joined(self) -> None:
        """Wait until the node is part of its cluster.

        Raises:
            SessionError: It has ended, or does not come.
        """
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(self.process.description_path):
            if self.process.wait(LOOK_SECONDS):
                raise SessionError(f"the node could not be started: {self.process.explain()}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise SessionError(f"the node has not joined within {START_SECONDS:g} s")

    @property
    def head_address(self) -> str:
        """The address of the cluster's head, once the node has joined."""
        with open(self.process.description_path, encoding="utf-8") as file:
            address: str = json.load(file)["head_address"]
        return address

    def kill_daemon(self) -> None:
        """End the node's daemon by force (SIGKILL), and with it the whole node."""
        self.process.kill()

    def end(self) -> None:
        """End the node in good order."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        if not self.process.wait(END_SECONDS):
            self.process.kill()

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id}, {self.address!r})"


def start_node(
    *,
    host: str = HOST,
    port: int = 0,
    head: str = "",
    token: bytes | None = None,
    owner_pid: int = 0,
    **options: Any,
) -> ClusterNode:
    """Start a node; it may still have to join its cluster.

    Args:
        host: Where it listens for other nodes.
        port: 0 for any free one.
        head: Address of the head of the cluster to join; "" begins a cluster.
        token: Of that cluster.
        owner_pid: The process whose end is the node's end; 0 for none.
        options: ``num_cpus``, ``num_gpus``, ``resources``, ``object_store_memory``, ``preload``
            as in ``init``.

    Raises:
        SessionError: It could not be started.
        TypeError, ValueError: An option that is unknown or wrong.
    """
    known = ("num_cpus", "num_gpus", "resources", "object_store_memory", "preload")
    given = {name: options.pop(name, None) for name in known}
    for name in options:
        if name not in _IGNORED:
            hint = nearest(name, known)
            raise TypeError(f"a node has no option {name!r}.{hint}")
    checked = session_config.check(
        address=None,
        namespace=None,
        logging_level=None,
        log_to_driver=True,
        runtime_env=None,
        **given,
    )
    config = NodeConfig(
        resources=checked.resources,
        object_store_memory=checked.object_store_memory,
        job_id="",
        driver_pid=owner_pid,
        preload=list(checked.preload),
        sys_path=list(sys.path),
        cluster=ClusterConfig(host, port, head),
    )
    return ClusterNode(launch(config, token))


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
