"""The store socket: segments and their descriptors for drivers and workers."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from skate.runtime.node.links import HELLO_SECONDS
from skate.runtime.node.loop import Loop
from skate.runtime.store.link import request_decoder, send_answer
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire.connection import Connection, ProtocolError
from skate.runtime.wire.messages import (
    PROTOCOL_VERSION,
    AcquireSegment,
    GiveBackSegment,
    Hello,
    MapSegment,
    Message,
)

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[tuple[bytes, Message]]], None]


class _Client:
    __slots__ = ("connection", "peer_pid", "process_id")

    def __init__(self, connection: Connection[Any], peer_pid: int) -> None:
        self.connection = connection
        self.peer_pid = peer_pid
        self.process_id = b""

    def fileno(self) -> int:
        return self.connection.fileno()


class StoreLinks:
    """Connections on the store socket."""

    def __init__(
        self,
        loop: Loop,
        table: SegmentTable,
        is_member: Callable[[bytes, int], bool],
        deliver: Deliver,
    ) -> None:
        """``is_member(process_id, peer_pid)``: whether such a process belongs to the session."""
        self._loop = loop
        self._table = table
        self._is_member = is_member
        self._deliver = deliver
        self._clients: set[_Client] = set()

    def adopt(self, sock: socket.socket, peer_pid: int) -> None:
        """Take over an accepted connection."""
        client = _Client(Connection(sock, request_decoder), peer_pid)
        self._clients.add(client)
        self._loop.add(client, lambda _events: self._read(client))
        self._loop.call_later(HELLO_SECONDS, lambda: self._expect_greeted(client))

    def process_died(self, process_id: bytes) -> None:
        """Close what the process had open."""
        for client in [c for c in self._clients if c.process_id == process_id]:
            self._close(client)

    def _read(self, client: _Client) -> None:
        try:
            messages = client.connection.receive()
            if messages is None:
                self._close(client)
                return
            for message in messages:
                self._handle(client, message)
        except ProtocolError as error:
            self._end(client, str(error))
        except OSError as error:
            self._end(client, f"cannot answer: {error}")
        except Exception:
            logger.exception("could not handle a store request")
            self._end(client, "its request could not be handled")

    def _handle(self, client: _Client, message: object) -> None:
        if not client.process_id:
            if not isinstance(message, Hello) or message.version != PROTOCOL_VERSION:
                raise ProtocolError("it did not begin with a valid Hello")
            if not self._is_member(message.process_id, client.peer_pid):
                raise ProtocolError("it is no process of this session")
            client.process_id = message.process_id
            return
        fd: int | None = None
        if isinstance(message, AcquireSegment):
            answer, fd = self._table.acquire(client.process_id, message.size)
        elif isinstance(message, MapSegment):
            answer, fd = self._table.map(client.process_id, message.segment_id)
        elif isinstance(message, GiveBackSegment):
            answer, outgoing = self._table.give_back(client.process_id, message.segment_id)
            self._deliver(outgoing)
        else:
            raise ProtocolError(f"it sent {type(message).__name__} a second time")
        send_answer(client.connection.sock, answer, fd)

    def _expect_greeted(self, client: _Client) -> None:
        if client in self._clients and not client.process_id:
            self._end(client, f"it said no Hello within {HELLO_SECONDS:g} s")

    def _end(self, client: _Client, reason: str) -> None:
        logger.warning("closed a store connection (pid %d): %s", client.peer_pid, reason)
        self._close(client)

    def _close(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._loop.remove(client)
            client.connection.close()
