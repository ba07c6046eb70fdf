"""The daemon's part of the store, on a thread: what the tests of the client talk to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from skate.runtime.store.link import request_decoder, send_answer
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire.connection import Connection
from skate.runtime.wire.messages import (
    AcquireSegment,
    GiveBackSegment,
    Hello,
    MapSegment,
    Message,
    SegmentAnswer,
)


class StoreDaemon:
    """Serves a ``SegmentTable`` on a Unix socket; messages to processes are kept in ``outbox``."""

    def __init__(self, path: Path, node_id: bytes, limit: int) -> None:
        self.table = SegmentTable(node_id, limit)
        self.outbox: list[tuple[bytes, Message]] = []
        #: Requests answered so far.
        self.requests = 0
        self.lock = threading.Lock()
        self.address = str(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock, request_decoder)
        sock.setblocking(True)
        process_id = b""
        while (messages := connection.receive()) is not None:
            for message in messages:
                if isinstance(message, Hello):
                    process_id = message.process_id
                    continue
                answer, fd = self._answer(process_id, message)
                send_answer(sock, answer, fd)

    def _answer(
        self, process_id: bytes, message: AcquireSegment | MapSegment | GiveBackSegment
    ) -> tuple[SegmentAnswer, int | None]:
        with self.lock:
            self.requests += 1
            if isinstance(message, AcquireSegment):
                return self.table.acquire(process_id, message.size)
            if isinstance(message, MapSegment):
                return self.table.map(process_id, message.segment_id)
            answer, outgoing = self.table.give_back(process_id, message.segment_id)
            self.outbox += outgoing
            return answer, None

    def close(self) -> None:
        """End all threads and close everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._clients:
            sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self._clients:
            sock.close()
        self.table.close()
