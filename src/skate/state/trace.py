"""``timeline``: what ran when, as events that Chrome (chrome://tracing) and Perfetto show.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from skate.state.filters import MOST_ROWS
from skate.state.listing import DEFAULT_TIMEOUT
from skate.state.objects import holder_names
from skate.state.source import opened, pages_of
from skate.state.tasks import decoded_batches

if TYPE_CHECKING:
    from skate.runtime.wire.state import Event, EventBatch, TaskRow

#: Events that a timeline has at most: what the daemon keeps.
MOST_EVENTS = 1_000_000


def timeline(
    filename: str | None = None, address: str | None = None
) -> list[dict[str, Any]] | None:
    """Return what the processes of the session have done, as events of Chrome's trace format.

    Tasks, actor calls, and waits in ``get`` and ``wait`` that took longer than a millisecond; what
    still runs ends now.  About the last 200,000 events are known; of more than 10,000 in a second
    in one process the last 10,000.

    Args:
        filename: Write them to this file, as JSON, and return None.
        address: As in ``skate.state.list_tasks``.

    Raises:
        SessionError: There is no such session.
        NotSupportedError: The session's engine has no processes.
        OSError: The file cannot be written.
    """
    from skate.runtime.wire.state import EVENTS, LIVE_TASKS, TaskRow

    with opened(address) as source:
        running, _ = pages_of(
            source, LIVE_TASKS, TaskRow, limit=MOST_ROWS, timeout=DEFAULT_TIMEOUT, strict=False
        )
        now = time.time()
        _, own = pages_of(
            source, EVENTS, TaskRow, limit=MOST_EVENTS, timeout=DEFAULT_TIMEOUT, strict=False
        )
        names = holder_names(source)
    trace = _Trace(names, {page.node_id for page in own})
    batches = [batch for page in own for batch in decoded_batches(page.rows)]
    # One offset for all batches of a process: readings differ by microseconds, and what is nested
    # has to stay so.
    clocks = {batch.process_id: batch.clock for batch in batches}
    by_process: dict[bytes, list[Event]] = {}
    for batch in batches:
        trace.process(batch)
        by_process.setdefault(batch.process_id, []).extend(batch.events)
    for process_id, events in by_process.items():
        trace.add(process_id, events, clocks[process_id])
    for page, rows in running:
        trace.add_running(page.process_id, page.pid, rows, now)
    if filename is None:
        return trace.events
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(trace.events, file)
    return None


class _Lane:
    """One line of the picture: events that are nested in or follow each other."""

    def __init__(self) -> None:
        #: End and task of what is open.
        self.open: list[tuple[float, bytes]] = []

    def takes(self, event: Event, own_only: bool) -> bool:
        while self.open and self.open[-1][0] <= event.started:
            self.open.pop()
        if not self.open:
            return not own_only
        end, task_id = self.open[-1]
        return end >= event.ended and (task_id == event.task_id or not own_only)


class _Trace:
    def __init__(self, names: dict[str, str], nodes: set[bytes]) -> None:
        self.events: list[dict[str, Any]] = []
        self._names = names
        self._nodes = nodes
        #: The number of each process in the trace: its pid, unless another host has that too.
        self._numbers: dict[bytes, int] = {}

    def process(self, batch: EventBatch) -> None:
        self._number(batch.process_id, batch.pid, batch.events)

    def _number(self, process_id: bytes, pid: int, events: Iterable[Event] = ()) -> int:
        number = self._numbers.get(process_id)
        if number is not None:
            return number
        number = pid
        while number in self._numbers.values():
            number += 1 << 22
        self._numbers[process_id] = number
        name = self._names.get(process_id.hex())
        if process_id in self._nodes:
            name = "node daemon"
        if name is None:
            # It has ended: an actor is known by its constructor.
            name = next(
                (
                    "actor " + event.name.removesuffix(".__init__")
                    for event in events
                    if event.actor_id and event.actor_id == event.task_id
                ),
                "worker",
            )
        self.events.append(
            {
                "ph": "M",
                "name": "process_name",
                "pid": number,
                "tid": 0,
                "args": {"name": f"{name} (pid {pid})"},
            }
        )
        return number

    def add(self, process_id: bytes, events: list[Event], clock: float) -> None:
        number = self._numbers[process_id]
        lanes: dict[int, list[_Lane]] = {}
        lane_numbers: dict[tuple[int, int], int] = {}
        for event in sorted(events, key=lambda event: (event.started, -event.ended)):
            common = {
                "name": event.name or "get",
                "pid": number,
                "ts": (event.started + clock) * 1e6,
                "args": _arguments(event),
            }
            if event.kind == "lost":
                common["ts"] = (event.ended + clock) * 1e6
                self.events.append({"ph": "i", "s": "p", "tid": 0, "cat": "failure", **common})
                continue
            thread_lanes = lanes.setdefault(event.thread, [])
            index = _place(thread_lanes, event)
            key = (event.thread, index)
            lane = lane_numbers.setdefault(key, len(lane_numbers))
            if event.kind == "wait":
                common["name"] = f"wait in {event.name}" if event.name else "wait"
            self.events.append(
                {
                    "ph": "X",
                    "tid": lane,
                    "cat": _category(event),
                    "dur": max(event.ended - event.started, 0.0) * 1e6,
                    **common,
                }
            )

    def add_running(self, process_id: bytes, pid: int, rows: list[TaskRow], now: float) -> None:
        for row in rows:
            if row.state != "RUNNING":
                continue
            self.events.append(
                {
                    "ph": "X",
                    "tid": 0,
                    "cat": "actor_call" if row.actor_id else "task",
                    "name": row.name,
                    "pid": self._number(process_id, pid),
                    "ts": row.started * 1e6,
                    "dur": max(now - row.started, 0.0) * 1e6,
                    "args": {"task_id": row.task_id.hex(), "running": True},
                }
            )


def _place(lanes: list[_Lane], event: Event) -> int:
    """Find the lane of an event: a wait belongs to its task, others go where there is room."""
    for own_only in (True, False) if event.kind == "wait" else (False,):
        for index, lane in enumerate(lanes):
            if lane.takes(event, own_only):
                lane.open.append((event.ended, event.task_id))
                return index
    lane = _Lane()
    lane.open.append((event.ended, event.task_id))
    lanes.append(lane)
    return len(lanes) - 1


def _category(event: Event) -> str:
    if event.kind != "task":
        return event.kind
    return "actor_call" if event.actor_id else "task"


def _arguments(event: Event) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if event.task_id:
        arguments["task_id"] = event.task_id.hex()
    if event.actor_id:
        arguments["actor_id"] = event.actor_id.hex()
    if event.attempt:
        arguments["attempt"] = event.attempt
    if event.error_type:
        arguments["error"] = f"{event.error_type}: {event.error_message}"
    return arguments
