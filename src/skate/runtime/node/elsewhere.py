"""What a dispatcher knows of the rest of the cluster: who keeps actors, who else has workers."""

from __future__ import annotations

from typing import Protocol

from skate.runtime.node.requests import Key, Request


class ActorKeeper(Protocol):
    """Whoever keeps the actor directory, and hears from nodes how their actors fare."""

    def granted(self, actor_id: bytes, worker_id: bytes, address: str, pid: int) -> bool:
        """A worker was found for an actor; return whether the actor still wants one."""

    def refused(self, actor_id: bytes, cause: str, kind: str = "") -> None:
        """No worker can be had for an actor; ``kind`` as in ``WorkerDied``."""

    def worker_ended(self, worker_id: bytes, cause: str, where: str, kind: str = "") -> None:
        """A worker is gone; ``where`` is for the user: pid and log."""

    def process_died(self, process_id: bytes) -> None:
        """A driver or worker is gone that may have made or watched actors."""


class Elsewhere(Protocol):
    """The other nodes of a cluster."""

    def attract(self) -> None:
        """Send away the requests that are attracted to other nodes."""

    def redirect(self, stuck: list[Request]) -> None:
        """Send away those of the requests that cannot be served here now and can elsewhere."""

    def next_node(self, request: Request) -> bytes:
        """Return whose turn it is when requests are spread; empty: our own."""

    def knows(self, node_id: bytes, request: Request, feasible: bool) -> bool:
        """Whether there is such a node (and, if wanted, whether it could ever serve this)."""

    def home_of(self, process_id: bytes) -> bytes:
        """Return the node of a process, if it is another one; else empty."""

    def cancel(self, key: Key) -> None:
        """A request that is not here is not needed any more."""

    def kill(self, worker_id: bytes, cause: str) -> None:
        """End a worker of another node at once."""

    def stop(self, worker_id: bytes) -> None:
        """Let a worker of another node finish what it has, then end."""
