"""Finding the nodes of clusters that run on this machine, for drivers that want to join one."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass

from skate.exceptions import SessionError
from skate.runtime.node import session_dir
from skate.runtime.node.config import Paths
from skate.runtime.wire import addresses

#: Of addresses that say what they are addresses of.
SCHEME = "skate://"


@dataclass(slots=True, frozen=True)
class StandingNode:
    """A node of a cluster, on this machine and of this user."""

    paths: Paths
    node_id: bytes
    #: ``host:port`` of its daemon, and of that of the head.
    address: str
    head_address: str
    #: Where its processes listen for other nodes.
    host: str
    pid: int
    #: The process whose end is the node's end; 0 for none.
    owner_pid: int
    #: Unix time.
    joined: float


def standing_nodes() -> list[StandingNode]:
    """Return the nodes of clusters that run here, the newest first."""
    found: dict[str, StandingNode] = {}
    for parent in session_dir.parents():
        with contextlib.suppress(OSError):
            status = os.lstat(parent)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            for name in os.listdir(parent):
                node = _read(os.path.join(parent, name))
                if node is not None:
                    found[node.paths.directory] = node
    return sorted(found.values(), key=lambda node: -node.joined)


def find(address: str) -> StandingNode:
    """Return the node through which a driver of this machine joins the cluster.

    Args:
        address: ``host:port`` of any node of the cluster, with or without ``skate://``; "auto": the
            cluster that was started last.

    Raises:
        SessionError: There is none, or it has no node on this machine.
    """
    wanted = address.removeprefix(SCHEME).rstrip("/")
    nodes = standing_nodes()
    if wanted == "auto":
        # Those of other programs' tests are nobody's business.
        nodes = [node for node in nodes if node.owner_pid in (0, os.getpid())]
        if not nodes:
            raise SessionError(
                "no cluster is running on this machine: start one with `skate start --head`, or "
                "leave the address out for a session of your own"
            )
        return nodes[0]
    for node in nodes:
        if wanted in (node.address, node.paths.directory):
            return node
    for node in nodes:
        if wanted == node.head_address:
            return node
    with contextlib.suppress(ValueError):
        addresses.split(wanted)
        here = ", ".join(sorted({node.head_address for node in nodes}))
        raise SessionError(
            f"no node of the cluster at {wanted} is running on this machine: start one with "
            f"`skate start --address={wanted}`" + (f"; there are nodes of {here}" if here else "")
        )
    raise SessionError(f'{address!r} is no address of a cluster: it is "auto" or host:port')


def _read(directory: str) -> StandingNode | None:
    paths = Paths(directory)
    try:
        with open(paths.description, encoding="utf-8") as file:
            fields = json.load(file)
            joined = os.fstat(file.fileno()).st_mtime
        if not session_dir.is_locked(paths):
            return None
        return StandingNode(
            paths,
            bytes.fromhex(fields["node_id"]),
            fields["address"],
            fields["head_address"],
            fields["host"],
            fields["pid"],
            fields["owner_pid"],
            joined,
        )
    except (OSError, ValueError, KeyError, TypeError):
        # It is no node of a cluster, or has just gone.
        return None
