"""``session_status``: all of a session at a glance."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

from skate.state.listing import nodes_of
from skate.state.rows import NodeState, Row
from skate.state.source import opened


@dataclasses.dataclass
class Demand(Row):
    """Tasks or actors of one shape that wait for a worker."""

    #: "task" or "actor".
    kind: str
    name: str
    resources: dict[str, float]
    count: int
    #: Seconds that the first of them has waited.
    waited: float
    #: Whether the node has as much at all.
    feasible: bool


@dataclasses.dataclass
class SessionStatus(Row):
    """What a session has, and what of it is in use."""

    session_dir: str
    #: Seconds since it began.
    uptime: float
    drivers: list[int]
    namespace: str
    nodes: list[NodeState]
    resources_total: dict[str, float]
    resources_used: dict[str, float]
    #: Bytes.
    store_used: int
    store_limit: int
    store_spilled: int
    #: How many workers are in each state: "idle", "leased", "blocked", "actor", ...
    workers: dict[str, int]
    #: How many actors are in each state, those that are remembered after their death included.
    actors: dict[str, int]
    demands: list[Demand]


def session_status(address: str | None = None) -> SessionStatus:
    """Return what a session has and what of it is in use; ``address`` as in ``list_tasks``.

    Raises:
        SessionError: There is no such session.
    """
    with opened(address) as source:
        nodes = nodes_of(source)
        jobs = source.state("jobs")
        store = source.state("store")
        total = _amounts(source.state("cluster_resources"))
        free = _amounts(source.state("available_resources"))
        # Of a cluster that is not that of its drivers: they come and go.
        started = min(
            (node.start_time_ms / 1000 for node in nodes if node.start_time_ms is not None),
            default=time.time(),
        )
        return SessionStatus(
            session_dir=nodes[0].session_dir if nodes else "",
            uptime=max(time.time() - started, 0.0),
            drivers=[int(row["pid"]) for row in source.state("drivers")],
            namespace=str(jobs[0]["namespace"]) if jobs else "",
            nodes=nodes,
            resources_total=total,
            resources_used={
                name: max(amount - free.get(name, 0.0), 0.0) for name, amount in total.items()
            },
            store_used=sum(int(row["used_bytes"]) for row in store),
            store_limit=sum(int(row["limit_bytes"]) for row in store),
            store_spilled=sum(int(row.get("spilled_bytes", 0)) for row in store),
            workers=dict(Counter(str(row["state"]) for row in source.state("workers"))),
            actors=dict(Counter(str(row["state"]) for row in source.state("actors"))),
            demands=[
                Demand(**{field.name: row[field.name] for field in dataclasses.fields(Demand)})
                for row in source.state("demands")
            ],
        )


def _amounts(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: float(amount) for name, amount in rows[0].items()} if rows else {}
