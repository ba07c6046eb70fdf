"""The segment table: by example, and against a model of processes that live and die."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.runtime.store.server import MAX_EARLY_FREES, SegmentTable
from skate.runtime.wire.messages import Location, ObjectFreed, ObjectStored, SegmentRetired

NODE = b"node-id."
WRITER, OWNER, READER = b"writer..", b"owner...", b"reader.."
MIB = 1 << 20


def object_id(owner: bytes, number: int = 1) -> bytes:
    return owner + number.to_bytes(8, "big")


@pytest.fixture
def table() -> Any:
    table = SegmentTable(NODE, 64 * MIB)
    yield table
    table.close()


def segment_of(table: SegmentTable, writer: bytes = WRITER, size: int = MIB) -> int:
    answer, fd = table.acquire(writer, size)
    assert answer.error == ""
    assert fd is not None
    assert os.fstat(fd).st_size == size
    return answer.segment_id


def store(table: SegmentTable, segment: int, owner: bytes, number: int = 1, offset: int = 0) -> Any:
    """Announce an object of 100 bytes; return how its owner frees it."""
    location = Location(NODE, segment, offset, 100)
    assert table.object_stored(WRITER, ObjectStored(object_id(owner, number), location)) == []
    return ObjectFreed(object_id(owner, number), location)


def test_the_limit_is_kept_and_named(table: SegmentTable) -> None:
    segment = segment_of(table, size=60 * MIB)
    answer, fd = table.acquire(OWNER, 5 * MIB)
    assert fd is None
    for number in (5 * MIB, 60 * MIB, 64 * MIB):
        assert str(number) in answer.error
    table.give_back(WRITER, segment)
    assert table.used_bytes == 0
    segment_of(table, size=64 * MIB)


@pytest.mark.parametrize("size", [0, -1, -(2**63), 2**63, 2**64, 64 * MIB + 1])
def test_hostile_sizes_are_answered(table: SegmentTable, size: int) -> None:
    answer, fd = table.acquire(WRITER, size)
    assert answer.error
    assert fd is None
    assert table.used_bytes == 0


def test_sizes_the_kernel_refuses_are_answered() -> None:
    table = SegmentTable(NODE, 2**70)
    for size in (2**63, 2**64, 2**69):
        answer, fd = table.acquire(WRITER, size)
        assert "cannot make a segment" in answer.error
        assert fd is None
    assert table.used_bytes == 0


def test_unknown_segments_are_answered(table: SegmentTable) -> None:
    segment = segment_of(table)
    for unknown in (0, -1, 2**63, segment + 1):
        assert table.map(READER, unknown)[0].error
        assert table.give_back(WRITER, unknown)[0].error
    assert table.give_back(OWNER, segment)[0].error
    assert table.used_bytes == MIB


def test_a_freed_object_is_passed_on_to_the_writer_once(table: SegmentTable) -> None:
    freed = store(table, segment_of(table), OWNER)
    assert table.object_freed(freed) == [(WRITER, freed)]
    assert table.object_freed(freed) == []
    assert table.object_freed(freed) == []


def test_a_free_that_overtakes_the_announcement_waits_for_it(table: SegmentTable) -> None:
    segment = segment_of(table)
    location = Location(NODE, segment, 64, 100)
    freed = ObjectFreed(object_id(OWNER), location)
    assert table.object_freed(freed) == []
    outgoing = table.object_stored(WRITER, ObjectStored(object_id(OWNER), location))
    assert outgoing == [(WRITER, freed)]
    assert table.give_back(WRITER, segment)[0].error == ""


def test_early_frees_are_bounded(table: SegmentTable) -> None:
    segment = segment_of(table)
    for number in range(MAX_EARLY_FREES + 10):
        location = Location(NODE, segment, 0, 100)
        assert table.object_freed(ObjectFreed(object_id(OWNER, number), location)) == []
    assert len(table._segments[segment].early_frees) <= MAX_EARLY_FREES


def test_objects_of_the_writer_are_its_own_business(table: SegmentTable) -> None:
    segment = segment_of(table)
    freed = store(table, segment, WRITER)
    assert table.object_freed(freed) == []
    assert table.give_back(WRITER, segment)[0].error == ""


@pytest.mark.parametrize(
    "location",
    [
        Location(b"elsewhere", 1, 0, 100),
        Location(NODE, 99, 0, 100),
        Location(NODE, 1, -64, 100),
        Location(NODE, 1, 0, -1),
        Location(NODE, 1, MIB, 1),
        Location(NODE, 1, 2**63, 2**63),
    ],
)
def test_impossible_locations_are_ignored(table: SegmentTable, location: Location) -> None:
    segment = segment_of(table)
    assert segment == 1
    assert table.object_stored(WRITER, ObjectStored(object_id(OWNER), location)) == []
    assert table.object_freed(ObjectFreed(object_id(OWNER), location)) == []
    assert table.give_back(WRITER, segment)[0].error == ""


def test_only_the_writer_can_announce(table: SegmentTable) -> None:
    segment = segment_of(table)
    location = Location(NODE, segment, 0, 100)
    assert table.object_stored(READER, ObjectStored(object_id(OWNER), location)) == []
    assert table.give_back(WRITER, segment)[0].error == ""


def test_short_ids_do_no_harm(table: SegmentTable) -> None:
    location = Location(NODE, segment_of(table), 0, 100)
    assert table.object_stored(WRITER, ObjectStored(b"", location)) == []
    assert table.object_freed(ObjectFreed(b"", location)) == [(WRITER, ObjectFreed(b"", location))]


def test_a_segment_that_is_given_back_is_retired_for_its_readers(table: SegmentTable) -> None:
    segment = segment_of(table)
    answer, fd = table.map(READER, segment)
    assert (answer.segment_id, answer.size) == (segment, MIB)
    assert fd is not None
    _, outgoing = table.give_back(WRITER, segment)
    assert outgoing == [(READER, SegmentRetired(segment))]
    assert table.map(READER, segment)[0].error


def test_a_segment_with_objects_of_others_is_not_taken_back(table: SegmentTable) -> None:
    segment = segment_of(table)
    freed = store(table, segment, OWNER)
    assert "living owners" in table.give_back(WRITER, segment)[0].error
    table.object_freed(freed)
    assert table.give_back(WRITER, segment)[0].error == ""


def test_segments_outlive_their_writer_while_an_owner_needs_them(table: SegmentTable) -> None:
    segment = segment_of(table)
    segment_of(table)
    first = store(table, segment, OWNER, 1)
    second = store(table, segment, OWNER, 2, offset=128)
    store(table, segment, WRITER, 3, offset=256)
    table.map(READER, segment)
    assert table.process_died(WRITER) == []
    assert table.used_bytes == MIB
    answer, fd = table.map(OWNER, segment)
    assert answer.error == ""
    assert fd is not None
    assert table.object_freed(first) == []
    assert table.object_freed(second) == [
        (OWNER, SegmentRetired(segment)),
        (READER, SegmentRetired(segment)),
    ]
    assert table.used_bytes == 0


def test_an_owners_death_ends_segments_without_writer(table: SegmentTable) -> None:
    segment = segment_of(table)
    store(table, segment, OWNER)
    table.process_died(WRITER)
    assert table.used_bytes == MIB
    table.process_died(OWNER)
    assert table.used_bytes == 0


def test_orphans_retire_the_segment_of_a_living_writer(table: SegmentTable) -> None:
    segment, other = segment_of(table), segment_of(table)
    orphan = store(table, segment, OWNER)
    living = store(table, segment, READER, 2, offset=128)
    store(table, other, READER, 3)
    # Retired first: freed before, the memory could be used while a borrower looks at it.
    assert table.process_died(OWNER) == [
        (WRITER, SegmentRetired(segment)),
        (WRITER, orphan),
    ]
    assert table.process_died(OWNER) == []
    assert table.object_freed(living) == [(WRITER, living)]
    assert table.give_back(WRITER, segment)[0].error == ""
    assert table.used_bytes == MIB


def test_what_is_written_for_a_dead_owner_is_freed_at_once(table: SegmentTable) -> None:
    segment = segment_of(table)
    table.process_died(OWNER)
    location = Location(NODE, segment, 0, 100)
    outgoing = table.object_stored(WRITER, ObjectStored(object_id(OWNER), location))
    assert outgoing == [(WRITER, ObjectFreed(object_id(OWNER), location))]
    assert table.give_back(WRITER, segment)[0].error == ""


def test_the_dead_get_nothing(table: SegmentTable) -> None:
    table.process_died(WRITER)
    assert table.acquire(WRITER, MIB)[0].error
    assert table.used_bytes == 0


def test_rows(table: SegmentTable) -> None:
    segment = segment_of(table)
    store(table, segment, OWNER)
    table.map(READER, segment)
    assert table.rows() == [
        {
            "segment_id": segment,
            "size": MIB,
            "writer": WRITER.hex(),
            "retired": False,
            "objects_of_others": 1,
            "readers": 1,
        }
    ]


class Written:
    """What the model knows of an object."""

    def __init__(self, oid: bytes, location: Location, writer: bytes) -> None:
        self.oid = oid
        self.owner = oid[:8]
        self.location = location
        self.writer = writer
        self.announced = False
        self.freed = False
        self.passed_on = 0


class TableMachine(RuleBasedStateMachine):
    """Processes acquire, announce, free, map, give back and die, in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.table = SegmentTable(NODE, 8 * MIB)
        self.living = {b"process%d" % i for i in range(5)}
        #: Segment: its writer, as long as that has not given it back.
        self.writers: dict[int, bytes] = {}
        self.readers: dict[int, set[bytes]] = {}
        self.retired: set[int] = set()
        self.objects: list[Written] = []

    def draw_process(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(sorted(self.living)))

    def receive(self, outgoing: list[Any]) -> None:
        """Check what the daemon would send."""
        for process, message in outgoing:
            assert process in self.living
            if isinstance(message, SegmentRetired):
                if self.writers.get(message.segment_id) == process:
                    self.retired.add(message.segment_id)
                else:
                    assert process in self.readers[message.segment_id]
                    self.readers[message.segment_id].remove(process)
                continue
            (found,) = [o for o in self.objects if o.oid == message.object_id]
            assert message.location == found.location
            assert process == found.writer
            assert found.announced
            assert found.freed or found.owner not in self.living
            if not found.freed and found.announced_while_owner_lived:
                assert found.location.segment_id in self.retired
            found.passed_on += 1
            assert found.passed_on == 1

    @precondition(lambda self: self.living)
    @rule(data=st.data(), size=st.sampled_from([MIB, 3 * MIB, 9 * MIB]))
    def acquire(self, data: st.DataObject, size: int) -> None:
        process = self.draw_process(data)
        room = 8 * MIB - self.table.used_bytes
        answer, fd = self.table.acquire(process, size)
        assert (fd is not None) == (answer.error == "") == (size <= room)
        if fd is not None:
            self.writers[answer.segment_id] = process
            self.readers[answer.segment_id] = set()

    @precondition(lambda self: self.living and self.writers)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Take memory for an object; nothing is announced yet."""
        segment = data.draw(st.sampled_from(sorted(self.writers)))
        writer = self.writers[segment]
        if writer not in self.living or segment in self.retired:
            return
        owner = self.draw_process(data)
        number = len(self.objects)
        location = Location(NODE, segment, 64 * number, 64)
        if location.offset + 64 <= MIB:
            self.objects.append(Written(object_id(owner, number), location, writer))

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from(self.objects))
        if found.announced or found.writer not in self.living:
            return
        found.announced = True
        found.announced_while_owner_lived = found.owner in self.living
        self.receive(
            self.table.object_stored(found.writer, ObjectStored(found.oid, found.location))
        )

    @precondition(lambda self: self.objects)
    @rule(data=st.data(), again=st.booleans())
    def free(self, data: st.DataObject, again: bool) -> None:
        found = data.draw(st.sampled_from(self.objects))
        if found.owner not in self.living or found.owner == found.writer:
            return
        if found.freed and not (again and found.announced):
            return
        found.freed = True
        self.receive(self.table.object_freed(ObjectFreed(found.oid, found.location)))

    @precondition(lambda self: self.living and self.writers)
    @rule(data=st.data())
    def map(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(sorted(self.writers)))
        process = self.draw_process(data)
        answer, fd = self.table.map(process, segment)
        assert (fd is not None) == (answer.error == "")
        if fd is not None and process != self.writers[segment]:
            self.readers[segment].add(process)

    @precondition(lambda self: self.living and self.writers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(sorted(self.writers)))
        writer = self.writers[segment]
        used = [
            o for o in self.objects if o.location.segment_id == segment and self.in_use(o, writer)
        ]
        if used or writer not in self.living:
            return
        answer, outgoing = self.table.give_back(writer, segment)
        assert answer.error == ""
        del self.writers[segment]
        self.receive(outgoing)
        assert not self.readers[segment]

    def in_use(self, found: Written, writer: bytes) -> bool:
        """Whether the writer still counts the object as allocated."""
        return found.passed_on == 0 and found.owner != writer

    @precondition(lambda self: len(self.living) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        process = self.draw_process(data)
        self.living.remove(process)
        for readers in self.readers.values():
            readers.discard(process)
        self.receive(self.table.process_died(process))

    @invariant()
    def memory_is_there_exactly_as_long_as_it_is_needed(self) -> None:
        rows = {row["segment_id"]: row for row in self.table.rows()}
        assert self.table.used_bytes == sum(int(row["size"]) for row in rows.values())
        assert self.table.used_bytes <= 8 * MIB
        needed = {segment for segment, writer in self.writers.items() if writer in self.living}
        needed |= {
            o.location.segment_id
            for o in self.objects
            if o.announced and not o.freed and o.owner in self.living and o.owner != o.writer
        }
        assert set(rows) == needed

    def teardown(self) -> None:
        for process in sorted(self.living):
            self.table.process_died(process)
        assert self.table.rows() == []
        assert self.table.used_bytes == 0
        assert len(os.listdir("/proc/self/fd")) == self.descriptors


TableMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestTable = TableMachine.TestCase
