"""Finding objects: in memory, elsewhere, nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skate.runtime.node.loop import Loop
from skate.runtime.node.objects import BRING_SECONDS, NodeObjects
from skate.runtime.node.room import LOOK_SECONDS
from skate.runtime.store import header
from skate.runtime.store.server import SegmentTable
from skate.runtime.store.spill.local import LocalStorage
from skate.runtime.wire.messages import (
    LocateObject,
    Location,
    ObjectFreed,
    ObjectLocated,
    ObjectStored,
)

NODE, OTHER = b"node-id.", b"other-id"
WRITER, READER, OWNER = b"writer..", b"reader..", b"owner..."
ID = OWNER + bytes(8)


class Node:
    """The objects of a node, what they send, and the requests to pull something here."""

    def __init__(self, tmp_path: Path) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.table = SegmentTable(NODE, 1 << 24)
        self.loop = Loop()
        self.storage = LocalStorage(str(tmp_path / "spill"))
        self.objects = NodeObjects(self.loop, NODE, self.table, self.storage, self.sent.extend)
        self.pulls: list[tuple[bytes, Location, str, Any]] = []

    def store(self, object_id: bytes = ID) -> Location:
        answer, fd = self.table.acquire(WRITER, 1 << 20)
        assert fd is not None
        location = Location(NODE, answer.segment_id, 0, 100)
        os.pwrite(fd, header.header(object_id, 100), 0)
        self.objects.stored(WRITER, ObjectStored(object_id, location))
        return location

    def ask(self, number: int, hint: Location) -> None:
        self.objects.locate(READER, LocateObject(number, ID, hint))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.objects.close()
    node.table.close()
    node.loop.close()


def test_a_wrong_hint_is_corrected(node: Node) -> None:
    location = node.store()
    node.ask(7, Location(NODE, 99, 5, 100))
    assert node.sent == [(READER, ObjectLocated(7, ID, location, ""))]


def test_what_nobody_has_is_lost(node: Node) -> None:
    node.ask(7, Location(NODE, 1, 0, 100))
    node.ask(8, Location(OTHER, 1, 0, 100))
    (_, here), (_, there) = node.sent
    assert (here.request_id, here.location) == (7, None)
    assert "only copy" in here.reason
    assert there.location is None
    assert OTHER.hex() in there.reason


def test_what_is_elsewhere_is_pulled_once_for_all_who_ask(node: Node) -> None:
    node.objects.pull = lambda *request: node.pulls.append(request)
    hint = Location(OTHER, 3, 0, 100)
    node.ask(1, hint)
    node.ask(2, hint)
    [(object_id, asked, _, found)] = node.pulls
    assert (object_id, asked) == (ID, hint)
    assert node.sent == []
    location = node.store()
    found(location, "")
    assert node.sent == [
        (READER, ObjectLocated(1, ID, location, "")),
        (READER, ObjectLocated(2, ID, location, "")),
    ]
    node.ask(3, hint)
    assert node.sent[-1] == (READER, ObjectLocated(3, ID, location, ""))
    assert len(node.pulls) == 1


def test_what_could_not_be_pulled_is_asked_for_again(node: Node) -> None:
    node.objects.pull = lambda *request: node.pulls.append(request)
    for number in (1, 2):
        node.ask(number, Location(OTHER, 3, 0, 100))
        node.pulls[-1][3](None, "the node is gone")
        assert node.sent[-1] == (READER, ObjectLocated(number, ID, None, "the node is gone"))
    assert len(node.pulls) == 2


def test_what_is_damaged_here_may_be_elsewhere(node: Node) -> None:
    node.objects.pull = lambda *request: node.pulls.append(request)
    hint = node.store()
    entry = node.table.find(ID)
    assert entry is not None
    node.table.lost(entry)
    node.ask(1, hint)
    [(object_id, asked, reason, found)] = node.pulls
    assert (object_id, asked) == (ID, hint)
    assert "only copy" in reason
    assert [message for _, message in node.sent if isinstance(message, ObjectLocated)] == []
    there = node.store()
    found(there, "")
    assert node.sent[-1] == (READER, ObjectLocated(1, ID, there, ""))


def test_freed_objects_are_lost(node: Node) -> None:
    location = node.store()
    node.objects.freed(ObjectFreed(ID, location))
    assert node.sent.pop() == (WRITER, ObjectFreed(ID, location))
    node.ask(1, location)
    assert node.sent[-1][1].location is None


def test_what_is_looked_at_is_freed_when_it_is_not_any_more(node: Node) -> None:
    location = node.store()
    reader = header.reopen(node.table._segments[location.segment_id].fd, writable=False)
    assert header.share(reader, 0)
    node.objects.process_died(OWNER)
    assert node.sent == []
    os.close(reader)

    def look() -> None:
        node.loop.stopped = bool(node.sent)
        node.loop.call_later(0.01, look)

    look()
    node.loop.run()
    assert node.sent == [(WRITER, ObjectFreed(ID, location))]


def test_what_waited_in_vain_once_waits_less_the_next_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(node.loop, "now", lambda: now[0])
    # All memory belongs to somebody who has not said yet what is in it.
    assert node.table.acquire(WRITER, 1 << 24)[1] is not None

    def seconds_in_vain() -> float:
        refused: list[str] = []
        node.objects.allocate(100, lambda place, error: refused.append(error))
        started = now[0]
        while not refused:
            now[0] += 0.1
            node.objects.room.run()
        assert "somebody looks" in refused[0]
        return round(now[0] - started)

    assert [seconds_in_vain() for _ in range(3)] == [BRING_SECONDS, 1, 1]
    # Somebody was served since: there is hope again.
    for entry in node.table.segments():
        node.table.give_back(WRITER, entry.segment_id)
    node.objects.room.request(READER, 1 << 20, 5.0, lambda error: None)
    assert node.table.acquire(READER, 1 << 20)[1] is not None
    assert node.table.acquire(WRITER, 15 << 20)[1] is not None
    now[0] += BRING_SECONDS
    assert seconds_in_vain() == BRING_SECONDS


def test_what_is_freed_while_somebody_looks_makes_room_as_soon_as_nobody_does(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(node.loop, "now", lambda: now[0])
    places: list[Any] = []
    size, hint = 12 << 20, Location(OTHER, 3, 0, 12 << 20)
    node.objects.allocate(size, lambda place, error: places.append(place))
    [(segment, offset)] = places
    os.pwrite(segment.fd, header.header(ID, size), offset)
    node.table.pulled(ID, hint, segment, offset)
    reader = header.reopen(segment.fd, writable=False)
    assert header.share(reader, offset)
    node.objects.freed(ObjectFreed(ID, hint))

    # The next one needs the same memory.
    node.objects.allocate(size, lambda place, error: places.append(place))
    node.objects.run()
    assert len(places) == 1
    os.close(reader)
    now[0] += LOOK_SECONDS
    node.objects.run()
    assert len(places) == 2
    assert places[1] is not None
    assert node.table.used_bytes == size + header.HEADER_SIZE
