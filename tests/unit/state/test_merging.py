"""A task as its owner, its executor and the daemon's memory see it: the furthest view counts."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from skate.runtime.wire.state import Event, EventBatch, Inspection, Page, TaskRow
from skate.state.rows import TaskState
from skate.state.tasks import tasks

TASK = b"owner-id" + bytes(8)
OWNER, WORKER, NODE = b"owner-id", b"workerid", b"node-id!"
WALL = 1.8e9

encode = msgspec.msgpack.encode


class Source:
    """A session that answers with these pages."""

    def __init__(self, *pages: Page) -> None:
        self.pages = list(pages)
        self.asked: list[tuple[Any, ...]] = []

    def state(self, what: str) -> list[dict[str, Any]]:
        return [{"job_id": "job", "driver_id": OWNER.hex()}] if what == "jobs" else []

    def inspect(self, *question: Any) -> Inspection:
        self.asked.append(question)
        return Inspection(1, self.pages, [])


def owner_page(state: str, attempt: int = 0) -> Page:
    row = TaskRow(TASK, attempt, "f", state, "NORMAL_TASK", b"", created=WALL)
    row.resources, row.parent_task_id = {"CPU": 1.0}, b"parent"
    return Page(NODE, OWNER, 1, "driver", encode([row]), 1)


def executor_page(attempt: int = 0) -> Page:
    row = TaskRow(
        TASK, attempt, "f", "RUNNING", "NORMAL_TASK", b"", b"", WORKER, 2, started=WALL + 1
    )
    return Page(NODE, WORKER, 2, "worker", encode([row]), 1)


def ended_page(error: str = "", attempt: int = 0, kind: str = "task") -> Page:
    event = Event(kind, "f", 1.0, 2.0, TASK, attempt, b"", 0, error, "why" if error else "")
    batch = EventBatch(WORKER, 2, WALL, 0, [event])
    return Page(NODE, NODE, 3, "node", encode([batch]), 1)


def found(*pages: Page, filters: Any = ()) -> list[TaskState]:
    return tasks(Source(*pages), 100, list(filters), 1.0, False)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_furthest_view_counts_in_whatever_order_they_come(order: tuple[int, ...]) -> None:
    pages = [owner_page("SUBMITTED_TO_WORKER"), executor_page(), ended_page()]
    [task] = found(*(pages[index] for index in order))
    assert (task.state, task.worker_pid) == ("FINISHED", 2)
    # What only the owner knows.
    assert task.required_resources == {"CPU": 1.0}
    assert task.parent_task_id == b"parent".hex()
    assert task.creation_time_ms == WALL * 1000
    assert task.job_id == "job"


def test_a_running_task_is_not_pending() -> None:
    [task] = found(owner_page("SUBMITTED_TO_WORKER"), executor_page())
    assert (task.state, task.node_id) == ("RUNNING", NODE.hex())


def test_each_attempt_is_a_row() -> None:
    rows = found(ended_page("ValueError"), executor_page(attempt=1))
    assert [(row.attempt_number, row.state) for row in rows] == [(1, "RUNNING"), (0, "FAILED")]


def test_a_task_that_was_lost_has_no_worker() -> None:
    [task] = found(ended_page("WorkerCrashedError", kind="lost"))
    assert (task.state, task.worker_id, task.error_message) == ("FAILED", None, "why")


def test_only_what_cannot_change_is_filtered_far_away() -> None:
    source = Source(owner_page("SUBMITTED_TO_WORKER"), executor_page())
    tasks(source, 5, [("state", "=", "RUNNING"), ("type", "=", "NORMAL_TASK")], 1.0, False)
    [(what, limit, filters, _, _)] = source.asked
    # Nothing that has ended is asked for, and no limit cuts off what the other filter finds.
    assert what == "live tasks"
    assert filters == [("type", "=", "NORMAL_TASK")]
    assert limit == 10_000
    tasks(source, 5, [("state", "=", "finished")], 1.0, False)
    assert source.asked[-1][0] == "tasks"
