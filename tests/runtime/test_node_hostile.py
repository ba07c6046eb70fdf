"""Whatever arrives on a socket of the daemon ends that connection at most."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_fakes import PATIENCE, FakeDriver, NodeClient, driver, tell

from skate.ids import new_process_id
from skate.runtime.node import links, store_links
from skate.runtime.node.loop import Loop
from skate.runtime.store.link import StoreLink
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire import messages as wire


@pytest.fixture(scope="module")
def session() -> Iterator[FakeDriver]:
    with driver() as link:
        yield link


def connect(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def frame(*messages: object) -> bytes:
    payload = msgspec.msgpack.encode(list(messages))
    return struct.pack("<I", len(payload)) + payload


def read_to_end(sock: socket.socket) -> bytes:
    """Return everything up to the end of the connection."""
    parts = b""
    try:
        while part := sock.recv(65536):
            parts += part
    except ConnectionResetError:
        pass
    return parts


def hello(process_id: bytes = b"stranger") -> wire.Hello:
    return wire.Hello(process_id, os.getpid(), "")


def task() -> wire.Task:
    return wire.Task(b"", b"", b"", 1, [], [], [], 0, "", b"", "", 0)


BAD = [
    pytest.param(b"\x05\x00\x00\x00hello", id="text"),
    pytest.param(b"\xff\xff\xff\xff" + bytes(100), id="huge frame"),
    pytest.param(b"\x00\x00\x00\x00", id="empty frame"),
    pytest.param(struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1", id="no MessagePack"),
    pytest.param(frame(b"bytes", 7, None), id="no messages"),
    pytest.param(frame([40, 1, 2, 3]), id="wrong fields"),
    pytest.param(frame(wire.Register("worker", "")), id="no Hello"),
    pytest.param(frame(wire.Hello(b"", 1, "")), id="empty id"),
    pytest.param(frame(wire.Hello(b"x", 1, "", version=999)), id="other version"),
    pytest.param(frame(hello(), hello()), id="Hello twice"),
    pytest.param(frame(hello(), wire.RequestLease(1, {}, 0, "")), id="not registered"),
    pytest.param(frame(hello(), wire.Register("worker", "")), id="unknown worker"),
    pytest.param(frame(hello(), wire.Register("driver", "")), id="second driver"),
    pytest.param(frame(hello(), wire.Register("king", "")), id="unknown kind"),
    pytest.param(frame(hello(), wire.LeaseGranted(1, 1, b"", "", 1, [])), id="wrong direction"),
    pytest.param(frame(hello(), task()), id="peer message"),
]


@pytest.mark.parametrize("data", BAD)
def test_nonsense_on_the_node_socket(session: FakeDriver, data: bytes) -> None:
    with connect(session.node.node_address) as sock:
        sock.sendall(data)
        read_to_end(sock)
    session.settle()


@pytest.mark.parametrize(
    "data",
    [
        *BAD[:7],
        pytest.param(frame(hello(), hello()), id="Hello twice"),
        pytest.param(frame(wire.AcquireSegment(4096)), id="no Hello before request"),
    ],
)
def test_nonsense_on_the_store_socket(session: FakeDriver, data: bytes) -> None:
    with connect(session.node.store_address) as sock:
        sock.sendall(data)
        read_to_end(sock)
    session.settle()


@given(data=st.binary(max_size=200), greeted=st.booleans(), store=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes(session: FakeDriver, data: bytes, greeted: bool, store: bool) -> None:
    node = session.node
    with connect(node.store_address if store else node.node_address) as sock:
        if greeted:
            sock.sendall(frame(hello(session.process_id)))
        sock.sendall(struct.pack("<I", len(data)) + data)
        sock.shutdown(socket.SHUT_WR)
        read_to_end(sock)
    session.settle()


def test_a_message_cut_off_in_the_middle(session: FakeDriver) -> None:
    with connect(session.node.node_address) as sock:
        sock.sendall(frame(hello())[:-3])
    session.settle()


def test_a_registered_worker_that_sends_nonsense_is_ended(session: FakeDriver) -> None:
    lease = session.lease(1, CPU=1)
    tell(lease.worker_address, "node.connection.sock.send(bytes(100)); time.sleep(60)")
    died = session.wait_for(wire.WorkerDied, process_id=lease.worker_id)
    assert died.cause == "lost its connection"
    log = Path(session.registered.log_dir, "node.log").read_text()
    assert f"closed the connection of worker (pid {lease.pid})" in log


def test_numbers_that_name_nothing(session: FakeDriver) -> None:
    nobody = new_process_id()
    location = wire.Location(nobody, 2**63 - 1, -5, 2**63 - 1)
    session.send(
        wire.ReturnLease(12345),
        wire.CancelLeaseRequest(-1),
        wire.Blocked(),
        wire.Resumed(),
        wire.KillActor(b"nothing", True, False),
        wire.WatchActor(b"nothing"),
        wire.ActorStarted(b"nothing", None),
        wire.ObjectStored(b"nothing", location),
        wire.ObjectFreed(b"nothing", location),
        wire.GetNamedActor(1, "nobody", ""),
    )
    assert session.wait_for(wire.ActorState).state == "dead"
    session.settle()


def test_strangers_get_no_memory(session: FakeDriver) -> None:
    # From another process: the driver's own pid is welcome even before it has registered.
    lease = session.lease(2, CPU=1)
    code = (
        "from skate.runtime.store.link import StoreLink\n"
        "def ask(process_id):\n"
        "    try:\n"
        "        link = StoreLink(worker.config.store_address, process_id)\n"
        "        return link.request(wire.AcquireSegment(4096))[0].error\n"
        "    except OSError as error:\n"
        "        return type(error).__name__\n"
        "result = ask(b'stranger'), ask(worker.config.worker_id)"
    )
    refused, served = tell(lease.worker_address, code)
    assert refused in ("ConnectionResetError", "BrokenPipeError")
    assert served == ""


@pytest.mark.parametrize("size", [0, -1, 1 << 40, 2**63 - 1])
def test_senseless_segments_are_answered(session: FakeDriver, size: int) -> None:
    link = StoreLink(session.node.store_address, session.process_id)
    answer, fd = link.request(wire.AcquireSegment(size))
    assert answer.error
    assert fd is None
    answer, fd = link.request(wire.AcquireSegment(4096))
    assert (answer.error, answer.size) == ("", 4096)
    assert fd is not None
    os.close(fd)
    link.close()


def test_many_silent_connections(session: FakeDriver) -> None:
    silent = [connect(session.node.node_address) for _ in range(300)]
    try:
        session.settle()
    finally:
        for sock in silent:
            sock.close()
    session.settle()


def test_one_process_cannot_return_the_lease_of_another(session: FakeDriver) -> None:
    mine, theirs = session.lease(4), session.lease(5)
    tell(theirs.worker_address, f"node.send(wire.ReturnLease({mine.lease_id})); node.settle()")
    states = {row["pid"]: row["state"] for row in session.rows("workers")}
    assert states[mine.pid] == "leased"


# --------------------------------------------------------------------------- without a daemon


class Silence:
    """One accepted connection that says nothing, on a loop that runs until it is closed."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ours, theirs = socket.socketpair()
        self.theirs = theirs

    def run(self, adopt: Callable[[socket.socket, int], None]) -> None:
        adopt(self.theirs, 0)

        def look() -> None:
            self.loop.stopped = self.theirs.fileno() < 0
            self.loop.call_later(0.01, look)

        look()
        self.loop.run()
        self.loop.close()
        self.ours.close()


