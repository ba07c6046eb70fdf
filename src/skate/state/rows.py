"""What the state API returns: one class per kind of thing, named and spelt as in Ray.

Rows are dataclasses that can also be read like dictionaries: ``row.state``, ``row["state"]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


def _plain(default: Any = "") -> Any:
    """A column of every table."""
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=type(default))
    return dataclasses.field(default=default)


def _detail(default: Any = "") -> Any:
    """A column that is shown with ``--detail`` only."""
    metadata = {"detail": True}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=type(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Row:
    """Dictionary-like access to a dataclass."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or ``default`` if there is no such column."""
        return getattr(self, name) if name in self.keys() else default

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names of the columns."""
        return cls.columns(detail=True)

    def items(self) -> list[tuple[str, Any]]:
        """Return pairs of name and value."""
        return [(name, getattr(self, name)) for name in self.keys()]

    @classmethod
    def columns(cls, detail: bool = False) -> list[str]:
        """Return the names of the columns, of those for ``detail`` only if that is true."""
        return [
            field.name
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # each is a dataclass
            if detail or not field.metadata.get("detail")
        ]

    def asdict(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return dict(self.items())


@dataclasses.dataclass
class TaskState(Row):
    """A task or actor call.  Ids are hexadecimal digits, times are Unix times in milliseconds."""

    task_id: str = _plain()
    attempt_number: int = _plain(0)
    name: str = _plain()
    #: "PENDING_ARGS_AVAIL": an argument is not ready. "PENDING_NODE_ASSIGNMENT": no worker yet.
    #: "SUBMITTED_TO_WORKER": in a worker's pipeline. "RUNNING". "FINISHED". "FAILED".
    state: str = _plain()
    #: "NORMAL_TASK", "ACTOR_TASK" or "ACTOR_CREATION_TASK".
    type: str = _plain()
    actor_id: str | None = _plain(None)
    node_id: str | None = _plain(None)
    worker_id: str | None = _plain(None)
    worker_pid: int | None = _plain(None)
    error_type: str | None = _plain(None)
    #: It runs, and waits in ``get`` or ``wait`` (its CPUs are lent to others meanwhile).
    blocked: bool = _plain(False)
    job_id: str = _detail()
    func_or_class_name: str = _detail()
    parent_task_id: str | None = _detail(None)
    required_resources: dict[str, float] = _detail({})
    creation_time_ms: float | None = _detail(None)
    start_time_ms: float | None = _detail(None)
    end_time_ms: float | None = _detail(None)
    error_message: str | None = _detail(None)
    #: The objects it waits for, the first few.
    waits_for: list[str] = _detail([])
    #: The process that has submitted it.
    owner_id: str = _detail()


@dataclasses.dataclass
class ActorState(Row):
    """An actor."""

    actor_id: str = _plain()
    class_name: str = _plain()
    #: "PENDING_CREATION", "ALIVE", "RESTARTING" or "DEAD".
    state: str = _plain()
    job_id: str = _plain()
    name: str = _plain()
    node_id: str | None = _plain(None)
    #: None if it has no process now.
    pid: int | None = _plain(None)
    ray_namespace: str = _plain()
    death_cause: str | None = _detail(None)
    num_restarts: int = _detail(0)
    is_detached: bool = _detail(False)
    required_resources: dict[str, float] = _detail({})
    worker_id: str | None = _detail(None)
    owner_id: str = _detail()


@dataclasses.dataclass
class ObjectState(Row):
    """An object, as one process holds it: there are as many rows as processes that hold it."""

    object_id: str = _plain()
    #: Bytes; None while it is not there.
    object_size: int | None = _plain(None)
    #: "PENDING", "INLINE" (in the memory of its owner), "MEMORY" (shared memory), "SPILLED" or
    #: "FAILED".
    location: str = _plain()
    #: Why this process holds it: "LOCAL_REFERENCE", "PINNED_IN_MEMORY" (views of it),
    #: "USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT", "BORROWED", "ACTOR_HANDLE" or "UNKNOWN".
    reference_type: str = _plain()
    pid: int = _plain(0)
    #: "DRIVER" or "WORKER".
    type: str = _plain()
    #: What the process is: the actor, or the task it runs.
    holder: str = _plain()
    owned: bool = _plain(False)
    #: File and line that made it, if it is in shared memory.
    call_site: str = _plain()
    #: "NIL", or the state of the task that makes it: "PENDING", "FINISHED", "FAILED".
    task_status: str = _detail("NIL")
    #: The task that makes it, while it is pending.
    task_name: str = _detail()
    local_references: int = _detail(0)
    pending_tasks: int = _detail(0)
    captured_in: int = _detail(0)
    #: The processes that the owner has handed refs to.
    borrowers: list[str] = _detail([])
    #: Kept until the session ends, since a ref was pickled by something else than Skate.
    pinned_forever: bool = _detail(False)
    worker_id: str = _detail()
    node_id: str = _detail()


@dataclasses.dataclass
class WorkerState(Row):
    """A process of the session."""

    worker_id: str = _plain()
    is_alive: bool = _plain(True)
    #: "DRIVER" or "WORKER".
    worker_type: str = _plain()
    node_id: str = _plain()
    pid: int = _plain(0)
    #: "starting", "idle", "leased", "blocked", "actor", "ending"; of drivers "driver".
    state: str = _plain()
    actor_id: str | None = _plain(None)
    log_path: str = _detail()


@dataclasses.dataclass
class NodeState(Row):
    """A node of the cluster."""

    node_id: str = _plain()
    node_ip: str = _plain()
    is_head_node: bool = _plain(True)
    #: "ALIVE" or "DEAD".
    state: str = _plain()
    node_name: str = _plain()
    resources_total: dict[str, float] = _plain({})
    resources_available: dict[str, float] = _detail({})
    start_time_ms: float | None = _detail(None)
    daemon_pid: int = _detail(0)
    session_dir: str = _detail()
    log_dir: str = _detail()


@dataclasses.dataclass
class JobState(Row):
    """A driver's program."""

    job_id: str = _plain()
    type: str = _plain("DRIVER")
    #: "RUNNING".
    status: str = _plain()
    driver_pid: int = _plain(0)
    namespace: str = _plain()
    start_time: float | None = _plain(None)


@dataclasses.dataclass
class PlacementGroupState(Row):
    """A placement group."""

    placement_group_id: str = _plain()
    name: str = _plain()
    #: "PENDING", "CREATED", "REMOVED" or "RESCHEDULING".
    state: str = _plain()
    strategy: str = _plain()
    bundles: list[dict[str, Any]] = _detail([])
    is_detached: bool = _detail(False)
    creator_job_id: str = _detail()
    #: Why it is not there yet.
    reason: str = _detail()


@dataclasses.dataclass
class RuntimeEnvState(Row):
    """A runtime environment on a node."""

    runtime_env: str = _plain()
    node_id: str = _plain()
    success: bool | None = _plain(None)
    ref_cnt: int = _plain(0)
    creation_time_ms: float | None = _detail(None)
    error: str | None = _detail(None)
