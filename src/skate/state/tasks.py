"""Tasks, put together from what their owners, their executors and the daemon's memory say.

An owner knows a call until it is answered: whether it waits for arguments, for a worker, or was
sent.  An executor knows what runs.  What has ended is in the batches of events that the daemon
keeps.  Of one attempt of one task the furthest of these views counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skate.state.filters import MOST_ROWS
from skate.state.rows import TaskState
from skate.state.source import Jobs, Source, pages_of

if TYPE_CHECKING:
    from skate.runtime.wire.state import Event, EventBatch, Filter, TaskRow

#: Columns of ``TaskState`` that are the same in all views of a task: processes can filter by them.
_STABLE = {
    "task_id": "task_id",
    "attempt_number": "attempt",
    "type": "type",
    "actor_id": "actor_id",
}
#: How far each state is; the rows of a table are in this order too, running ones first.
_PROGRESS = {
    "PENDING_ARGS_AVAIL": 1,
    "PENDING_NODE_ASSIGNMENT": 2,
    "SUBMITTED_TO_WORKER": 3,
    "RUNNING": 4,
    "FAILED": 5,
    "FINISHED": 6,
}
_ENDED = {"FAILED", "FINISHED"}
_ORDER = {
    "RUNNING": 0,
    "SUBMITTED_TO_WORKER": 1,
    "PENDING_NODE_ASSIGNMENT": 2,
    "PENDING_ARGS_AVAIL": 3,
    "FAILED": 4,
    "FINISHED": 4,
}


def tasks(
    source: Source, limit: int, filters: Sequence[Filter], timeout: float, strict: bool
) -> list[TaskState]:
    """Return all tasks that may pass the filters: running, then pending, then ended ones."""
    from skate.runtime.wire.state import LIVE_TASKS, TASKS, TaskRow

    stable = [(_STABLE[name], op, value) for name, op, value in filters if name in _STABLE]
    # Not told to the processes, but the daemon must not cut off what other filters would find.
    others = [f for f in filters if f[0] not in _STABLE]
    wanted = limit if not others else max(limit, MOST_ROWS)
    states = {str(value).upper() for name, op, value in filters if (name, op) == ("state", "=")}
    what = LIVE_TASKS if states and not states & _ENDED else TASKS
    pages, own = pages_of(
        source, what, TaskRow, limit=wanted, timeout=timeout, strict=strict, filters=stable
    )
    jobs = Jobs(source)
    found: dict[tuple[str, int], TaskState] = {}
    for page, rows in pages:
        for row in rows:
            _merge(found, _from_row(row, page.node_id.hex(), jobs))
    for node in own:
        for batch in decoded_batches(node.rows):
            for event in batch.events:
                if event.kind in ("task", "lost"):
                    _merge(found, _from_event(event, batch, node.node_id.hex(), jobs))
    return sorted(found.values(), key=_sort_key)


def decoded_batches(rows: bytes) -> list[EventBatch]:
    """Decode what a daemon has kept."""
    import msgspec

    from skate.runtime.wire.state import EventBatch

    return msgspec.msgpack.decode(rows, type=list[EventBatch])


def _sort_key(task: TaskState) -> tuple[int, float]:
    newest = task.end_time_ms or task.start_time_ms or task.creation_time_ms or 0.0
    return _ORDER.get(task.state, 5), -newest


def _merge(found: dict[tuple[str, int], TaskState], task: TaskState) -> None:
    key = (task.task_id, task.attempt_number)
    known = found.get(key)
    if known is None:
        found[key] = task
        return
    ahead, behind = task, known
    if _PROGRESS.get(known.state, 0) >= _PROGRESS.get(task.state, 0):
        ahead, behind = known, task
    # What only the owner knows.
    ahead.parent_task_id = ahead.parent_task_id or behind.parent_task_id
    ahead.required_resources = ahead.required_resources or behind.required_resources
    ahead.creation_time_ms = ahead.creation_time_ms or behind.creation_time_ms
    ahead.worker_id = ahead.worker_id or behind.worker_id
    ahead.worker_pid = ahead.worker_pid or behind.worker_pid
    found[key] = ahead


def _from_row(row: TaskRow, node_id: str, jobs: Jobs) -> TaskState:
    return TaskState(
        task_id=row.task_id.hex(),
        attempt_number=row.attempt,
        name=row.name,
        state=row.state,
        type=row.type,
        actor_id=row.actor_id.hex() or None,
        node_id=node_id if row.worker_id else None,
        worker_id=row.worker_id.hex() or None,
        worker_pid=row.pid or None,
        blocked=row.blocked,
        job_id=jobs.of(_owner(row.task_id)),
        func_or_class_name=row.name,
        parent_task_id=row.parent_task_id.hex() or None,
        required_resources=row.resources,
        creation_time_ms=_milliseconds(row.created),
        start_time_ms=_milliseconds(row.started),
        waits_for=[object_id.hex() for object_id in row.waits_for],
        owner_id=_owner(row.task_id),
    )


def _from_event(event: Event, batch: EventBatch, node_id: str, jobs: Jobs) -> TaskState:
    ran = event.kind == "task"
    kind = "NORMAL_TASK"
    if event.actor_id:
        kind = "ACTOR_CREATION_TASK" if event.actor_id == event.task_id else "ACTOR_TASK"
    started = _milliseconds(event.started + batch.clock)
    return TaskState(
        task_id=event.task_id.hex(),
        attempt_number=event.attempt,
        name=event.name,
        state="FAILED" if event.error_type else "FINISHED",
        type=kind,
        actor_id=event.actor_id.hex() or None,
        node_id=node_id if ran else None,
        worker_id=batch.process_id.hex() if ran else None,
        worker_pid=batch.pid if ran else None,
        error_type=event.error_type or None,
        error_message=event.error_message or None,
        job_id=jobs.of(_owner(event.task_id)),
        func_or_class_name=event.name,
        creation_time_ms=None if ran else started,
        start_time_ms=started if ran else None,
        end_time_ms=_milliseconds(event.ended + batch.clock),
        owner_id=_owner(event.task_id),
    )


def _owner(task_id: bytes) -> str:
    from skate.ids import owner_of

    return owner_of(task_id).hex()


def _milliseconds(seconds: float) -> float | None:
    return round(seconds * 1000, 3) if seconds > 1e6 else None