@pytest.mark.timeout(10)
def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "HELLO_SECONDS", 0.05)
    silence = Silence()
    closed: list[links.Link] = []
    all_links = links.Links(silence.loop, hello(), lambda _link, _message: None, closed.append)
    silence.run(all_links.adopt)
    assert len(closed) == 1


@pytest.mark.timeout(10)
def test_silence_on_the_store_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_links, "HELLO_SECONDS", 0.05)
    silence = Silence()
    table = SegmentTable(b"node", 1)
    store = store_links.StoreLinks(silence.loop, table, lambda *_: True, lambda _: None)
    silence.run(store.adopt)


@pytest.mark.parametrize("reads", [True, False])
def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    monkeypatch.setattr(links, "MAX_BACKLOG", 1 << 20)
    loop = Loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    closed: list[links.Link] = []
    all_links = links.Links(loop, hello(), lambda _link, _message: None, closed.append)
    all_links.adopt(theirs, 0)
    ours.sendall(frame(hello()))
    [link] = all_links._links
    assert all_links.read(link)
    all_links.registered(link, "worker")
    for _ in range(100):
        all_links.send(link.process_id, wire.Warn("x" * 100_000))
        all_links.flush()
        if reads:
            while not closed and link.connection.has_backlog:
                ours.recv(1 << 20)
                all_links._flush(link)
    assert closed == ([] if reads else [link])
    loop.close()
    ours.close()
    theirs.close()


def test_a_failing_handler_ends_one_connection(session: FakeDriver) -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    closed: list[links.Link] = []

    def fail(_link: links.Link, _message: object) -> None:
        raise KeyError("a mistake of ours")

    all_links = links.Links(loop, hello(), fail, closed.append)
    all_links.adopt(theirs, 0)
    ours.sendall(frame(hello(), wire.Blocked()))
    [link] = all_links._links
    assert not all_links.read(link)
    assert closed == [link]
    loop.close()
    ours.close()


def test_the_session_has_survived_all_of_it(session: FakeDriver) -> None:
    late = NodeClient(session.node.node_address, new_process_id())
    late.wait_for(wire.Hello)
    late.close()
    lease = session.lease(6)
    assert tell(lease.worker_address, "result = 1") == 1
    session.shutdown()
