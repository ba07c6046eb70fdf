"""The segment table: by example, and against a model of processes that live and die."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.runtime.store import header
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


def write_header(table: SegmentTable, oid: bytes, location: Location) -> None:
    """What a writer does before it announces an object."""
    fd = table._segments[location.segment_id].fd
    os.pwrite(fd, header.header(oid, location.size), location.offset)


def segment_of(table: SegmentTable, writer: bytes = WRITER, size: int = MIB) -> int:
    answer, fd = table.acquire(writer, size)
    assert answer.error == ""
    assert fd is not None
    assert os.fstat(fd).st_size == size
    return answer.segment_id


def store(table: SegmentTable, segment: int, owner: bytes, number: int = 1, offset: int = 0) -> Any:
    """Announce an object of 100 bytes; return how its owner frees it."""
    location = Location(NODE, segment, offset, 100)
    write_header(table, object_id(owner, number), location)
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
    assert table.locate(freed.object_id) == freed.location
    assert table.object_freed(freed) == [(WRITER, freed)]
    assert table.locate(freed.object_id) is None
    assert table.object_freed(freed) == []
    assert table.object_freed(freed) == []


def test_a_late_free_does_not_hit_the_next_copy(table: SegmentTable) -> None:
    """The object was lost and made again; its owner knows of the new copy."""
    freed = store(table, segment_of(table), OWNER)
    earlier = ObjectFreed(freed.object_id, Location(NODE, 5, 0, 100))
    assert table.object_freed(earlier) == []
    assert table.locate(freed.object_id) == freed.location


def test_what_somebody_looks_at_is_freed_later(table: SegmentTable) -> None:
    segment = segment_of(table)
    freed = store(table, segment, OWNER)
    reader = header.reopen(table._segments[segment].fd, writable=False)
    assert header.share(reader, 0)
    assert table.object_freed(freed) == []
    assert table.locate(freed.object_id) is None
    assert table.has_doomed
    assert table.sweep() == []
    header.release(reader, 0)
    assert table.sweep() == [(WRITER, freed)]
    assert not table.has_doomed
    os.close(reader)


def test_the_second_run_of_a_task_replaces_what_the_first_wrote(table: SegmentTable) -> None:
    segment = segment_of(table)
    first = store(table, segment, OWNER)
    location = Location(NODE, segment, 256, 100)
    write_header(table, first.object_id, location)
    assert table.object_stored(WRITER, ObjectStored(first.object_id, location)) == [(WRITER, first)]
    assert table.locate(first.object_id) == location
    assert table.object_freed(first) == []
    second = ObjectFreed(first.object_id, location)
    assert table.object_freed(second) == [(WRITER, second)]


def test_a_free_that_overtakes_the_announcement_waits_for_it(table: SegmentTable) -> None:
    segment = segment_of(table)
    location = Location(NODE, segment, 64, 100)
    write_header(table, object_id(OWNER), location)
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


def test_a_writer_takes_its_own_memory_itself(table: SegmentTable) -> None:
    segment = segment_of(table)
    freed = store(table, segment, WRITER)
    os.pwrite(table._segments[segment].fd, header.EMPTY, 0)
    assert table.locate(freed.object_id) is None
    assert table.object_freed(freed) == []
    assert table.rows()[0]["objects"] == 0


def test_a_writer_that_could_not_take_its_own_memory_is_given_it(table: SegmentTable) -> None:
    freed = store(table, segment_of(table), WRITER)
    assert table.object_freed(freed) == [(WRITER, freed)]


def test_a_segment_with_objects_of_its_writer_alone_is_taken_back(table: SegmentTable) -> None:
    segment = segment_of(table)
    freed = store(table, segment, WRITER)
    os.pwrite(table._segments[segment].fd, header.EMPTY, 0)
    # The connections are two: that it was freed is heard afterwards.
    assert table.give_back(WRITER, segment)[0].error == ""
    assert table.object_freed(freed) == []
    assert table.object_stored(WRITER, ObjectStored(freed.object_id, freed.location)) == []
    assert table.locate(freed.object_id) is None


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
    write_header(table, b"", location)
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
    assert "other owners" in table.give_back(WRITER, segment)[0].error
    table.object_freed(freed)
    assert table.give_back(WRITER, segment)[0].error == ""


def test_segments_outlive_their_writer_while_an_owner_needs_them(table: SegmentTable) -> None:
    segment = segment_of(table)
    segment_of(table)
    first = store(table, segment, OWNER, 1)
    second = store(table, segment, OWNER, 2, offset=192)
    store(table, segment, WRITER, 3, offset=384)
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


def test_orphans_are_freed_at_once_unless_somebody_looks(table: SegmentTable) -> None:
    segment = segment_of(table)
    orphan = store(table, segment, OWNER)
    looked_at = store(table, segment, OWNER, 2, offset=192)
    living = store(table, segment, READER, 3, offset=384)
    reader = header.reopen(table._segments[segment].fd, writable=False)
    assert header.share(reader, 192)
    assert table.process_died(OWNER) == [(WRITER, orphan)]
    assert table.process_died(OWNER) == []
    assert table.sweep() == []
    os.close(reader)
    assert table.sweep() == [(WRITER, looked_at)]
    assert table.object_freed(living) == [(WRITER, living)]
    assert table.give_back(WRITER, segment)[0].error == ""
    assert table.used_bytes == 0


def test_what_is_written_for_a_dead_owner_is_freed_at_once(table: SegmentTable) -> None:
    segment = segment_of(table)
    table.process_died(OWNER)
    location = Location(NODE, segment, 0, 100)
    write_header(table, object_id(OWNER), location)
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
            "objects": 1,
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
        #: Its header names it.
        self.there = True


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
        #: A description of each segment through which all readers lock.
        self.fds: dict[int, int] = {}
        self.pinned: set[bytes] = set()
        self.objects: list[Written] = []

    def draw_process(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from(sorted(self.living)))

    def receive(self, outgoing: list[Any]) -> None:
        """Check what the daemon would send."""
        for process, message in outgoing:
            assert process in self.living
            if isinstance(message, SegmentRetired):
                assert process in self.readers[message.segment_id]
                self.readers[message.segment_id].remove(process)
                continue
            (found,) = [o for o in self.objects if o.oid == message.object_id]
            assert message.location == found.location
            assert process == found.writer
            assert found.announced
            assert found.freed or found.owner not in self.living
            assert found.oid not in self.pinned
            found.there = False
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
            self.fds[answer.segment_id] = header.reopen(fd, writable=True)

    @precondition(lambda self: self.living and self.writers)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Take memory for an object; nothing is announced yet."""
        segment = data.draw(st.sampled_from(sorted(self.writers)))
        writer = self.writers[segment]
        if writer not in self.living:
            return
        owner = data.draw(st.sampled_from([writer, self.draw_process(data)]))
        number = len(self.objects)
        location = Location(NODE, segment, 128 * number, 64)
        if location.offset + 128 <= MIB:
            self.objects.append(Written(object_id(owner, number), location, writer))
            write_header(self.table, object_id(owner, number), location)

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Somebody opens an object, or closes it."""
        found = data.draw(st.sampled_from(self.objects))
        fd = self.fds[found.location.segment_id]
        if found.oid in self.pinned:
            self.pinned.remove(found.oid)
            header.release(fd, found.location.offset)
        elif found.announced and header.is_there(fd, found.location.offset, found.oid, 64):
            assert header.share(fd, found.location.offset)
            self.pinned.add(found.oid)

    @rule()
    def sweep(self) -> None:
        self.receive(self.table.sweep())

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
        if found.owner not in self.living or (found.owner == found.writer and not found.announced):
            return
        if found.freed and not (again and found.announced):
            return
        if found.owner == found.writer and not found.freed and found.oid not in self.pinned:
            fd = self.fds[found.location.segment_id]
            assert header.take(fd, found.location.offset, found.oid, 64)
            found.there = False
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
        used = [o for o in self.objects if o.location.segment_id == segment and o.there]
        if used or writer not in self.living:
            return
        answer, outgoing = self.table.give_back(writer, segment)
        assert answer.error == ""
        del self.writers[segment]
        self.receive(outgoing)
        assert not self.readers[segment]

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
            if o.announced and not o.freed and o.owner in self.living
        }
        # Or somebody looks, or has looked until the last sweep.
        doomed = {entry.segment.segment_id for entry in self.table._doomed}
        assert set(rows) == needed | doomed
        for o in self.objects:
            if o.announced and not o.freed and o.owner in self.living:
                assert self.table.locate(o.oid) == o.location
            elif o.announced:
                assert self.table.locate(o.oid) is None

    @invariant()
    def what_somebody_looks_at_stays(self) -> None:
        for o in self.objects:
            if o.oid in self.pinned:
                fd = self.fds[o.location.segment_id]
                assert header.is_there(fd, o.location.offset, o.oid, 64)

    def teardown(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        for process in sorted(self.living):
            self.table.process_died(process)
        self.table.sweep()
        assert self.table.rows() == []
        assert self.table.used_bytes == 0
        assert len(os.listdir("/proc/self/fd")) == self.descriptors


TableMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestTable = TableMachine.TestCase
