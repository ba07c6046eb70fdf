"""What the state API returns: one class per kind of thing, named and spelt as in Ray.

Rows are dataclasses that can also be read like dictionaries: ``row.state``, ``row["state"]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

#: A column that is shown with ``--detail`` only.
_DETAIL = {"detail": True}


def _detail(default: Any = "") -> Any:
    """Make a column that is shown with ``--detail`` only."""
    return dataclasses.field(default=default, metadata=_DETAIL)


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

    task_id: str = ""
    name: str = ""
    #: "PENDING_ARGS_AVAIL": an argument is not ready. "PENDING_NODE_ASSIGNMENT": no worker yet.
    #: "SUBMITTED_TO_WORKER": in a worker's pipeline. "RUNNING". "FINISHED". "FAILED".
    state: str = ""
    worker_pid: int | None = None
    #: It runs, and waits in ``get`` or ``wait`` (its CPUs are lent to others meanwhile).
    blocked: bool = False
    error_type: str | None = None
    #: "NORMAL_TASK", "ACTOR_TASK" or "ACTOR_CREATION_TASK".
    type: str = ""
    actor_id: str | None = None
    worker_id: str | None = None
    node_id: str | None = None
    #: 0: the first; a task that is tried again has a row for each attempt.
    attempt_number: int = 0
    job_id: str = _detail()
    func_or_class_name: str = _detail()
    parent_task_id: str | None = _detail(None)
    required_resources: dict[str, float] = dataclasses.field(default_factory=dict, metadata=_DETAIL)
    creation_time_ms: float | None = _detail(None)
    start_time_ms: float | None = _detail(None)
    end_time_ms: float | None = _detail(None)
    error_message: str | None = _detail(None)
    #: The objects it waits for, the first few.
    waits_for: list[str] = dataclasses.field(default_factory=list, metadata=_DETAIL)
    #: The process that has submitted it.
    owner_id: str = _detail()


@dataclasses.dataclass
class ActorState(Row):
    """An actor."""

    actor_id: str = ""
    class_name: str = ""
    #: "PENDING_CREATION", "ALIVE", "RESTARTING" or "DEAD".
    state: str = ""
    name: str = ""
    #: None if it has no process now.
    pid: int | None = None
    job_id: str = ""
    node_id: str | None = None
    ray_namespace: str = ""
    death_cause: str | None = _detail(None)
    num_restarts: int = _detail(0)
    is_detached: bool = _detail(False)
    required_resources: dict[str, float] = dataclasses.field(default_factory=dict, metadata=_DETAIL)
    worker_id: str | None = _detail(None)
    owner_id: str = _detail()


@dataclasses.dataclass
class ObjectState(Row):
    """An object, as one process holds it: there are as many rows as processes that hold it."""

    object_id: str = ""
    #: Bytes; None while it is not there.
    object_size: int | None = None
    #: "PENDING", "INLINE" (in the memory of this process), "MEMORY" (shared memory), "SPILLED",
    #: "FAILED", or "OWNER": this process has a ref and has not asked for the value.
    location: str = ""
    #: Why this process holds it: "LOCAL_REFERENCE", "PINNED_IN_MEMORY" (views of it),
    #: "USED_BY_PENDING_TASK", "CAPTURED_IN_OBJECT", "BORROWED", "ACTOR_HANDLE" or "UNKNOWN".
    reference_type: str = ""
    pid: int = 0
    #: "DRIVER" or "WORKER".
    type: str = ""
    #: What the process is: the actor, or the task it runs.
    holder: str = ""
    owned: bool = False
    #: File and line that made it, if it is in shared memory.
    call_site: str = ""
    #: "NIL", or the state of the task that makes it: "PENDING", "FINISHED", "FAILED".
    task_status: str = _detail("NIL")
    #: The task that makes it, while it is pending.
    task_name: str = _detail()
    local_references: int = _detail(0)
    pending_tasks: int = _detail(0)
    captured_in: int = _detail(0)
    #: The processes that the owner has handed refs to.
    borrowers: list[str] = dataclasses.field(default_factory=list, metadata=_DETAIL)
    #: Kept until the session ends, since a ref was pickled by something else than Skate.
    pinned_forever: bool = _detail(False)
    worker_id: str = _detail()
    node_id: str = _detail()


@dataclasses.dataclass
class WorkerState(Row):
    """A process of the session."""

    worker_id: str = ""
    pid: int = 0
    #: "DRIVER" or "WORKER".
    worker_type: str = ""
    #: "starting", "idle", "leased", "blocked", "actor", "ending"; of drivers "driver".
    state: str = ""
    actor_id: str | None = None
    is_alive: bool = True
    node_id: str = ""
    log_path: str = _detail()


@dataclasses.dataclass
class NodeState(Row):
    """A node of the cluster."""

    node_id: str = ""
    #: "ALIVE" or "DEAD".
    state: str = ""
    node_name: str = ""
    node_ip: str = ""
    is_head_node: bool = True
    resources_total: dict[str, float] = dataclasses.field(default_factory=dict)
    resources_available: dict[str, float] = dataclasses.field(
        default_factory=dict, metadata=_DETAIL
    )
    start_time_ms: float | None = _detail(None)
    daemon_pid: int = _detail(0)
    session_dir: str = _detail()
    log_dir: str = _detail()


@dataclasses.dataclass
class JobState(Row):
    """A driver's program."""

    job_id: str = ""
    type: str = "DRIVER"
    #: "RUNNING".
    status: str = ""
    driver_pid: int = 0
    namespace: str = ""
    start_time: float | None = None


@dataclasses.dataclass
class PlacementGroupState(Row):
    """A placement group."""

    placement_group_id: str = ""
    name: str = ""
    #: "PENDING", "CREATED", "REMOVED" or "RESCHEDULING".
    state: str = ""
    strategy: str = ""
    bundles: list[dict[str, Any]] = dataclasses.field(default_factory=list, metadata=_DETAIL)
    is_detached: bool = _detail(False)
    creator_job_id: str = _detail()
    #: Why it is not there yet.
    reason: str = _detail()


@dataclasses.dataclass
class RuntimeEnvState(Row):
    """A runtime environment on a node."""

    #: As JSON; of variables the names only.
    runtime_env: str = ""
    #: "PREPARING" or "READY".
    state: str = ""
    #: Workers that run in it.
    ref_cnt: int = 0
    node_id: str = ""
