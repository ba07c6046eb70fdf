"""What the calls and threads of this process wait for, read off their stacks when somebody asks.

Nothing is written down while a thread waits, so that waiting costs nothing: its frames have the
objects that it waits for in their variables.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from skate.runtime.wire.state import TaskRow
from skate.runtime.wire.waits import (
    AS_COMPLETED,
    DEBUGGER,
    GET,
    NEXT,
    WAIT,
    CallRow,
    MadeRow,
    QueueRow,
    WaitPage,
)
from skate.runtime.worker import execute
from skate.runtime.worker.cells import Cell
from skate.runtime.worker.completions import Completions
from skate.runtime.worker.invoke import group_of
from skate.runtime.worker.objects import Objects
from skate.runtime.worker.own_code import PACKAGE
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.streams import Stream

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.invoke import Running
    from skate.runtime.worker.record import Record

#: Rows of each kind in one answer at most.
MOST_ROWS = 10_000
#: Objects that one call waits for, at most: with more it is taken for one that may go on.
MOST_OBJECTS = 10_000
#: Of what one call waits for: so many calls are told of that wait for a worker and nothing else.
#: They are taken for ones that go on, as unknown ones are, and a driver may have very many.
MOST_NAMED = 100

_HERE = os.path.dirname(__file__)
_LOOP_FILE = os.path.join(_HERE, "event_loop.py")
_DEBUGGER_FILE = os.path.join(_HERE, "debugger.py")
#: Below this frame the call of the frames above is another one.
_INVOKE = execute.Executor.invoke.__code__


def _in_get(variables: dict[str, Any]) -> tuple[list[Any], int, bool]:
    missing = [cell for cell in variables["cells"] if not cell.status]
    return missing, len(missing), variables["deadline"] is not None


def _in_wait(variables: dict[str, Any]) -> tuple[list[Any], int, bool]:
    cells = [ref._cell for ref in variables["refs"]]
    missing = [cell for cell in cells if not cell.status]
    needed = variables["num_returns"] - (len(cells) - len(missing))
    return missing, needed, variables["timeout"] is not None


def _in_stream(variables: dict[str, Any]) -> tuple[list[Any], int, bool]:
    return [variables["self"]], 1, variables["deadline"] is not None


def _in_as_completed(variables: dict[str, Any]) -> tuple[list[Any], int, bool]:
    return list(variables["self"].waiting), 1, variables["deadline"] is not None


#: The functions in which threads wait for objects: how to read what they wait for.
_WAITING: dict[CodeType, tuple[str, Callable[[dict[str, Any]], tuple[list[Any], int, bool]]]] = {
    Objects._await.__code__: (GET, _in_get),
    Objects.wait.__code__: (WAIT, _in_wait),
    Stream.take.__code__: (NEXT, _in_stream),
    Completions.take.__code__: (AS_COMPLETED, _in_as_completed),
}


def _begins_call(code: CodeType) -> bool:
    # By name where the module is only imported in async actors.
    return code is _INVOKE or (code.co_name == "_invoke" and code.co_filename == _LOOP_FILE)


class Waits:
    """Answers the daemon's question who waits for what."""

    def __init__(
        self,
        core: Core,
        running_row: Callable[[Running, float], TaskRow],
        pending_row: Callable[[Record, float], TaskRow],
    ) -> None:
        """The functions make rows of calls, given what turns their clock into Unix time."""
        self._core = core
        self._clock = time.time() - time.perf_counter()
        self._running_row = running_row
        self._pending_row = pending_row

    def page(self) -> WaitPage:
        """Locked.  Return what waits here, and who makes what is waited for."""
        executor = self._core.executor
        rows: list[CallRow] = []
        for ident, frame in sys._current_frames().items():
            rows += self._thread(ident, frame)
        # One of them is this one: with a reference to itself it would keep all that is below it
        # on the stack, the user's data as well, until Python looks for cycles.
        del frame
        if executor is not None and executor.is_concurrent:
            told = {row.task.task_id for row in rows}
            others = [
                CallRow(self._running_row(running, self._clock), 0)
                for running in executor.running_calls()
                if running.task_id not in told
            ]
            self._describe_suspended(others)
            rows += others
        return WaitPage(
            rows[:MOST_ROWS],
            self._made(rows),
            executor is not None and executor.is_concurrent,
            self._queues(),
        )

    def _describe_suspended(self, rows: list[CallRow]) -> None:
        calls = self._core.executor.async_calls if self._core.executor is not None else None
        if calls is None:
            return
        from skate.runtime.worker import suspended  # it imports asyncio, as this actor has

        tasks = calls.suspended()
        bounded = suspended.may_time_out(calls)
        for row in rows[:MOST_ROWS]:
            task = tasks.get(row.task.task_id)
            if task is not None:
                suspended.describe(row, task)
                row.bounded = bounded

    def _queues(self) -> list[QueueRow]:
        """Locked.  Return which calls of a concurrent actor wait for the end of which others."""
        executor = self._core.executor
        calls = executor.concurrent if executor is not None else None
        if executor is None or calls is None:
            return []
        rows: list[QueueRow] = []
        running = sorted(calls.running, key=lambda call: call.started)
        beyond = [call for call in running if call in calls.beyond]
        for group, limit, queue in calls.groups.waiting():
            inside = [
                call
                for call in running
                if group_of(call.task) == group and call not in calls.beyond
            ]
            # With fewer one is just about to begin.
            if len(inside) >= limit:
                queued = [task.task_id for task, _peer in itertools.islice(queue, MOST_ROWS)]
                ahead = [call.task_id for call in (*inside, *beyond)]
                rows.append(QueueRow(group, limit, ahead, queued))
        if executor.async_calls is not None and (blocking := executor.async_calls.blocking):
            queued = executor.queued_ids()[:MOST_ROWS]
            rows.append(QueueRow("", 0, [blocking[-1].task_id], queued))
        return rows

    def _thread(self, ident: int, frame: FrameType | None) -> Iterator[CallRow]:
        """Walk one stack from the inside out: the innermost call first."""
        executor = self._core.executor
        calls = executor.calls_in_thread(ident) if executor is not None else []
        above = b""
        row = self._row(calls.pop() if calls else None, ident)
        while frame is not None:
            code = frame.f_code
            if row.task.task_id and _begins_call(code):
                yield row
                above = row.task.task_id
                row = self._row(calls.pop() if calls else None, ident)
                row.below = above
            elif not row.kind and code in _WAITING:
                row.kind, read = _WAITING[code]
                missing, row.needed, row.bounded = read(frame.f_locals)
                row.objects = [cell.object_id for cell in missing[:MOST_OBJECTS]]
                row.needed = min(row.needed, max(0, MOST_OBJECTS + row.needed - len(missing)))
            elif not row.kind and code.co_filename == _DEBUGGER_FILE:
                row.kind = DEBUGGER
            elif not row.place and not code.co_filename.startswith(PACKAGE):
                row.place = f"{code.co_filename}:{frame.f_lineno}"
                row.function = code.co_name
            frame = frame.f_back
        if row.task.task_id or row.kind:
            yield row

    def _row(self, running: Running | None, ident: int) -> CallRow:
        if running is not None:
            return CallRow(self._running_row(running, self._clock), ident)
        core = self._core
        main = ident == threading.main_thread().ident
        name = "the driver" if core.is_driver else f"process {os.getpid()}"
        if not main:
            name = f"a thread of {name}"
        empty = TaskRow(b"", 0, name, "RUNNING", "", b"", b"", core.process_id, os.getpid())
        return CallRow(empty, ident)

    def _made(self, waits: list[CallRow]) -> list[MadeRow]:
        """Locked.  Return the calls whose results are waited for here (``waits``), or elsewhere."""
        waited = {one for row in waits for one in row.objects}
        named = {one for row in waits for one in row.objects[:MOST_NAMED]}
        rows: list[MadeRow] = []
        for record in self._core.submitter.pending.values():
            if _waits_for_worker(record):
                objects, listens = named, _others_listen
            else:
                objects, listens = waited, _somebody_listens
            # The items of a generator have no cells of their own here: its call stands for them.
            if record.task_id in objects or any(
                cell.object_id in objects or listens(cell) for cell in record.cells
            ):
                missing = record.slot_cells if record.waiting else ()
                rows.append(
                    MadeRow(
                        self._pending_row(record, self._clock),
                        [record.task_id, *(cell.object_id for cell in record.cells)],
                        [cell.object_id for cell in missing if not cell.status],
                    )
                )
                if len(rows) == MOST_ROWS:
                    break
        return rows


def _waits_for_worker(record: Record) -> bool:
    """Whether a call has everything that it needs, but a process to run in."""
    return record.lease is None and not record.waiting and not record.task.actor_id


def _somebody_listens(cell: Cell) -> bool:
    return bool(cell.listeners)


def _others_listen(cell: Cell) -> bool:
    """Whether more wait for an object than threads of this process, which are known to."""
    listeners = cell.listeners or ()
    return not all(isinstance(listener, Waiter) for listener in listeners)
