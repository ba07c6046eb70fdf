"""Nodes of clusters: starting them, finding them, ending them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from typing import Any

from skate.api import session_config
from skate.api.options import nearest
from skate.engine.starting import node_config
from skate.exceptions import SessionError
from skate.runtime.node import session_dir, standing
from skate.runtime.node.launch import ClusterConfig, NodeProcess, launch
from skate.runtime.wire import addresses
from skate.runtime.wire.authentication import read_token

#: Unless told otherwise nodes can be reached from this machine only.
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
                raise SessionError(
                    f"the node has not joined within {START_SECONDS:g} s; its log:"
                    f" {self.process.log}"
                )

    def leave(self) -> None:
        """Let the node outlive this process."""
        self.process.leave()

    @property
    def token_path(self) -> str:
        """The file with the cluster's token."""
        return self.process.token_path

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
        if self.process.wait(END_SECONDS):
            self.process.clear_up()
        else:
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
        options: ``num_cpus``, ``num_gpus``, ``resources``, ``object_store_memory``, ``spill_uri``,
            ``preload``, ``memory_usage_threshold``, ``metrics_port``, ``metrics_host`` as in
            ``init``.

    Raises:
        SessionError: It could not be started.
        TypeError, ValueError: An option that is unknown or wrong.
    """
    known = (
        "num_cpus",
        "num_gpus",
        "resources",
        "object_store_memory",
        "spill_uri",
        "preload",
        "memory_usage_threshold",
        "metrics_port",
    )
    given = {name: options.pop(name, None) for name in known}
    given["metrics_host"] = options.pop("metrics_host", session_config.METRICS_HOST)
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
    # Each driver that joins has a namespace of its own.
    checked = dataclasses.replace(checked, namespace="")
    config = node_config(checked, "", owner_pid, ClusterConfig(host, port, head))
    return ClusterNode(launch(config, token))


def token_of(address: str) -> bytes:
    """Return the token of the cluster at an address, of which there is a node on this machine.

    ``address`` may also be the path of a file with the token.

    Raises:
        SessionError: There is none.
    """
    if os.path.isfile(address):
        return read_token(address)
    try:
        return read_token(standing.find(address).paths.token)
    except SessionError as error:
        try:
            addresses.split(address)
        except ValueError:
            raise error from None
        raise SessionError(
            f"no node of the cluster at {address} is running on this machine, so its token is not "
            "known here. `skate start --head` said where the token's file is: copy it to this "
            "machine, and add --token-file=FILE"
        ) from None


def stop_nodes(address: str | None = None, force: bool = False) -> list[str]:
    """End the standing nodes of this user on this machine; return their addresses.

    Nodes of a ``Cluster`` are left to it.

    Args:
        address: Only nodes of the cluster whose head has this address.
        force: Do not let them end in good order (SIGKILL).
    """
    nodes = [
        node
        for node in standing.standing_nodes()
        if not node.owner_pid and address in (None, node.head_address)
    ]
    locks = [session_dir.open_lock(node.paths) for node in nodes]
    for node in nodes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGKILL if force else signal.SIGTERM)
    for node, lock in zip(nodes, locks, strict=True):
        if lock is None:
            continue
        if not session_dir.wait_until_unlocked(lock, END_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGKILL)
            session_dir.wait_until_unlocked(lock, END_SECONDS)
        os.close(lock)
        # What was killed leaves it to others to clean up.
        session_dir.remove(node.paths)
    return [node.address for node in nodes]
