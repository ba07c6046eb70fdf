"""A very small HTTP server in the daemon's loop: ``GET /metrics``, nothing else.

It reads a request's head, answers and closes the connection.  It sends no secret and changes
nothing; it listens only where the user has said, on this machine unless told otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable

from skate.runtime.node.exposition import CONTENT_TYPE
from skate.runtime.node.loop import READ, WRITE, Loop

logger = logging.getLogger(__name__)

#: A request that has not been read and answered by then is given up, in seconds.
REQUEST_SECONDS = 15.0
#: Bytes of a request's head at most.
MAX_HEAD = 8 * 1024
#: Requests at the same time: more are turned away.
MAX_CONNECTIONS = 20

#: Is given what to call with the text.
Produce = Callable[[Callable[[str], None]], None]


class _Client:
    __slots__ = ("answered", "received", "sending", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.answered = False
        self.sending = b""

    def fileno(self) -> int:
        return self.sock.fileno()


class MetricsServer:
    """Listens, and answers with what ``produce`` makes."""

    def __init__(self, loop: Loop, host: str, port: int, produce: Produce) -> None:
        """Begin to listen; port 0: any that is free.

        Raises:
            OSError: it cannot listen there.
        """
        self._loop = loop
        self._produce = produce
        self._clients: set[_Client] = set()
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind(address)
            self._sock.listen()
            self._sock.setblocking(False)
        except OSError:
            self._sock.close()
            raise
        #: Where it listens.
        self.port = int(self._sock.getsockname()[1])
        loop.add(self._sock, self._on_connection)

    def close(self) -> None:
        """Stop listening, drop who is connected."""
        for client in list(self._clients):
            self._drop(client)
        if self._sock.fileno() >= 0:
            self._loop.remove(self._sock)
            self._sock.close()

    def _on_connection(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock)
        self._clients.add(client)
        self._loop.add(client, lambda events: self._on_events(client, events))
        self._loop.call_later(REQUEST_SECONDS, lambda: self._drop(client))

    def _on_events(self, client: _Client, events: int) -> None:
        if events & WRITE:
            self._send(client)
        elif events & READ:
            self._receive(client)

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(MAX_HEAD)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        if client.answered:
            return
        client.received += data
        if b"\r\n\r\n" in client.received or b"\n\n" in client.received:
            client.answered = True
            self._handle(client)
        elif len(client.received) > MAX_HEAD:
            client.answered = True
            self._answer(client, "431 Request Header Fields Too Large", "too much\n")

    def _handle(self, client: _Client) -> None:
        parts = client.received.split(b"\r\n", 1)[0].split(b" ")
        method, path = (parts[0], parts[1]) if len(parts) == 3 else (b"", b"")
        if method not in (b"GET", b"HEAD"):
            self._answer(client, "405 Method Not Allowed", "only GET\n")
        elif path.split(b"?")[0] not in (b"/metrics", b"/metrics/"):
            self._answer(client, "404 Not Found", "the metrics are at /metrics\n")
        else:
            self._produce(
                lambda text: self._answer(client, "200 OK", text, head_only=method == b"HEAD")
            )

    def _answer(self, client: _Client, status: str, text: str, head_only: bool = False) -> None:
        if client not in self._clients:
            return
        body = text.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        client.sending = head.encode() + (b"" if head_only else body)
        self._send(client)

    def _send(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.sending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        client.sending = client.sending[sent:]
        if client.sending:
            self._loop.want_write(client, True)
        else:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._loop.remove(client)
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_WR)
            client.sock.close()
