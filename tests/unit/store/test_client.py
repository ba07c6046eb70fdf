"""The client against a real socket and real memory."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_client import (
    LIMIT,
    MIB,
    NODE,
    OWNER,
    READER,
    WRITER,
    MakeClient,
    data_of,
    free,
    get,
    id_at,
    put,
)
from store_daemon import StoreDaemon

from skate.exceptions import (
    NodeDiedError,
    ObjectStoreFullError,
    SessionError,
)
from skate.runtime.store.client import NoRoomError, NotHereError, StoreClient
from skate.runtime.store.link import request_decoder
from skate.runtime.wire.connection import Connection
from skate.runtime.wire.messages import (
    AcquireSegment,
    Location,
    ObjectFreed,
    ObjectStored,
    SegmentRetired,
)


class Pin:
    pass


@pytest.mark.parametrize("size", [5000, 200_000, 5 * MIB, 20 * MIB])
def test_what_one_process_writes_another_reads(connect: MakeClient, size: int) -> None:
    writer, reader = connect(WRITER), connect(READER)
    value = data_of(size)
    # The second time memory that exists is written, by another way.
    for _ in range(3):
        location = put(writer, value)
        assert location.node_id == NODE
        assert location.offset % 64 == 0
        for client in (reader, writer):
            result = get(client, location)
            np.testing.assert_array_equal(result, value)
            assert not result.flags.writeable
            del result
        free(writer, location)


def test_nothing_is_opened_before_the_first_object(daemon: StoreDaemon) -> None:
    client = StoreClient("/does/not/exist", NODE, WRITER)
    free(client, Location(NODE, 1, 0, 100))
    client.retire(1)
    client.trim()
    client.close()
    assert daemon.requests == 0


def test_no_round_trip_in_the_steady_state(connect: MakeClient, daemon: StoreDaemon) -> None:
    writer, reader = connect(WRITER), connect(READER)
    previous: Location | None = None
    for step in range(50):
        location = put(writer, data_of(MIB, step))
        assert get(reader, location)[0] == data_of(MIB, step)[0]
        if previous is not None:
            free(writer, previous)
        previous = location
    assert daemon.requests == 2  # one slab made, and mapped by the reader


def test_a_large_object_is_replaced_in_the_same_memory(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer = connect(WRITER)
    seen = set()
    previous: Location | None = None
    for _ in range(10):
        location = put(writer, data_of(22 * MIB))
        seen.add(location.segment_id)
        if previous is not None:
            free(writer, previous)
        previous = location
    assert len(seen) == 2
    assert daemon.requests == 2


@pytest.mark.usefixtures("small_slabs")
def test_free_memory_is_bounded_and_can_be_trimmed(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer = connect(WRITER)
    locations = [put(writer, data_of(MIB)) for _ in range(20)]
    assert daemon.table.used_bytes >= 20 * MIB
    for location in locations:
        free(writer, location)
    assert 0 < daemon.table.used_bytes <= 4 * MIB
    writer.trim()
    location = put(writer, data_of(100))
    writer.trim()
    assert 0 < daemon.table.used_bytes <= 2 * MIB
    free(writer, location)
    writer.trim()
    writer.trim()
    assert daemon.table.used_bytes == 0


@pytest.mark.usefixtures("small_slabs")
def test_the_last_free_segment_is_kept_however_large(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer = connect(WRITER)
    free(writer, put(writer, data_of(30 * MIB)))
    assert 30 * MIB < daemon.table.used_bytes <= 31 * MIB
    assert put(writer, data_of(30 * MIB)).segment_id == 1


def test_full_names_what_was_asked_and_what_is_used(connect: MakeClient) -> None:
    writer = connect(WRITER)
    put(writer, data_of(40 * MIB))
    with pytest.raises(NoRoomError) as caught:
        put(writer, data_of(30 * MIB))
    message = str(caught.value)
    assert 30 * MIB < caught.value.size <= 31 * MIB
    assert str(caught.value.size) in message
    assert str(LIMIT) in message


def test_own_free_memory_is_given_back_before_it_is_full(connect: MakeClient) -> None:
    writer = connect(WRITER)
    kept = put(writer, data_of(200_000, 1))
    free(writer, put(writer, data_of(25 * MIB)))
    location = put(writer, data_of(30 * MIB, 2))
    np.testing.assert_array_equal(get(writer, location), data_of(30 * MIB, 2))
    np.testing.assert_array_equal(get(writer, kept), data_of(200_000, 1))


def test_a_little_room_is_enough_for_a_small_object(connect: MakeClient) -> None:
    other, writer = connect(OWNER), connect(WRITER)
    put(other, data_of(60 * MIB))
    location = put(writer, data_of(200_000))
    np.testing.assert_array_equal(get(other, location), data_of(200_000))


def test_a_failed_write_takes_no_memory(
    connect: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = connect(WRITER)
    first = put(writer, data_of(MIB))

    def no_space(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(ObjectStoreFullError, match="No space left"):
            put(writer, data_of(MIB, 1))
    again = put(writer, data_of(MIB, 2))
    assert again.offset == -(-first.size // 64) * 64 + 64
    np.testing.assert_array_equal(get(writer, first), data_of(MIB))
    np.testing.assert_array_equal(get(writer, again), data_of(MIB, 2))


def test_a_pin_lives_as_long_as_the_arrays(connect: MakeClient) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, {"a": data_of(200_000), "b": data_of(300_000)})
    for client in (writer, reader):
        pin = Pin()
        alive = weakref.ref(pin)
        part = get(client, location, pin)["b"][10:20]
        del pin
        gc.collect()
        assert alive() is not None
        del part
        gc.collect()
        assert alive() is None


def test_views_survive_close_and_free(connect: MakeClient) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(20 * MIB))
    views = [get(writer, location), get(reader, location)]
    writer.close()
    reader.close()
    for view in views:
        np.testing.assert_array_equal(view, data_of(20 * MIB))
    for action in (lambda: put(writer, data_of(100)), lambda: get(reader, location)):
        with pytest.raises(SessionError):
            action()
    writer.close()


def test_a_retired_segment_is_used_no_more_and_given_back(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer = connect(WRITER)
    first, second = put(writer, data_of(MIB)), put(writer, data_of(MIB))
    assert first.segment_id == second.segment_id
    writer.retire(first.segment_id)
    third = put(writer, data_of(MIB))
    assert third.segment_id != first.segment_id
    free(writer, first)
    assert put(writer, data_of(MIB)).segment_id == third.segment_id
    used = daemon.table.used_bytes
    free(writer, second)
    assert daemon.table.used_bytes < used
    assert not writer.is_writer(first)
    assert writer.is_writer(third)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_reader_unmaps_what_is_retired_with_the_last_view(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:skate")

    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(20 * MIB))
    before = mapped()
    view = get(reader, location)
    assert mapped() == before + 1
    reader.retire(location.segment_id)
    np.testing.assert_array_equal(view, data_of(20 * MIB))
    del view
    gc.collect()
    assert mapped() == before
    # Retired is not lost: while its owner lives it can be opened again.
    np.testing.assert_array_equal(get(reader, location), data_of(20 * MIB))


def test_an_object_of_a_dead_writer_is_read_until_its_owner_frees_it(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(20 * MIB), OWNER)
    oid = id_at(location)
    daemon.table.object_stored(WRITER, ObjectStored(oid, location))
    writer.close()
    assert daemon.table.process_died(WRITER) == []
    view = get(reader, location)
    # Somebody looks at it: that counts more than what its owner says.
    assert daemon.table.object_freed(ObjectFreed(oid, location)) == []
    assert daemon.table.sweep() == []
    np.testing.assert_array_equal(view, data_of(20 * MIB))
    del view
    assert daemon.table.sweep() == [(READER, SegmentRetired(location.segment_id))]
    reader.retire(location.segment_id)
    with pytest.raises(NotHereError):
        get(reader, location)


def test_orphans_stay_for_as_long_as_somebody_looks(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    """A dead owner's object: its memory is written again only after the last view."""
    writer, reader = connect(WRITER), connect(READER)
    orphan, own = put(writer, data_of(MIB, 1), OWNER), put(writer, data_of(MIB, 2))
    daemon.table.object_stored(WRITER, ObjectStored(id_at(orphan), orphan))
    views = [get(reader, orphan), get(writer, orphan)]
    assert daemon.table.process_died(OWNER) == []
    for seed in range(40):
        free(writer, put(writer, data_of(MIB, 10 + seed)))
    np.testing.assert_array_equal(get(writer, own), data_of(MIB, 2))
    while views:
        assert daemon.table.has_doomed
        assert daemon.table.sweep() == []
        np.testing.assert_array_equal(views.pop(), data_of(MIB, 1))
    [(process, message)] = daemon.table.sweep()
    assert process == WRITER
    assert isinstance(message, ObjectFreed)
    assert message.location == orphan
    with pytest.raises(NotHereError):
        get(reader, orphan)
    writer.free(message.location)
    assert put(writer, data_of(MIB, 3)).offset == orphan.offset


