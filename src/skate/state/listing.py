"""``list_*`` and ``get_*``: the rows of one kind of thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from skate.state import objects, tasks
from skate.state.filters import checked, checked_limit, select
from skate.state.rows import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    Row,
    RuntimeEnvState,
    TaskState,
    WorkerState,
)
from skate.state.source import Jobs, Source, opened

R = TypeVar("R", bound=Row)

#: Rows that a call returns unless told otherwise, as in Ray.
DEFAULT_LIMIT = 100
#: Seconds that a call may take unless told otherwise, as in Ray.
DEFAULT_TIMEOUT = 30

Filters = Sequence[tuple[str, str, Any]]

_ACTOR_STATES = {
    "pending": "PENDING_CREATION",
    "alive": "ALIVE",
    "restarting": "RESTARTING",
    "dead": "DEAD",
}


def list_tasks(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[TaskState]:
    """Return tasks and actor calls: those that run, then those that wait, then ended ones.

    Of ended tasks the last ones are known: about 100,000 in a session, and of more than 10,000 a
    second in one process the last 10,000.

    Args:
        address: None: the session of this process, or else the newest one of this user;
            the directory of a session (or its last part), or ``host:port`` of a cluster: that one.
        filters: ``[("state", "=", "RUNNING"), ...]``, all of which have to hold. Operators are
            ``= != < <= > >=``; text is compared without regard to case.
        limit: Rows at most, up to 10,000.
        timeout: Seconds; processes that have not answered by then are left out.
        detail: Accepted for compatibility: rows always have all columns.
        raise_on_missing_output: Raise if a process has not answered, rather than warn.

    Raises:
        SessionError: There is no such session.
        StateError: A process has not answered, and ``raise_on_missing_output``.
        ValueError, TypeError: A filter or the limit is wrong.
        NotSupportedError: The session's engine has no processes.
    """
    return _list(address, TaskState, tasks.tasks, filters, limit, timeout, raise_on_missing_output)


def list_objects(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[ObjectState]:
    """Return objects, the largest first: one row for each process that holds one.

    Each process walks all that it has in memory for this, which takes some tens of milliseconds.
    For the arguments and errors see ``list_tasks``.
    """
    return _list(
        address, ObjectState, objects.objects, filters, limit, timeout, raise_on_missing_output
    )


def list_actors(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[ActorState]:
    """Return actors, dead ones too (the last 1,000).  For arguments see ``list_tasks``."""
    return _list(address, ActorState, _actors, filters, limit, timeout, raise_on_missing_output)


def list_workers(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[WorkerState]:
    """Return drivers and workers that live.  For arguments see ``list_tasks``."""
    return _list(address, WorkerState, _workers, filters, limit, timeout, raise_on_missing_output)


def list_nodes(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[NodeState]:
    """Return the nodes of the cluster.  For arguments see ``list_tasks``."""
    return _list(address, NodeState, nodes_of, filters, limit, timeout, raise_on_missing_output)


def list_jobs(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[JobState]:
    """Return the programs that use the session.  For arguments see ``list_tasks``."""
    return _list(address, JobState, _jobs, filters, limit, timeout, raise_on_missing_output)


def list_placement_groups(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[PlacementGroupState]:
    """Return placement groups.  For arguments see ``list_tasks``."""
    return _list(
        address,
        PlacementGroupState,
        _table("placement_groups", PlacementGroupState),
        filters,
        limit,
        timeout,
        raise_on_missing_output,
    )


def list_runtime_envs(
    address: str | None = None,
    filters: Filters | None = None,
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    detail: bool = False,
    raise_on_missing_output: bool = False,
) -> list[RuntimeEnvState]:
    """Return runtime environments.  For arguments see ``list_tasks``."""
    return _list(
        address,
        RuntimeEnvState,
        _table("runtime_envs", RuntimeEnvState),
        filters,
        limit,
        timeout,
        raise_on_missing_output,
    )


# --------------------------------------------------------------------------- one of them


def get_task(
    id: str,  # noqa: A002  # as in Ray
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[TaskState] | TaskState | None:
    """Return the task of that id, a list if it has had several attempts; None: unknown."""
    found = list_tasks(address, [("task_id", "=", id)], timeout=timeout)
    return found if len(found) > 1 else _only(found)


def get_actor(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> ActorState | None:
    """Return the actor of that id; None: unknown."""
    return _only(list_actors(address, [("actor_id", "=", id)], timeout=timeout))


def get_objects(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[ObjectState]:
    """Return a row for each process that holds the object of that id."""
    return list_objects(address, [("object_id", "=", id)], timeout=timeout)


def get_object(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> ObjectState | None:
    """Return the object of that id as its owner sees it, or else a borrower; None: unknown."""
    found = get_objects(id, address, timeout)
    return next((row for row in found if row.owned), _only(found))


def get_node(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> NodeState | None:
    """Return the node of that id; None: unknown."""
    return _only(list_nodes(address, [("node_id", "=", id)], timeout=timeout))


def get_worker(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> WorkerState | None:
    """Return the process of that id; None: unknown."""
    return _only(list_workers(address, [("worker_id", "=", id)], timeout=timeout))


def get_job(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> JobState | None:
    """Return the job of that id; None: unknown."""
    return _only(list_jobs(address, [("job_id", "=", id)], timeout=timeout))


def get_placement_group(
    id: str,  # noqa: A002
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> PlacementGroupState | None:
    """Return the placement group of that id; None: unknown."""
    found = list_placement_groups(address, [("placement_group_id", "=", id)], timeout=timeout)
    return _only(found)


# --------------------------------------------------------------------------- how


def _only(rows: Sequence[R]) -> R | None:
    return rows[0] if rows else None


def _list(
    address: str | None,
    row: type[R],
    find: Callable[[Source, int, Any, float, bool], list[R]],
    filters: Filters | None,
    limit: int,
    timeout: float,
    strict: bool,
) -> list[R]:
    wanted = checked(filters, row)
    most = checked_limit(limit)
    with opened(address) as source:
        return select(find(source, most, wanted, timeout, strict), wanted, most)


def _actors(source: Source, *_: object) -> list[ActorState]:
    jobs = Jobs(source)
    # The head, which has the row, need not be where the actor lives.
    homes = {str(row["worker_id"]): str(row["node_id"]) for row in source.state("workers")}
    return [
        ActorState(
            actor_id=str(row["actor_id"]),
            class_name=str(row["class_name"]),
            state=_ACTOR_STATES.get(str(row["state"]), str(row["state"]).upper()),
            job_id=jobs.of(str(row.get("owner", ""))),
            name=str(row["name"]),
            node_id=homes.get(str(row.get("worker_id", ""))),
            pid=int(row["pid"]) or None,
            ray_namespace=str(row["namespace"]),
            death_cause=str(row.get("cause", "")) or None,
            num_restarts=int(row["restarts"]),
            is_detached=bool(row.get("detached", False)),
            required_resources=dict(row.get("resources", {})),
            worker_id=str(row.get("worker_id", "")) or None,
            owner_id=str(row.get("owner", "")),
        )
        for row in source.state("actors")
    ]


def _workers(source: Source, *_: object) -> list[WorkerState]:
    return [
        WorkerState(
            worker_id=str(row["worker_id"]),
            is_alive=row["state"] != "ending",
            worker_type=str(row["kind"]).upper(),
            node_id=str(row["node_id"]),
            pid=int(row["pid"]),
            state=str(row["state"]),
            actor_id=str(row["actor"]) or None,
            log_path=str(row["log_path"]),
        )
        for row in [*source.state("drivers"), *source.state("workers")]
    ]


def nodes_of(source: Source, *_: object) -> list[NodeState]:
    """Return the nodes of a session."""
    # Each knows most of itself.
    own = {str(row["NodeID"]): row for row in source.state("own_node")}
    rows = [{**row, **own.get(str(row["NodeID"]), {})} for row in source.state("nodes")]
    return [
        NodeState(
            node_id=str(row["NodeID"]),
            node_ip=str(row["NodeManagerAddress"]),
            is_head_node=bool(row.get("is_head_node", True)),
            state="ALIVE" if row["Alive"] else "DEAD",
            node_name=str(row["NodeManagerHostname"]),
            resources_total=dict(row["Resources"]),
            resources_available=dict(row.get("available", {})),
            start_time_ms=round(float(row["started"]) * 1000, 3) if "started" in row else None,
            daemon_pid=int(row.get("daemon_pid", 0)),
            session_dir=str(row.get("session_dir", "")),
            log_dir=str(row.get("log_dir", "")),
        )
        for row in rows
    ]


def _jobs(source: Source, *_: object) -> list[JobState]:
    return [
        JobState(
            job_id=str(row["job_id"]),
            status="RUNNING",
            driver_pid=int(row["driver_pid"]),
            namespace=str(row["namespace"]),
            start_time=float(row["started"]),
        )
        for row in source.state("jobs")
    ]


def _table(what: str, row: type[R]) -> Callable[[Source, int, Any, float, bool], list[R]]:
    """Rows that the daemon has just as they are shown, apart from further fields."""

    def find(source: Source, *_: object) -> list[R]:
        names = set(row.keys())
        return [
            row(**{name: value for name, value in found.items() if name in names})
            for found in source.state(what)
        ]

    return find
