"""Rows of the state API: nodes, resources, workers and actors as tools and users see them."""

from __future__ import annotations

import os
import socket
from typing import TypeAlias

from skate.runtime.head.actors import ActorDirectory
from skate.runtime.node.config import Paths
from skate.runtime.node.pool import Pool
from skate.runtime.node.resources import to_amounts
from skate.runtime.node.scheduler import Scheduler
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.store.server import SegmentTable

Row: TypeAlias = dict[str, str | int | float | bool | dict[str, float]]

#: What the pool of shared memory is called among resources, as in Ray; in bytes.
OBJECT_STORE_MEMORY = "object_store_memory"


class State:
    """Answers ``StateRequest``."""

    def __init__(
        self,
        node_id: bytes,
        paths: Paths,
        scheduler: Scheduler,
        pool: Pool,
        actors: ActorDirectory,
        workers: Workers,
        segments: SegmentTable,
    ) -> None:
        self._node_id = node_id
        self._paths = paths
        self._scheduler = scheduler
        self._pool = pool
        self._actors = actors
        self._workers = workers
        self._segments = segments

    def rows(self, what: str) -> list[Row]:
        """Return the rows of one table; none for a table that does not exist."""
        if what == "nodes":
            return [self._node()]
        if what == "cluster_resources":
            return [dict(self.total())]
        if what == "available_resources":
            return [dict(self._available())]
        if what == "workers":
            return [self._worker(worker) for worker in self._workers.by_id.values()]
        return self._actor_rows() if what == "actors" else []

    def total(self) -> dict[str, float]:
        """Return what the node has."""
        total = to_amounts(self._scheduler.resources.total)
        total[OBJECT_STORE_MEMORY] = float(self._segments.limit_bytes)
        return total

    def _available(self) -> dict[str, float]:
        free = to_amounts(self._scheduler.resources.free)
        free[OBJECT_STORE_MEMORY] = float(self._segments.limit_bytes - self._segments.used_bytes)
        # CPUs may be overdrawn while workers resume.
        return {name: max(amount, 0.0) for name, amount in free.items()}

    def _node(self) -> Row:
        host = socket.gethostname()
        return {
            "NodeID": self._node_id.hex(),
            "Alive": True,
            "alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerHostname": host,
            "NodeName": host,
            "daemon_pid": os.getpid(),
            "RayletSocketName": self._paths.node_socket,
            "ObjectStoreSocketName": self._paths.store_socket,
            "Resources": self.total(),
        }

    def _worker(self, worker: Worker) -> Row:
        worker_id = worker.worker_id
        grant = self._scheduler.grant_of(worker_id)
        actor_id = grant.request.actor_id if grant is not None else b""
        if worker_id in self._pool.starting:
            state = "starting"
        elif worker.expected or worker.cause or worker.link is None:
            state = "ending"
        elif actor_id:
            state = "actor"
        else:
            state = "idle"
            if grant is not None:
                state = "blocked" if grant.allocation.blocked else "leased"
        return {
            "worker_id": worker_id.hex(),
            "pid": worker.pid,
            "state": state,
            "actor": actor_id.hex(),
            "address": worker.address,
        }

    def _actor_rows(self) -> list[Row]:
        return [
            {
                "actor_id": actor.actor_id.hex(),
                "class_name": actor.spec.class_name,
                "state": actor.state_message().state,
                "name": actor.spec.name,
                "namespace": self._actors.namespace_of(actor.spec),
                "pid": actor.pid,
                "restarts": actor.restarts,
                "cause": actor.cause,
            }
            for actor in self._actors.actors.values()
        ]
