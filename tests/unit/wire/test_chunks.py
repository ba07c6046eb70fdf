"""Chunks between two ends of a real connection."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from skate.runtime.wire.chunks import MOST_BESIDE, ChunkConnection, chunk_head
from skate.runtime.wire.cluster import cluster_decoder
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.parts import Location
from skate.runtime.wire.transfers import CHUNK_SIZE, ChunkFailed, ObjectChunk, PullChunk

TOKEN = bytes(32)
OBJECT = b"o" * 16

Ends = tuple[ChunkConnection[Any], ChunkConnection[Any]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Who sends chunks, and who asks for them; each knows that the other has the token."""
    first, second = socket.socketpair()
    sender: ChunkConnection[Any] = ChunkConnection(
        first, cluster_decoder, TOKEN, False, lambda _connection: None
    )
    receiver: ChunkConnection[Any] = ChunkConnection(
        second, cluster_decoder, TOKEN, True, lambda _connection: None, receives_chunks=True
    )
    while not (sender.is_authenticated and receiver.is_authenticated):
        for end in (receiver, sender):
            end.flush()
            assert end.receive() == []
    yield sender, receiver
    sender.close()
    receiver.close()


def take(receiver: ChunkConnection[Any], sender: ChunkConnection[Any]) -> Any:
    """Move bytes until there is a message."""
    while True:
        sender.flush()
        messages = receiver.receive()
        assert messages is not None
        if messages:
            [message] = messages
            return message


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535, 65536, CHUNK_SIZE])
def test_a_chunk_is_an_ordinary_message(length: int) -> None:
    body = random.Random(length).randbytes(length)
    frame = chunk_head(OBJECT, 7, length) + body
    assert int.from_bytes(frame[:4], "little") == len(frame) - 4
    [message] = cluster_decoder.decode(frame[4:])
    assert isinstance(message, ObjectChunk)
    assert (message.object_id, message.start, message.data) == (OBJECT, 7, body)


def test_chunks_and_messages_keep_their_order(ends: Ends) -> None:
    sender, receiver = ends
    chance = random.Random(1)
    for number in range(40):
        assert sender.is_idle
        if chance.random() < 0.3:
            sender.send(ChunkFailed(OBJECT, number, "it was freed"))
            assert not sender.is_idle
            assert take(receiver, sender) == ChunkFailed(OBJECT, number, "it was freed")
            continue
        length = chance.choice((0, 1, 1000, CHUNK_SIZE - 1, CHUNK_SIZE))
        body = chance.randbytes(length)
        sender.chunk_space(length)[:] = body
        sender.send_chunk(OBJECT, number, length)
        # What is said while a chunk is on its way comes behind it.
        sender.send(ChunkFailed(OBJECT, number, "later"))
        chunk = take(receiver, sender)
        assert (chunk.start, chunk.data) == (number, body)
        assert take(receiver, sender) == ChunkFailed(OBJECT, number, "later")
    receiver.send(PullChunk(OBJECT, 0, 5, Location(b"n", 1, 0, 5)))
    assert take(sender, receiver) == PullChunk(OBJECT, 0, 5, Location(b"n", 1, 0, 5))


def test_a_frame_that_is_too_large_is_refused(ends: Ends) -> None:
    sender, receiver = ends
    sender.sock.sendall((CHUNK_SIZE + MOST_BESIDE + 1).to_bytes(4, "little"))
    with pytest.raises(ProtocolError, match="frame of"):
        receiver.receive()


def test_a_frame_of_nonsense_is_refused(ends: Ends) -> None:
    sender, receiver = ends
    sender.sock.sendall((3).to_bytes(4, "little") + b"abc")
    with pytest.raises(ProtocolError):
        receiver.receive()


def test_the_end_is_noticed(ends: Ends) -> None:
    sender, receiver = ends
    sender.chunk_space(CHUNK_SIZE)
    sender.send_chunk(OBJECT, 0, CHUNK_SIZE)
    sender.flush()
    sender.close()
    messages: list[Any] | None = []
    while messages == []:
        messages = receiver.receive()
    assert messages is None
