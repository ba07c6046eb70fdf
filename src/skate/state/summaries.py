"""``summarize_*``: how many of what, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from skate.state.filters import MOST_ROWS
from skate.state.listing import DEFAULT_TIMEOUT, list_actors, list_objects, list_tasks
from skate.state.rows import ObjectState


def summarize_tasks(
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    raise_on_missing_output: bool = False,
) -> dict[str, Any]:
    """Count tasks by name and state.

    Returns:
        ``{"cluster": {"summary": {name: {"func_or_class_name", "type", "state_counts": {state:
        count}}}, "total_tasks", "total_actor_tasks", "total_actor_scheduled", "summary_by":
        "func_name"}}``, of the 10,000 rows at most that ``list_tasks`` returns.

    Raises:
        SessionError, StateError, NotSupportedError: As ``list_tasks``.
    """
    totals: Counter[str] = Counter()
    summary: dict[str, dict[str, Any]] = {}
    for task in list_tasks(
        address, limit=MOST_ROWS, timeout=timeout, raise_on_missing_output=raise_on_missing_output
    ):
        totals[task.type] += 1
        entry = summary.setdefault(
            task.name, {"func_or_class_name": task.name, "type": task.type, "state_counts": {}}
        )
        counts = entry["state_counts"]
        counts[task.state] = counts.get(task.state, 0) + 1
    return {
        "cluster": {
            "summary": summary,
            "total_tasks": totals["NORMAL_TASK"],
            "total_actor_tasks": totals["ACTOR_TASK"],
            "total_actor_scheduled": totals["ACTOR_CREATION_TASK"],
            "summary_by": "func_name",
        }
    }


def summarize_actors(
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    raise_on_missing_output: bool = False,
) -> dict[str, Any]:
    """Count actors by class and state.

    Returns:
        ``{"cluster": {"summary": {class: {"class_name", "state_counts": {state: count}}},
        "total_actors", "summary_by": "class"}}``

    Raises:
        SessionError: There is no such session.
    """
    summary: dict[str, dict[str, Any]] = {}
    actors = list_actors(
        address, limit=MOST_ROWS, timeout=timeout, raise_on_missing_output=raise_on_missing_output
    )
    for actor in actors:
        entry = summary.setdefault(
            actor.class_name, {"class_name": actor.class_name, "state_counts": {}}
        )
        counts = entry["state_counts"]
        counts[actor.state] = counts.get(actor.state, 0) + 1
    return {"cluster": {"summary": summary, "total_actors": len(actors), "summary_by": "class"}}


def summarize_objects(
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    raise_on_missing_output: bool = False,
) -> dict[str, Any]:
    """Count objects by where they were made (or, if that is not known, by who holds them).

    Returns:
        ``{"cluster": {"summary": {call site: {"total_objects", "total_size_mb",
        "total_num_workers", "total_num_nodes", "task_state_counts", "ref_type_counts"}},
        "total_objects", "total_size_mb", "summary_by": "callsite"}}``; an object counts once.

    Raises:
        SessionError, StateError, NotSupportedError: As ``list_tasks``.
    """
    rows = list_objects(
        address, limit=MOST_ROWS, timeout=timeout, raise_on_missing_output=raise_on_missing_output
    )
    groups: dict[str, list[ObjectState]] = {}
    for row in rows:
        groups.setdefault(row.call_site or row.holder, []).append(row)
    summary = {}
    for site, group in groups.items():
        sizes = _sizes(group)
        summary[site] = {
            "total_objects": len(sizes),
            "total_size_mb": sum(sizes.values()) / 1e6,
            "total_num_workers": len({row.worker_id for row in group}),
            "total_num_nodes": len({row.node_id for row in group}),
            "task_state_counts": dict(Counter(row.task_status for row in group)),
            "ref_type_counts": dict(Counter(row.reference_type for row in group)),
        }
    sizes = _sizes(rows)
    return {
        "cluster": {
            "summary": summary,
            "total_objects": len(sizes),
            "total_size_mb": sum(sizes.values()) / 1e6,
            "summary_by": "callsite",
        }
    }


def _sizes(rows: Iterable[ObjectState]) -> dict[str, int]:
    """Return the size of each object; some processes do not know it."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.object_id] = max(row.object_size or 0, sizes.get(row.object_id, 0))
    return sizes
