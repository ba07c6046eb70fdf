"""What a process tells of those who make what is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from skate.runtime.wire.messages import Task
from skate.runtime.wire.state import TaskRow
from skate.runtime.wire.waits import GET, CallRow
from skate.runtime.worker.cells import Cell
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.record import Record
from skate.runtime.worker.waits import MOST_NAMED, Waits


class Borrower:
    def on_ready(self, cell: Cell) -> None: ...


def pending(number: int) -> Record:
    """A call whose result is object ``number``; it waits for a worker and nothing else."""
    object_id = number.to_bytes(4, "big")
    cell = Cell(object_id, "")
    cell.listen(Waiter(1))
    task = Task(b"task" + object_id, b"", b"", 1, [], [], [], 0, "f", b"", "", 0)
    return Record(task, [cell])


def told(records: list[Record]) -> list[bytes]:
    """What is told if a thread waits for the results of all of these."""
    core: Any = SimpleNamespace(
        submitter=SimpleNamespace(pending={record.task_id: record for record in records})
    )
    objects = [record.cells[0].object_id for record in records]
    row = CallRow(TaskRow(b"", 0, "the driver", "RUNNING", "", b""), 1, GET, objects, len(objects))
    empty = TaskRow(b"", 0, "f", "", "", b"")
    made = Waits(core, lambda *_: empty, lambda *_: empty)._made([row])
    return [one.objects[1] for one in made]


def test_of_calls_that_wait_for_a_worker_only_some_are_told():
    records = [pending(number) for number in range(5_000)]
    ids = [record.cells[0].object_id for record in records]
    assert told(records) == ids[:MOST_NAMED]

    # Those that may wait for somebody, and those that others wait for, are all told.
    records[1_000].lease = SimpleNamespace()
    records[2_000].waiting = 1
    records[3_000].task.actor_id = b"actor"
    records[4_000].cells[0].listen(Borrower())
    assert told(records) == [*ids[:MOST_NAMED], *(ids[n] for n in (1_000, 2_000, 3_000, 4_000))]
