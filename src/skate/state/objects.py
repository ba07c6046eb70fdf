"""Objects, as the processes that hold them say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.state.rows import ObjectState
from skate.state.source import Source, pages_of

if TYPE_CHECKING:
    from skate.runtime.wire.state import Filter, ObjectRow, Page

_STATUS = {"pending": "PENDING", "failed": "FAILED"}


def objects(
    source: Source, limit: int, filters: Sequence[Filter], timeout: float, strict: bool
) -> list[ObjectState]:
    """Return all objects that may pass the filters, the largest first."""
    from skate.runtime.wire.state import OBJECTS, ObjectRow

    stable = [f for f in filters if f[0] == "object_id"]
    pages, _ = pages_of(
        source,
        OBJECTS,
        ObjectRow,
        limit=max(limit, 10_000),
        timeout=timeout,
        strict=strict,
        filters=stable,
    )
    holders = holder_names(source)
    stored: dict[str, dict[str, Any]] = {}
    for found in source.state("objects"):
        known = stored.setdefault(str(found["object_id"]), found)
        # Spilled only if no node has it in memory.
        known["spilled"] = bool(known["spilled"]) and bool(found["spilled"])
        known["call_site"] = known["call_site"] or found["call_site"]
    rows = [
        _from_row(row, page, holders, stored.get(row.object_id.hex(), {}))
        for page, held in pages
        for row in held
    ]
    # Processes that have not asked for a value do not know how large it is.
    sizes = {row.object_id: row.object_size for row in rows if row.object_size is not None}
    for row in rows:
        row.object_size = sizes.get(row.object_id)
    rows.sort(key=lambda row: (-(row.object_size or 0), row.object_id, not row.owned))
    return rows


def holder_names(source: Source) -> dict[str, str]:
    """Return what each process is, by its id: "driver", "actor Counter", "worker"."""
    actors = {
        str(row["worker_id"]): f"actor {row['name'] or row['class_name']}"
        for row in source.state("actors")
        if row.get("worker_id")
    }
    names = {str(row["worker_id"]): "driver" for row in source.state("drivers")}
    for row in source.state("workers"):
        worker_id = str(row["worker_id"])
        names[worker_id] = actors.get(worker_id, "worker")
    return names


def _from_row(
    row: ObjectRow, page: Page, holders: dict[str, str], stored: dict[str, Any]
) -> ObjectState:
    process = page.process_id.hex()
    location = row.location.upper()
    if stored.get("spilled"):
        location = "SPILLED"
    return ObjectState(
        object_id=row.object_id.hex(),
        object_size=None if row.size < 0 else row.size,
        location=location,
        reference_type=_reference_type(row),
        pid=page.pid,
        type=page.kind.upper(),
        holder=holders.get(process, page.kind),
        owned=row.owned,
        call_site=row.call_site or str(stored.get("call_site", "")),
        task_status=_STATUS.get(row.location, "FINISHED") if row.task_name else "NIL",
        task_name=row.task_name,
        local_references=row.local_refs,
        pending_tasks=row.pending_tasks,
        captured_in=row.captured_in,
        borrowers=[
            f"{holders.get(borrower.hex(), 'process')} ({borrower.hex()})"
            for borrower in row.borrowers
        ],
        pinned_forever=row.pinned,
        worker_id=process,
        node_id=page.node_id.hex(),
    )


def _reference_type(row: ObjectRow) -> str:
    if row.is_actor:
        return "ACTOR_HANDLE"
    if row.views:
        return "PINNED_IN_MEMORY"
    if row.local_refs:
        return "LOCAL_REFERENCE"
    if row.pending_tasks:
        return "USED_BY_PENDING_TASK"
    if row.captured_in:
        return "CAPTURED_IN_OBJECT"
    return "BORROWED" if row.borrowers else "UNKNOWN"
