"""The items of a generator at its caller: in order, each once, whatever is sent again."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skate.engine.base import STREAMING
from skate.ids import nth
from skate.runtime.wire.calls import StreamItems, StreamTaken, Terms
from skate.runtime.worker.cells import FAILED, INLINE, Cell
from skate.runtime.worker.streams import Stream

TASK = b"process_" + bytes(7) + b"\x10"


class FakeCore:
    """What a stream needs of a core: a lock, and somewhere to send acknowledgements."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.address = "here"
        self.sent: list[Any] = []
        self.pump = SimpleNamespace(completions=0, nudge=lambda: None)
        self.links = SimpleNamespace(send=lambda _peer, message: self.sent.append(message))
        self.objects = SimpleNamespace(fail=self._fail, complete=self._complete)

    def _fail(self, cell: Cell, error: bytes) -> None:
        cell.data = error
        cell.complete(FAILED)

    def _complete(self, cell: Cell, status: int) -> None:
        cell.complete(status)


def make_stream(limit: int = 0) -> tuple[Any, Stream]:
    core = FakeCore()
    record: Any = SimpleNamespace(
        task_id=TASK,
        cells=[Cell(TASK, "here")],
        task=SimpleNamespace(num_returns=STREAMING),
        peer="worker",
    )
    return core, Stream(core, record, limit)  # type: ignore[arg-type]  # as much as it needs


def items(first: int, count: int) -> StreamItems:
    return StreamItems(TASK, first, [b"%d" % i for i in range(first, first + count)])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4))))
def test_every_item_once_and_in_order(steps: list[tuple[int, int, int]]) -> None:
    _, stream = make_stream()
    taken: list[Any] = []
    arrived = 0
    for again, new, take in steps:
        # A further attempt may send some items that are known, never leave one out.
        first = max(arrived - again, 0)
        stream.on_items(items(first, arrived - first + new))
        arrived += new
        for _ in range(take):
            assert bool(stream.status) == (len(taken) < arrived)
            if stream.status:
                taken.append(stream.take(0))
    stream.end(None)
    while (ref := stream.take(0)) is not None:
        taken.append(ref)
    assert [ref._cell.data for ref in taken] == [b"%d" % i for i in range(arrived)]
    assert [ref.binary() for ref in taken] == [nth(TASK, 1 + i) for i in range(arrived)]
    assert stream.is_finished()
    assert stream.completed()._cell.status == INLINE


@given(st.integers(1, 8), st.lists(st.integers(1, 8), max_size=20))
def test_a_full_producer_is_always_told(limit: int, takes: list[int]) -> None:
    """When everything is taken the producer knows, so it never waits for ever."""
    core, stream = make_stream(limit)
    made = known = 0
    for take in takes:
        while made - known < limit:
            stream.on_items(items(made, 1))
            made += 1
        for _ in range(take):
            if not stream.status:
                break
            stream.take(0)
        for message in core.sent:
            assert type(message) is StreamTaken
            known = message.count
        core.sent.clear()
        assert known <= stream.taken <= made
        if stream.taken == made:
            assert known == made
        # It is told late, but never so late that it would stand still with half its room free.
        assert stream.taken - known < max(1, limit // 2)


def test_the_next_attempt_leaves_out_what_has_arrived() -> None:
    _, stream = make_stream()
    stream.on_items(items(0, 5))
    stream.take(0)
    terms = Terms()
    stream.resume(terms)
    assert (terms.received, terms.taken) == (5, 1)


def test_an_error_is_the_last_item() -> None:
    _, stream = make_stream()
    stream.on_items(items(0, 1))
    stream.end(b"error", raised=True)
    first, last = stream.take(0), stream.take(0)
    assert first is not None
    assert last is not None
    assert (first._cell.status, last._cell.status) == (INLINE, FAILED)
    assert stream.take(0) is None
    assert stream.completed()._cell.status == FAILED
