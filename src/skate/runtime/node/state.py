"""Rows of the state API: nodes, resources, workers and actors as tools and users see them."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

from skate.runtime.head.actors import ActorDirectory
from skate.runtime.head.placement_groups import PlacementGroups
from skate.runtime.head.view import ClusterView, KnownNode
from skate.runtime.node.config import NodeConfig, Paths
from skate.runtime.node.drivers import Drivers
from skate.runtime.node.environments import EnvironmentTable
from skate.runtime.node.links import Links
from skate.runtime.node.pool import Pool
from skate.runtime.node.resources import to_amounts
from skate.runtime.node.scheduler import Scheduler
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire.addresses import split
from skate.runtime.wire.cluster import NodeInfo
from skate.runtime.wire.environments import describe as describe_environment

Row: TypeAlias = dict[str, str | int | float | bool | dict[str, float] | list[dict[str, float]]]

#: What the pool of shared memory is called among resources, as in Ray; in bytes.
OBJECT_STORE_MEMORY = "object_store_memory"


#: Objects in one answer.
MOST_OBJECTS = 20_000


class State:
    """Answers ``StateRequest``."""

    def __init__(
        self,
        node_id: bytes,
        paths: Paths,
        scheduler: Scheduler,
        pool: Pool,
        actors: ActorDirectory,
        groups: PlacementGroups,
        workers: Workers,
        segments: SegmentTable,
        links: Links,
        config: NodeConfig,
        view: ClusterView,
        drivers: Drivers,
        environments: EnvironmentTable,
    ) -> None:
        self._node_id = node_id
        self._paths = paths
        self._scheduler = scheduler
        self._pool = pool
        self._actors = actors
        self._groups = groups
        self._workers = workers
        self._segments = segments
        self._links = links
        self._config = config
        self._view = view
        self._drivers = drivers
        self._environments = environments
        self._started = time.time()
        #: The node of a worker; empty if it lives no more.
        self.home_of: Callable[[bytes], bytes] = lambda worker_id: node_id
        #: Where Prometheus may look; 0: nowhere.
        self.metrics_port = 0
        #: Of a cluster, or of a session of one node.
        self.is_head = True

    def rows(self, what: str) -> list[Row]:
        """Return the rows of one table; none for a table that does not exist."""
        if what == "nodes":
            return [self._node(), *map(_other_node, self._view), *map(_left, self._view.left)]
        if what == "cluster_resources":
            return [dict(self.total())]
        if what == "available_resources":
            return [dict(self._available())]
        tables = {
            "own_node": lambda: [self._node()],
            "workers": self._worker_rows,
            "drivers": self._driver_rows,
            "actors": self._actor_rows,
            "placement_groups": self._group_rows,
            "runtime_envs": self._environment_rows,
            "jobs": self._job_rows,
            "demands": self._demand_rows,
            "store": self._store_rows,
            "objects": self._object_rows,
        }
        return tables[what]() if what in tables else []

    @property
    def granted(self) -> int:
        """How many workers have been given to somebody so far."""
        return self._scheduler.granted

    def total(self) -> dict[str, float]:
        """Return what the cluster has."""
        return _sum([self.own_total(), *(_resources_of(node.info) for node in self._view)])

    def own_total(self) -> dict[str, float]:
        """Return what this node has."""
        total = to_amounts(self._scheduler.resources.total)
        total[OBJECT_STORE_MEMORY] = float(self._segments.limit_bytes)
        return total

    def _available(self) -> dict[str, float]:
        """What nobody holds, as far as this node knows."""
        return _sum([self.own_available(), *map(_available_of, self._view)])

    def own_available(self) -> dict[str, float]:
        """Return what nobody holds of this node."""
        free = to_amounts(self._scheduler.resources.free)
        free[OBJECT_STORE_MEMORY] = float(self._segments.limit_bytes - self._segments.used_bytes)
        # CPUs may be overdrawn while workers resume.
        return {name: max(amount, 0.0) for name, amount in free.items()}

    def _node(self) -> Row:
        host = socket.gethostname()
        cluster = self._config.cluster
        return {
            "NodeID": self._node_id.hex(),
            "Alive": True,
            "alive": True,
            "is_head_node": self.is_head,
            "NodeManagerAddress": cluster.host if cluster is not None else "127.0.0.1",
            "NodeManagerHostname": host,
            "NodeName": host,
            "daemon_pid": os.getpid(),
            "RayletSocketName": self._paths.node_socket,
            "ObjectStoreSocketName": self._paths.store_socket,
            "Resources": self.own_total(),
            "available": dict(self.own_available()),
            "started": self._started,
            "session_dir": self._paths.directory,
            "MetricsExportPort": self.metrics_port,
            "log_dir": self._paths.log_dir,
            "kept_logs": self._paths.kept_logs,
        }

    def _driver_rows(self) -> list[Row]:
        return [
            {
                "worker_id": link.process_id.hex(),
                "pid": link.pid,
                "kind": "driver",
                "state": "driver",
                "actor": "",
                "address": "",
                "log_path": "",
                "node_id": self._node_id.hex(),
            }
            for link in self._links.by_process.values()
            if link.kind == "driver"
        ]

    def _worker_rows(self) -> list[Row]:
        return [self._worker(worker) for worker in self._workers.by_id.values()]

    def _worker(self, worker: Worker) -> Row:
        worker_id = worker.worker_id
        grant = self._scheduler.grant_of(worker_id)
        actor_id = grant.request.actor_id if grant is not None else b""
        if worker.builds:
            state = "building"
        elif worker_id in self._pool.starting:
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
            "kind": "worker",
            "state": state,
            "actor": actor_id.hex(),
            "address": worker.address,
            "log_path": worker.log_path,
            "node_id": self._node_id.hex(),
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
                "worker_id": actor.worker_id.hex(),
                "node_id": self.home_of(actor.worker_id).hex(),
                "owner": actor.owner.hex(),
                "resources": dict(actor.spec.resources),
                "detached": actor.spec.detached,
            }
            for actor in self._actors.actors.values()
        ]

    def _job_rows(self) -> list[Row]:
        rows: list[Row] = []
        for job, started in self._drivers.jobs():
            link = self._links.by_process.get(job.driver_id)
            rows.append(
                {
                    "job_id": job.job_id,
                    "driver_id": job.driver_id.hex(),
                    "driver_pid": link.pid if link is not None else 0,
                    "namespace": job.namespace,
                    "started": started,
                    "node_id": self._node_id.hex(),
                }
            )
        return rows

    def _group_rows(self) -> list[Row]:
        return [
            {
                "placement_group_id": row.group_id.hex(),
                "name": row.name,
                "state": row.state.upper(),
                "strategy": row.strategy,
                "bundles": row.bundles,
                "is_detached": row.detached,
                "creator_job_id": self._config.job_id,
                "reason": row.reason,
            }
            for row in self._groups.rows(b"", "", "")
        ]

    def _environment_rows(self) -> list[Row]:
        users = Counter(worker.environment for worker in self._workers.by_id.values())
        return [
            {
                "runtime_env": describe_environment(environment),
                "node_id": self._node_id.hex(),
                "state": "READY" if ready else "PREPARING",
                "ref_cnt": users[environment],
            }
            for environment, ready in self._environments.known().items()
        ]

    def _demand_rows(self) -> list[Row]:
        """What waits for a worker, by what it needs."""
        now = time.monotonic()
        rows: dict[tuple[object, ...], Row] = {}
        for request in self._scheduler.queue:
            kind = request.kind
            key = (kind, request.name, tuple(request.units.items()))
            row = rows.setdefault(
                key,
                {
                    "kind": kind,
                    "name": request.name,
                    "resources": to_amounts(request.units),
                    "count": 0,
                    "waited": 0.0,
                    "feasible": self._scheduler.feasible(request),
                },
            )
            row["count"] = int(row["count"]) + 1  # type: ignore[arg-type]  # an int, as set above
            row["waited"] = max(float(row["waited"]), now - request.since)  # type: ignore[arg-type]  # likewise
        return list(rows.values())

    def _store_rows(self) -> list[Row]:
        entries = self._segments.entries()
        return [
            {
                "node_id": self._node_id.hex(),
                "used_bytes": self._segments.used_bytes,
                "limit_bytes": self._segments.limit_bytes,
                "segments": len(self._segments.rows()),
                "object_bytes": sum(entry.size for entry in entries),
                "spilled_bytes": sum(entry.size for entry in entries if entry.file is not None),
                "objects": len(entries),
            }
        ]

    def _object_rows(self) -> list[Row]:
        """The largest objects in memory and on disk."""
        entries = sorted(self._segments.entries(), key=lambda entry: -entry.size)
        return [
            {
                "object_id": entry.object_id.hex(),
                "size": entry.size,
                "spilled": entry.segment is None,
                "call_site": entry.created,
                "node_id": self._node_id.hex(),
            }
            for entry in entries[:MOST_OBJECTS]
        ]


def _sum(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _resources_of(info: NodeInfo) -> dict[str, float]:
    total = to_amounts(info.total)
    total[OBJECT_STORE_MEMORY] = float(info.object_store_memory)
    return total


def _available_of(node: KnownNode) -> dict[str, float]:
    free = {name: max(amount, 0.0) for name, amount in to_amounts(node.free).items()}
    # How full the stores of other nodes are is not known here.
    free[OBJECT_STORE_MEMORY] = float(node.info.object_store_memory)
    return free


def _other_node(node: KnownNode) -> Row:
    info = node.info
    return {
        "NodeID": info.node_id.hex(),
        "Alive": True,
        "alive": True,
        "NodeManagerAddress": split(info.address)[0],
        "NodeManagerPort": split(info.address)[1],
        "NodeManagerHostname": info.hostname,
        "NodeName": info.hostname,
        "daemon_pid": info.pid,
        "RayletSocketName": info.node_socket,
        "ObjectStoreSocketName": info.store_socket,
        "Resources": _resources_of(info),
        "available": _available_of(node),
        "session_dir": os.path.dirname(info.node_socket),
    }


def _left(departed: tuple[NodeInfo, str]) -> Row:
    info, cause = departed
    row = _other_node(KnownNode(info, {}))
    row.update(Alive=False, alive=False, Resources={}, available={}, death_cause=cause)
    return row
