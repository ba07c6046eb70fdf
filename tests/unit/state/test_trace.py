"""Events as Chrome draws them: in each line of a process they are nested or follow each other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.wire.state import Event, EventBatch
from skate.state.trace import _Trace

PROCESS = b"process1"


def event(kind: str, started: float, ended: float, task: bytes = b"", thread: int = 0) -> Event:
    return Event(kind, "name", started, ended, task, 0, b"", thread, "", "")


def drawn(events: list[Event]) -> list[dict[str, Any]]:
    trace = _Trace({}, set())
    trace.process(EventBatch(PROCESS, 7, 0.0, 0, events))
    trace.add(PROCESS, events, 0.0)
    return [found for found in trace.events if found["ph"] == "X"]


spans = st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(0, 2)).map(
    lambda span: event("task", span[0], span[0] + span[1], bytes(span), span[2])
)


@given(st.lists(spans, max_size=40))
def test_lines_are_nested_whatever_overlaps(events: list[Event]) -> None:
    found = drawn(events)
    assert len(found) == len(events)
    lines: dict[int, list[tuple[float, float]]] = {}
    for one in found:
        lines.setdefault(one["tid"], []).append((one["ts"], one["ts"] + one["dur"]))
    for line in lines.values():
        open_: list[float] = []
        for start, end in sorted(line, key=lambda span: (span[0], -span[1])):
            while open_ and open_[-1] <= start:
                open_.pop()
            assert not open_ or end <= open_[-1]
            open_.append(end)


def test_what_follows_shares_a_line_and_what_overlaps_does_not() -> None:
    first, second, third = drawn(
        [event("task", 0, 10, b"a"), event("task", 10, 20, b"b"), event("task", 15, 25, b"c")]
    )
    assert first["tid"] == second["tid"] != third["tid"]


def test_a_wait_is_drawn_in_its_task() -> None:
    found = drawn(
        [
            event("task", 0, 100, b"a", 1),
            event("task", 1, 90, b"b", 2),
            event("wait", 10, 20, b"b", 2),
            event("wait", 10, 20, b"a", 1),
        ]
    )
    line = {(one["cat"], one["args"]["task_id"]): one["tid"] for one in found}
    assert line["wait", b"a".hex()] == line["task", b"a".hex()]
    assert line["wait", b"b".hex()] == line["task", b"b".hex()]


def test_processes_with_one_pid_are_told_apart() -> None:
    trace = _Trace({}, set())
    for process_id in (b"process1", b"process2"):
        trace.process(EventBatch(process_id, 7, 0.0, 0, []))
    assert len({found["pid"] for found in trace.events}) == 2