def test_a_pin_holds_until_the_last_view_of_its_process(
    connect: MakeClient, daemon: StoreDaemon
) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(MIB, 1))
    views = [get(reader, location) for _ in range(3)]
    while views:
        free(writer, location)
        np.testing.assert_array_equal(get(reader, location), data_of(MIB, 1))
        views.pop()
    free(writer, location)
    with pytest.raises(NotHereError):
        get(reader, location)


def test_the_pins_of_a_process_go_with_it(connect: MakeClient) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(MIB, 1))
    get(reader, location)  # maps the segment
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = StoreClient(reader._address, NODE, READER)
        view = get(own, location)
        os.write(write_end, b"x")
        time.sleep(60)
        os._exit(len(view))
    os.read(read_end, 1)
    free(writer, location)
    np.testing.assert_array_equal(get(reader, location), data_of(MIB, 1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    free(writer, location)
    with pytest.raises(NotHereError):
        get(reader, location)
    os.close(read_end)
    os.close(write_end)


def test_a_fork_does_not_drop_the_pins_of_its_parent(connect: MakeClient) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(MIB, 1))
    views = [get(reader, location)]
    pid = os.fork()
    if pid == 0:
        reader.abandon()
        writer.abandon()
        views.clear()
        os._exit(0)
    os.waitpid(pid, 0)
    free(writer, location)
    np.testing.assert_array_equal(get(reader, location), data_of(MIB, 1))


def test_using_objects_in_the_middle_of_using_objects(connect: MakeClient) -> None:
    """A finalizer that interrupts the client itself gets an error, not a deadlock."""
    writer = connect(WRITER)
    location = put(writer, data_of(MIB, 1))
    with writer._lock, pytest.raises(RuntimeError, match="finalizer"):
        get(writer, location)
    np.testing.assert_array_equal(get(writer, location), data_of(MIB, 1))


def test_wrong_locations_are_errors(connect: MakeClient) -> None:
    writer, reader = connect(WRITER), connect(READER)
    location = put(writer, data_of(MIB))
    for wrong in (Location(b"else", 1, 0, 100), Location(NODE, 77, 0, 100)):
        with pytest.raises(NotHereError):
            reader.open(wrong, id_at(location), None)
    size = location.size
    for offset, length in ((-64, 100), (0, 2**40), (2**62, 2**62), (0, -1), (64, size), (0, 100)):
        with pytest.raises(NotHereError):
            reader.open(Location(NODE, location.segment_id, offset, length), id_at(location), None)
    with pytest.raises(NotHereError):
        reader.open(location, OWNER + bytes(8), None)
    np.testing.assert_array_equal(get(reader, location), data_of(MIB))


def test_free_ignores_what_it_cannot_free(connect: MakeClient, daemon: StoreDaemon) -> None:
    writer, reader = connect(WRITER), connect(READER)
    first, second = put(writer, data_of(MIB, 1)), put(writer, data_of(MIB, 2))
    assert not reader.is_writer(first)
    free(reader, first)
    free(writer, Location(b"else", first.segment_id, first.offset, first.size))
    free(writer, Location(NODE, 99, 0, 100))
    free(writer, Location(NODE, first.segment_id, first.offset + 64, first.size))
    free(writer, Location(NODE, first.segment_id, first.offset, 100))
    third = put(writer, data_of(MIB, 3))
    for location, seed in ((first, 1), (second, 2), (third, 3)):
        np.testing.assert_array_equal(get(writer, location), data_of(MIB, seed))


def test_freeing_and_retiring_never_wait_for_the_lock(connect: MakeClient) -> None:
    """A finalizer may run in the middle of any operation of the same thread."""
    writer = connect(WRITER)
    first, second = put(writer, data_of(MIB)), put(writer, data_of(MIB))
    with writer._lock:
        free(writer, first)
        writer.retire(12345)
    assert put(writer, data_of(MIB)).offset == first.offset
    assert writer.is_writer(second)


def test_a_dead_daemon_is_an_error_at_once(tmp_path: Path) -> None:
    daemon = StoreDaemon(tmp_path / "s", NODE, LIMIT)
    writer = StoreClient(daemon.address, NODE, WRITER)
    reader = StoreClient(daemon.address, NODE, READER)
    location = put(writer, data_of(MIB))
    daemon.close()
    # What needs nobody else goes on.
    np.testing.assert_array_equal(get(writer, put(writer, data_of(MIB, 1))), data_of(MIB, 1))
    with pytest.raises(NodeDiedError):
        put(writer, data_of(40 * MIB))
    with pytest.raises(NodeDiedError):
        get(reader, location)
    free(writer, location)
    writer.retire(location.segment_id)
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00", b"\xff\xff\xff\xff", b"\x03\x00\x00\x00abc", b"\x01\x00\x00\x00\x90"],
)
def test_a_daemon_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    client = StoreClient(str(tmp_path / "s"), NODE, WRITER)

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(4096)
            sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(NodeDiedError):
        put(client, data_of(MIB))
    thread.join(10)
    assert not thread.is_alive()
    listener.close()
    client.close()


def test_closing_wakes_a_thread_that_waits_for_the_daemon(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    client = StoreClient(str(tmp_path / "s"), NODE, WRITER)
    errors: list[Exception] = []

    def write() -> None:
        try:
            put(client, data_of(MIB))
        except Exception as error:  # the thread's only way to report
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    sock, _ = listener.accept()
    connection = Connection(sock, request_decoder)
    sock.settimeout(10)
    received: list[Any] = []
    while not any(isinstance(message, AcquireSegment) for message in received):
        received += connection.receive() or []
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(errors[0], SessionError)
    sock.close()
    listener.close()
