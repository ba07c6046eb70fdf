"""Directory, allocators, pins, room and spilling together, against a model: processes put, read,
hold, free and die in every order while there is far too little memory, and disks fail."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.runtime.node.objects import NodeObjects, NoRoom
from skate.runtime.store import header
from skate.runtime.store.allocator import Allocator
from skate.runtime.store.server import SegmentTable
from skate.runtime.store.spill import Record, SpillError, SpillStorage
from skate.runtime.store.spill._base import check_header
from skate.runtime.wire.messages import Location, ObjectFreed, ObjectStored, SegmentRetired

NODE = b"node-id."
KIB = 1024
LIMIT = 4 * 1024 * KIB
SLAB = 1024 * KIB


class FakeLoop:
    """A clock that stands still, and timers that run when it is moved."""

    def __init__(self) -> None:
        self.time = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((self.time + seconds, function))

    def advance(self, seconds: float) -> None:
        self.time += seconds
        due = [timer for timer in self.timers if timer[0] <= self.time]
        self.timers = [timer for timer in self.timers if timer[0] > self.time]
        for _, function in due:
            function()


class FakeThreads:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.work: deque[tuple[Any, Any]] = deque()

    def submit(self, work: Any, done: Any) -> None:
        self.work.append((work, done))

    def step(self) -> None:
        work, done = self.work.popleft()
        try:
            result = work()
        except SpillError as error:
            done(None, error)
        else:
            done(result, None)

    def close(self, seconds: float) -> None:
        self.work.clear()


class FakeStorage(SpillStorage):
    """Files in a dictionary; the disk can be full."""

    place = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_full = False

    def write(self, name: str, records: Sequence[Record]) -> None:
        if self.is_full:
            raise SpillError("the disk is full")
        self.files[name] = b"".join(os.pread(r.fd, r.length, r.offset) for r in records)

    def read(self, name: str, position: int, record: Record) -> None:
        data = self.files[name][position : position + record.length]
        check_header(data, record, name)
        os.pwrite(record.fd, data[header.HEADER_SIZE :], record.offset + header.HEADER_SIZE)

    def delete(self, name: str) -> None:
        del self.files[name]

    def close(self) -> None:
        self.files.clear()


class Object:
    """What the model knows of one."""

    def __init__(self, object_id: bytes, writer: bytes, size: int) -> None:
        self.object_id = object_id
        self.owner = object_id[:8]
        self.writer = writer
        self.size = size
        self.content = (object_id * (size // 16 + 1))[:size]
        #: Where its owner thinks it is; None until it is written.
        self.location: Location | None = None
        self.freed = False
        self.refused = False


class Process:
    """A writer's part of the store: its segments and what is free in them."""

    def __init__(self, process_id: bytes) -> None:
        self.process_id = process_id
        self.segments: dict[int, tuple[Allocator, int]] = {}
        self.retired: set[int] = set()


class Pin:
    """Somebody looks at an object."""

    def __init__(self, found: Object, location: Location, fd: int) -> None:
        self.found = found
        self.location = location
        self.fd = fd

    def content(self) -> bytes:
        start = self.location.offset + header.HEADER_SIZE
        return os.pread(self.fd, self.found.size, start)


class ObjectsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.loop = FakeLoop()
        self.table = SegmentTable(NODE, LIMIT)
        self.storage = FakeStorage()
        self.outbox: deque[tuple[bytes, Any]] = deque()
        loop: Any = self.loop
        self.objects = NodeObjects(loop, NODE, self.table, self.storage, self.outbox.extend)
        self.threads = FakeThreads()
        threads: Any = self.threads
        self.objects.spiller._writers = threads
        self.objects.spiller._readers = threads
        self.processes = {p: Process(p) for p in (b"process%d" % i for i in range(4))}
        self.made: list[Object] = []
        self.pins: list[Pin] = []

    # ------------------------------------------------------------------ the processes' side

    def deliver(self) -> None:
        """Let the daemon finish its round, and the processes handle what it has sent."""
        self.objects.run()
        while self.outbox:
            process_id, message = self.outbox.popleft()
            process = self.processes.get(process_id)
            if process is None:
                continue
            if isinstance(message, SegmentRetired):
                if message.segment_id in process.segments:
                    process.retired.add(message.segment_id)
                    self.give_back_if_empty(process, message.segment_id)
            elif isinstance(message, ObjectFreed):
                self.free_memory(process, message.location)
            self.objects.run()

    def free_memory(self, process: Process, location: Location) -> None:
        allocator, fd = process.segments[location.segment_id]
        assert allocator.holds(location.offset, location.size + header.HEADER_SIZE)
        named = os.pread(fd, header.HEADER_SIZE, location.offset)
        assert named == header.EMPTY
        allocator.free(location.offset)
        self.give_back_if_empty(process, location.segment_id)

    def give_back_if_empty(self, process: Process, segment_id: int) -> None:
        allocator, fd = process.segments[segment_id]
        if segment_id in process.retired and allocator.is_empty:
            answer, outgoing = self.table.give_back(process.process_id, segment_id)
            assert answer.error == ""
            self.objects.send(outgoing)
            os.close(fd)
            del process.segments[segment_id]

    def write(self, process: Process, found: Object) -> bool:
        length = header.HEADER_SIZE + found.size
        for segment_id, (allocator, fd) in process.segments.items():
            if segment_id not in process.retired:
                offset = allocator.allocate(length)
                if offset is not None:
                    self.fill(process, found, segment_id, offset, fd)
                    return True
        size = SLAB if length <= SLAB // 2 else length
        answer, theirs = self.table.acquire(process.process_id, size)
        if theirs is None:
            return False
        fd = header.reopen(theirs, writable=True)
        allocator = Allocator(answer.size)
        process.segments[answer.segment_id] = (allocator, fd)
        offset = allocator.allocate(length)
        assert offset is not None
        self.fill(process, found, answer.segment_id, offset, fd)
        return True

    def fill(self, process: Process, found: Object, segment_id: int, offset: int, fd: int) -> None:
        os.pwrite(fd, found.content, offset + header.HEADER_SIZE)
        os.pwrite(fd, header.header(found.object_id, found.size), offset)
        found.location = Location(NODE, segment_id, offset, found.size)
        self.objects.stored(process.process_id, ObjectStored(found.object_id, found.location))

    def write_or_wait(self, process_id: bytes, found: Object) -> None:
        process = self.processes.get(process_id)
        if process is None or found.owner not in self.processes:
            found.refused = True
            return
        if self.write(process, found):
            return
        length = header.HEADER_SIZE + found.size
        size = SLAB if length <= SLAB // 2 else length

        def answered(error: str) -> None:
            if error:
                found.refused = True
            else:
                self.write_or_wait(process_id, found)

        self.objects.room.request(process_id, size, 3.0, answered)

    def is_living(self, found: Object) -> bool:
        return found.location is not None and not found.freed and found.owner in self.processes

    # ------------------------------------------------------------------ rules

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), size=st.sampled_from([100, 200 * KIB, 400 * KIB, 900 * KIB, 2000 * KIB]))
    def put(self, data: st.DataObject, size: int) -> None:
        writer = data.draw(st.sampled_from(sorted(self.processes)))
        owner = data.draw(st.sampled_from([writer, *sorted(self.processes)]))
        object_id = owner + len(self.made).to_bytes(8, "big")
        found = Object(object_id, writer, size)
        self.made.append(found)
        self.write_or_wait(writer, found)
        self.deliver()

    @precondition(lambda self: any(map(self.is_living, self.made)))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Open an object, as a reader whose first hint may be out of date."""
        found = data.draw(st.sampled_from([f for f in self.made if self.is_living(f)]))
        answers: list[tuple[Location | None, str]] = []
        assert found.location is not None
        self.objects.find(
            found.object_id,
            found.location,
            lambda location, reason: answers.append((location, reason)),
        )
        self.deliver()
        if data.draw(st.booleans()):
            self.work(data)
        if not answers:
            return
        location, reason = answers[0]
        if location is None:
            # It was freed meanwhile, or there is no room for it now: then it is not lost.
            assert not self.is_living(found) or isinstance(reason, NoRoom)
            return
        self.open(found, location)

    def open(self, found: Object, location: Location) -> None:
        segment = self.table._segments.get(location.segment_id)
        if segment is None:
            return
        fd = header.reopen(segment.fd, writable=False)
        if header.share(fd, location.offset) and header.is_there(
            fd, location.offset, found.object_id, found.size
        ):
            pin = Pin(found, location, fd)
            assert pin.content() == found.content
            self.pins.append(pin)
            if self.is_living(found):
                found.location = location
        else:
            os.close(fd)

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def look_away(self, data: st.DataObject) -> None:
        pin = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        os.close(pin.fd)
        self.deliver()

    @precondition(lambda self: any(map(self.is_living, self.made)))
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from([f for f in self.made if self.is_living(f)]))
        self.free_object(found)
        self.deliver()

    def free_object(self, found: Object) -> None:
        found.freed = True
        location = found.location
        assert location is not None
        process = self.processes[found.owner]
        mine = process.segments.get(location.segment_id)
        if found.owner == found.writer and mine is not None:
            allocator, fd = mine
            if header.take(fd, location.offset, found.object_id, found.size):
                allocator.free(location.offset)
                self.give_back_if_empty(process, location.segment_id)
        self.objects.freed(ObjectFreed(found.object_id, location))

    @precondition(lambda self: self.threads.work)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            if self.threads.work:
                self.threads.step()
                self.deliver()

    @rule(seconds=st.sampled_from([0.06, 0.2, 1.1, 4.0]))
    def wait(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.deliver()

    @rule(is_full=st.booleans())
    def disk(self, is_full: bool) -> None:
        self.storage.is_full = is_full

    @precondition(lambda self: len(self.processes) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.processes))))
        self.deliver()

    def end(self, process_id: bytes) -> None:
        process = self.processes.pop(process_id)
        for _, fd in process.segments.values():
            os.close(fd)
        self.objects.process_died(process_id)

    # ------------------------------------------------------------------ what is always so

    @invariant()
    def the_limit_is_kept(self) -> None:
        sizes = sum(os.fstat(s.fd).st_size for s in self.table.segments())
        assert sizes == self.table.used_bytes
        assert sizes + self.table._spares._bytes <= LIMIT

    @invariant()
    def what_somebody_looks_at_stays_as_it_is(self) -> None:
        for pin in self.pins:
            where = (pin.fd, pin.location.offset, pin.found.object_id, pin.found.size)
            assert header.is_there(*where)
            assert pin.content()[:64] == pin.found.content[:64]

    @invariant()
    def nothing_is_lost(self) -> None:
        for found in self.made:
            if not self.is_living(found):
                continue
            entry = self.table.find(found.object_id)
            assert entry is not None
            if entry.segment is not None:
                assert self.table.locate(found.object_id) is not None
            else:
                assert entry.file is not None
                data = self.storage.files[entry.file.name][entry.position :]
                assert header.names(data, found.object_id, found.size)

    def teardown(self) -> None:
        """Everything living can be read; when all is freed and over, nothing is left."""
        self.storage.is_full = False
        for pin in self.pins:
            assert pin.content() == pin.found.content
            os.close(pin.fd)
        self.pins.clear()
        self.settle()
        for found in self.made:
            # Whoever still waits is dead.
            waits = found.location is None and not found.refused
            assert not waits or not {found.owner, found.writer} <= set(self.processes)
            if not self.is_living(found):
                continue
            self.check_readable(found)
        for found in [found for found in self.made if self.is_living(found)]:
            self.free_object(found)
            self.deliver()
        self.settle()
        assert self.storage.files == {}
        for process_id in list(self.processes):
            self.end(process_id)
        self.settle()
        assert self.table.used_bytes == 0
        self.objects.close()
        self.table.close()

    def check_readable(self, found: Object) -> None:
        answers: list[Location | None] = []
        assert found.location is not None
        self.objects.find(
            found.object_id, found.location, lambda location, _: answers.append(location)
        )
        self.settle()
        [location] = answers
        assert location is not None
        self.open(found, location)
        pin = self.pins.pop()
        assert pin.content() == found.content
        os.close(pin.fd)

    def settle(self) -> None:
        """Let everything that can happen by itself happen."""
        self.deliver()
        for _ in range(30):
            while self.threads.work:
                self.threads.step()
                self.deliver()
            self.loop.advance(0.3)
            self.deliver()


ObjectsMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestObjects = ObjectsMachine.TestCase
