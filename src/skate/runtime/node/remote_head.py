"""The head's directories, as the daemons of other nodes see them: what they report goes there."""

from __future__ import annotations

from skate.runtime.node.cluster import Cluster
from skate.runtime.wire import cluster as wire
from skate.runtime.wire.messages import WatchPlacementGroup


class RemoteActorKeeper:
    """The head's actor directory, as the dispatcher of another node sees it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def granted(self, actor_id: bytes, worker_id: bytes, address: str, pid: int) -> bool:
        """A worker was found for an actor; the head ends it if the actor wants none any more."""
        message = wire.ActorGranted(actor_id, worker_id, address, pid)
        self._cluster.relaying.tell_head(message)
        return True

    def refused(self, actor_id: bytes, cause: str, kind: str = "") -> None:
        """No worker can be had for an actor."""
        message = wire.ActorRefused(actor_id, cause, kind)
        self._cluster.relaying.tell_head(message)

    def worker_ended(self, worker_id: bytes, cause: str, where: str, kind: str = "") -> None:
        """The head hears of every process that dies."""

    def process_died(self, process_id: bytes) -> None:
        """The head hears of every process that dies."""


class RemoteHeadOfGroups:
    """The head's placement groups, as another node sees them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def reserved(self, node_id: bytes, group_id: bytes, attempt: int) -> None:
        """Our part of a group is reserved."""
        message = wire.BundlesReserved(group_id, attempt)
        self._cluster.relaying.tell_head(message)

    def asked(self, node_id: bytes, group_id: bytes) -> None:
        """We want to know where a group is."""
        self._cluster.relaying.tell_head(WatchPlacementGroup(group_id))
