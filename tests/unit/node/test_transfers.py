"""Objects between several nodes, over a network that delivers in any order it may."""

from __future__ import annotations

import os
import random
import tempfile
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skate.runtime.head.view import ClusterView
from skate.runtime.node import transfers as module
from skate.runtime.node.links import RemoteLink
from skate.runtime.node.loop import Loop, Timer
from skate.runtime.node.objects import NodeObjects
from skate.runtime.node.transfers import Transfers
from skate.runtime.store import header
from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.store.server import SegmentTable
from skate.runtime.store.spill.local import LocalStorage
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.messages import Location, ObjectFreed, ObjectStored
from skate.runtime.wire.transfers import (
    ChunkFailed,
    CopyNoted,
    FreeCopy,
    NoteCopy,
    ObjectChunk,
    PullChunk,
)

#: Nodes, and a process on each of them.
NAMES = [b"node-%d--" % number for number in range(3)]
PROCESSES = [b"proces-%d" % number for number in range(3)]
HOMES = dict(zip(PROCESSES, NAMES, strict=True))
SIZE = 2000


class FakeLinks:
    """Sends into the network."""

    def __init__(self, network: Network, name: bytes) -> None:
        self.network = network
        self.name = name
        self.by_process: dict[bytes, Any] = {}

    def send(self, node_id: bytes, message: Any) -> None:
        if node_id in self.by_process:
            self.network.queues.setdefault((self.name, node_id), deque()).append(message)


class FakeChunkLinks:
    """Requests and chunks, of each connection in order."""

    def __init__(self, links: FakeLinks) -> None:
        self.links = links

    def ask(self, source: bytes, message: PullChunk) -> None:
        self.links.send(source, message)

    def check_source(self, link: Any) -> None:
        pass

    def send(
        self, link: Any, message: PullChunk, read: Callable[[memoryview], bool], again: Any
    ) -> None:
        space = memoryview(bytearray(message.length))
        if read(space):
            chunk = ObjectChunk(message.object_id, message.start, space)
            self.links.send(link.process_id, chunk)
        else:
            again()

    def fail(self, link: Any, message: PullChunk, reason: str) -> None:
        failed = ChunkFailed(message.object_id, message.start, reason)
        self.links.send(link.process_id, failed)

    def node_left(self, node_id: bytes) -> None:
        pass


