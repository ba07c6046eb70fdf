"""The handshake that begins every TCP connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.exceptions import SessionError
from skate.runtime.wire import addresses
from skate.runtime.wire.authentication import (
    AuthenticatedConnection,
    Handshake,
    read_token,
    write_token,
)
from skate.runtime.wire.connection import Connection, ProtocolError, peer_decoder
from skate.runtime.wire.messages import Hello

TOKEN, OTHER = b"t" * 32, b"o" * 32


def exchange(client: Handshake, server: Handshake, sizes: list[int]) -> None:
    """Carry bytes between two ends, in pieces of the given sizes, until nothing is left."""
    pieces = iter(sizes)
    while client.outgoing or server.outgoing:
        for sender, receiver in ((client, server), (server, client)):
            while sender.outgoing:
                size = min(next(pieces, 100), receiver.wanted)
                data, sender.outgoing = sender.outgoing[:size], sender.outgoing[size:]
                receiver.feed(data)


@given(st.lists(st.integers(1, 80)))
def test_both_ends_know_the_token(sizes: list[int]) -> None:
    client, server = Handshake(TOKEN, True), Handshake(TOKEN, False)
    exchange(client, server, sizes)
    assert client.done
    assert server.done


def test_a_server_tells_nothing_to_a_client_with_another_token() -> None:
    client, server = Handshake(OTHER, True), Handshake(TOKEN, False)
    with pytest.raises(ProtocolError, match="token"):
        exchange(client, server, [])
    assert not server.done
    assert not server.outgoing


def test_a_client_refuses_a_server_with_another_token() -> None:
    client, server = Handshake(TOKEN, True), Handshake(TOKEN, False)
    server.feed(client.outgoing)
    client.feed(server.outgoing)
    with pytest.raises(ProtocolError, match="token"):
        client.feed(b"x" * client.wanted)
    assert not client.done


def test_a_proof_sent_back_is_no_proof() -> None:
    first, second = Handshake(TOKEN, True), Handshake(TOKEN, True)
    first.feed(second.outgoing)
    greeting = len(second.outgoing)
    second.feed(first.outgoing[:greeting])
    with pytest.raises(ProtocolError, match="token"):
        first.feed(second.outgoing[greeting:])


@given(st.binary(min_size=1, max_size=200))
def test_garbage_ends_the_handshake(data: bytes) -> None:
    client, server = Handshake(TOKEN, True), Handshake(TOKEN, False)
    client.outgoing = data * 400
    with pytest.raises(ProtocolError):
        exchange(client, server, [])


def test_messages_wait_for_the_proof() -> None:
    left, right = socket.socketpair()
    ready: list[Connection[Any]] = []
    client = AuthenticatedConnection(left, peer_decoder, TOKEN, True, ready.append)
    server = AuthenticatedConnection(right, peer_decoder, TOKEN, False, ready.append)
    client.send(Hello(b"1", 1, "a"))
    server.send(Hello(b"2", 2, "b"))
    received: list[Any] = []
    for _ in range(10):
        for one in (client, server):
            assert one.flush()
            received += one.receive() or []
    assert sorted(hello.process_id for hello in received) == [b"1", b"2"]
    assert len(ready) == 2
    client.close()
    server.close()


def test_token_file(tmp_path: Path) -> None:
    path = str(tmp_path / "token")
    token = write_token(path)
    assert len(token) == 32
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert read_token(path) == token
    os.chmod(path, 0o640)
    with pytest.raises(SessionError, match="chmod 600"):
        read_token(path)
    os.chmod(path, 0o600)
    Path(path).write_text("nonsense")
    with pytest.raises(SessionError, match="no token"):
        read_token(path)
    with pytest.raises(SessionError, match="cannot read"):
        read_token(str(tmp_path / "missing"))


def test_addresses() -> None:
    here, there = b"12345678", b"abcdefgh"
    address = addresses.in_cluster(here, "127.0.0.1", 4000, "/tmp/x.sock")
    assert addresses.endpoint(address, here) == "/tmp/x.sock"
    assert addresses.endpoint(address, there) == ("127.0.0.1", 4000)
    assert addresses.endpoint("/tmp/y.sock", there) == "/tmp/y.sock"
    assert addresses.split("[::1]:80") == ("::1", 80)
    assert addresses.join("::1", 80) == "[::1]:80"
    for wrong in ("host", "host:", ":80", "host:0", "host:x", "host:70000"):
        with pytest.raises(ValueError, match="host:port"):
            addresses.split(wrong)