class FakeLoop(Loop):
    """Timers wait until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], None]] = []

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        self.due.append(function)
        return Timer(function)


class Node:
    """The memory of one node and what brings objects there."""

    def __init__(self, network: Network, name: bytes, directory: str) -> None:
        self.name = name
        self.network = network
        self.loop = FakeLoop()
        self.table = SegmentTable(name, 1 << 22)
        storage = LocalStorage(os.path.join(directory, name.hex()))
        self.objects = NodeObjects(self.loop, name, self.table, storage, lambda _outgoing: None)
        self.links = FakeLinks(network, name)
        links: Any = self.links  # the part that it uses
        self.transfers = Transfers(
            self.loop, name, links, ClusterView(), self.objects, network.node_of
        )
        chunk_links: Any = FakeChunkLinks(self.links)
        self.transfers.chunk_links = chunk_links
        self.handlers: dict[type, Any] = {
            PullChunk: self.transfers.wanted,
            ObjectChunk: self.transfers.chunk,
            ChunkFailed: self.transfers.chunk_failed,
            NoteCopy: self.transfers.note_copy,
            CopyNoted: self.transfers.noted,
            FreeCopy: self.transfers.free_copy,
        }

    def write(self, object_id: bytes, data: bytes, announce: bool = True) -> Location:
        writer = next(p for p, home in HOMES.items() if home == self.name)
        answer, fd = self.table.acquire(writer, HEADER_SIZE + len(data))
        assert fd is not None
        location = Location(self.name, answer.segment_id, 0, len(data))
        os.pwrite(fd, header.header(object_id, len(data)) + data, 0)
        if announce:
            self.objects.stored(writer, ObjectStored(object_id, location))
        return location

    def read(self, location: Location) -> bytes:
        assert location.node_id == self.name
        segment = self.table.segment(location.segment_id)
        return os.pread(segment.fd, location.size, location.offset + HEADER_SIZE)

    def close(self) -> None:
        self.objects.close()
        self.table.close()
        self.loop.close()


class Network:
    """Nodes and what is on its way between them: in order between any two, otherwise not."""

    def __init__(self, directory: str, chance: random.Random) -> None:
        self.chance = chance
        self.queues: dict[tuple[bytes, bytes], deque[Any]] = {}
        self.nodes = {name: Node(self, name, directory) for name in NAMES}
        for name, node in self.nodes.items():
            node.links.by_process = {other: object() for other in NAMES if other != name}

    def node_of(self, process_id: bytes) -> bytes | None:
        home = HOMES.get(process_id)
        return home if home in self.nodes else None

    def step(self) -> bool:
        ready = sorted(pair for pair, queue in self.queues.items() if queue)
        if not ready:
            return False
        sender, receiver = pair = self.chance.choice(ready)
        message = self.queues[pair].popleft()
        node = self.nodes.get(receiver)
        if node is not None:
            node.handlers[type(message)](RemoteLink(sender), message)
        return True

    def run(self, most: int = 100_000) -> None:
        while most and self.step():
            most -= 1

    def interrupt(self, reader: bytes, source: bytes) -> None:
        """The connection ends over which one node pulls from another, which both live."""
        gone: tuple[tuple[tuple[bytes, bytes], tuple[type, ...]], ...] = (
            ((reader, source), (PullChunk,)),
            ((source, reader), (ObjectChunk, ChunkFailed)),
        )
        for pair, kinds in gone:
            queue = self.queues.get(pair, deque())
            self.queues[pair] = deque(m for m in queue if not isinstance(m, kinds))
        node = self.nodes[reader]
        node.transfers.interrupted(source)

    def pass_time(self) -> None:
        for node in self.nodes.values():
            due, node.loop.due = node.loop.due, []
            for function in due:
                function()

    def kill(self, name: bytes) -> None:
        """A node dies; all others hear of it and of its processes."""
        self.nodes.pop(name).close()
        for pair in [p for p in self.queues if name in p]:
            del self.queues[pair]
        for node in self.nodes.values():
            del node.links.by_process[name]
            for process_id in [p for p, home in HOMES.items() if home == name]:
                node.transfers.process_died(process_id)
                node.objects.process_died(process_id)
            node.transfers.node_left(name)

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SIZE", 300)
    monkeypatch.setattr(module, "WINDOW", 3)


class Answers:
    """What somebody who asked was told."""

    def __init__(self) -> None:
        self.given: list[tuple[Location | None, str]] = []

    def __call__(self, location: Location | None, reason: str) -> None:
        self.given.append((location, reason))


def content(number: int, size: int = SIZE) -> bytes:
    return random.Random(number).randbytes(size)


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_whatever_happens(
    chance: random.Random, with_deaths: bool, with_interruptions: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        network = Network(directory, chance)
        try:
            _play(network, chance, with_deaths, with_interruptions)
        finally:
            network.close()


def _play(
    network: Network, chance: random.Random, with_deaths: bool, with_interruptions: bool
) -> None:
    objects: dict[bytes, tuple[Location, int]] = {}
    asked: list[tuple[bytes, bytes, Answers]] = []
    for number in range(4):
        owner = chance.choice(PROCESSES)
        object_id = owner + number.to_bytes(8, "big")
        where = network.nodes[chance.choice(NAMES)]
        size = chance.choice((1, 299, 300, 301, SIZE))
        # The news of it may come after somebody asks, if its owner's node has it.
        objects[object_id] = (where.write(object_id, content(number, size)), number)
    for _ in range(8):
        reader = network.nodes[chance.choice(list(network.nodes))]
        object_id = chance.choice(list(objects))
        answers = Answers()
        asked.append((reader.name, object_id, answers))
        reader.objects.find(object_id, objects[object_id][0], answers)
        network.run(chance.randrange(30))
        if with_interruptions:
            network.interrupt(*chance.sample(NAMES, 2))
            if chance.random() < 0.5:
                network.pass_time()
    dead = chance.choice(NAMES) if with_deaths else b""
    if dead:
        network.kill(dead)
    for _ in range(2):
        network.run()
        network.pass_time()
    network.run()
    for name, object_id, answers in asked:
        if name == dead:
            continue
        [(location, reason)] = answers.given
        hint, number = objects[object_id]
        if location is None:
            assert dead
            assert reason
            assert HOMES[object_id[:8]] == dead or hint.node_id == dead
        elif HOMES[object_id[:8]] != dead:
            assert network.nodes[name].read(location) == content(number, hint.size)
    for object_id, (hint, _) in objects.items():
        owner_node = network.nodes.get(HOMES[object_id[:8]])
        if owner_node is not None:
            owner_node.objects.freed(ObjectFreed(object_id, hint))
    network.run()
    for node in network.nodes.values():
        assert node.table.entries() == []


@pytest.fixture
def network(tmp_path: Any) -> Any:
    made = Network(str(tmp_path), random.Random(0))
    yield made
    made.close()


def test_what_is_not_announced_yet_is_sent(network: Network) -> None:
    first, second, _ = network.nodes.values()
    object_id = PROCESSES[0] + bytes(8)
    hint = first.write(object_id, content(1), announce=False)
    answers = Answers()
    second.objects.find(object_id, hint, answers)
    network.run()
    [(location, _)] = answers.given
    assert location is not None
    assert second.read(location) == content(1)


def test_another_copy_takes_over(network: Network) -> None:
    first, second, third = network.nodes.values()
    # The owner is on the third node, its only object on the first.
    object_id = PROCESSES[2] + bytes(8)
    hint = first.write(object_id, content(1))
    copied, answers = Answers(), Answers()
    second.objects.find(object_id, hint, copied)
    network.run()
    assert copied.given[0][0] is not None
    third.objects.find(object_id, hint, answers)
    network.run(3)
    network.kill(first.name)
    network.run()
    [(location, _)] = answers.given
    assert location is not None
    assert third.read(location) == content(1)


def test_what_is_gone_from_here_comes_from_where_there_is_a_copy(network: Network) -> None:
    first, second, third = network.nodes.values()
    for owner, reader in ((0, first), (2, first), (2, third)):
        object_id = PROCESSES[owner] + bytes([owner, *reader.name[:7]])
        hint = first.write(object_id, content(1))
        copied, answers, nobody = Answers(), Answers(), Answers()
        second.objects.find(object_id, hint, copied)
        network.run()
        entry = first.table.find(object_id)
        assert entry is not None
        first.table.lost(entry)
        reader.objects.find(object_id, hint, answers)
        network.run()
        [(location, _)] = answers.given
        assert location is not None
        assert reader.read(location) == content(1)
        network.nodes[HOMES[PROCESSES[owner]]].objects.freed(ObjectFreed(object_id, hint))
        network.run()
        reader.objects.find(object_id, hint, nobody)
        network.run()
        [(location, reason)] = nobody.given
        assert location is None
        assert reason
        assert all(node.table.entries() == [] for node in network.nodes.values())


def test_freed_while_its_owner_brings_it_home(network: Network) -> None:
    first, second, _ = network.nodes.values()
    object_id = PROCESSES[1] + bytes(8)
    hint = first.write(object_id, content(1))
    answers = Answers()
    second.objects.find(object_id, hint, answers)
    network.run(2)
    second.objects.freed(ObjectFreed(object_id, hint))
    network.run()
    assert answers.given == [(None, "it was freed")]
    assert first.table.entries() == second.table.entries() == []


def test_freed_while_it_is_on_its_way(network: Network) -> None:
    first, second, _ = network.nodes.values()
    object_id = PROCESSES[0] + bytes(8)
    hint = first.write(object_id, content(1))
    answers = Answers()
    second.objects.find(object_id, hint, answers)
    network.run(4)
    first.objects.freed(ObjectFreed(object_id, hint))
    network.run()
    [(location, reason)] = answers.given
    assert location is None
    assert "freed" in reason
    assert second.table.entries() == []


def test_given_up_when_no_connection_lasts(network: Network) -> None:
    first, second, _ = network.nodes.values()
    object_id = PROCESSES[0] + bytes(8)
    hint = first.write(object_id, content(1))
    answers = Answers()
    second.objects.find(object_id, hint, answers)
    network.run(4)
    for _ in range(module.MOST_RETRIES + 1):
        assert answers.given == []
        network.interrupt(second.name, first.name)
        network.pass_time()
        network.run(3)
    [(location, reason)] = answers.given
    assert location is None
    assert f"connection to node {first.name.hex()}" in reason
    # Nobody is asked for more than its share afterwards.
    second.objects.find(object_id, hint, answers)
    network.run()
    assert answers.given[-1][0] is not None


def test_nonsense_ends_the_connection(network: Network) -> None:
    first, second, _ = network.nodes.values()
    object_id = PROCESSES[0] + bytes(8)
    hint = first.write(object_id, content(1))
    link = RemoteLink(second.name)
    for start, length in ((-1, 5), (0, SIZE + 1), (SIZE, 1), (0, -1)):
        with pytest.raises(ProtocolError):
            first.transfers.wanted(link, PullChunk(object_id, start, length, hint))
    second.objects.find(object_id, hint, Answers())
    with pytest.raises(ProtocolError):
        second.transfers.chunk(
            RemoteLink(first.name), ObjectChunk(object_id, 0, memoryview(b"short"))
        )
    # What nobody has asked for is ignored.
    second.transfers.chunk(RemoteLink(first.name), ObjectChunk(object_id, 7, memoryview(b"x")))
    second.transfers.chunk_failed(RemoteLink(first.name), ChunkFailed(b"?" * 16, 0, "no"))
    second.transfers.noted(RemoteLink(first.name), CopyNoted(b"?" * 16, []))
