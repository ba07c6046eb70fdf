"""Connections of drivers and workers to the daemon: who may connect, who has said who it is."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from skate.runtime.node.loop import READ, WRITE, Loop, Timer
from skate.runtime.wire.connection import Connection, ProtocolError, node_decoder
from skate.runtime.wire.messages import PROTOCOL_VERSION, Hello

logger = logging.getLogger(__name__)

#: A connection that has not said Hello by then is closed, in seconds.
HELLO_SECONDS = 10.0
#: A process that leaves so many bytes unread is cut off, before it takes all our memory.
MAX_BACKLOG = 64 * 1024 * 1024
#: Pause after the process has run out of descriptors, in seconds.
ACCEPT_PAUSE_SECONDS = 0.1


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process at the other end; pid 0 where the kernel does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        # The directory of the socket has mode 0700: nobody else can have opened it.
        return 0, os.getuid()
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))
    return pid, uid


class Acceptor:
    """A listening socket: hands over connections, on Unix sockets those of our own user."""

    def __init__(
        self, loop: Loop, sock: socket.socket, adopt: Callable[[socket.socket, int], None]
    ) -> None:
        """``adopt(sock, pid)`` takes over each connection; ``pid`` as in ``peer_of``, 0 of TCP."""
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._adopt = adopt
        loop.add(sock, self._on_ready)

    def _on_ready(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the connection stays in the backlog until there are some.
            logger.warning("cannot accept a connection: %s", error)
            self._loop.remove(self._sock)
            self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
            return
        if sock.family != socket.AF_UNIX:
            self._adopt(sock, 0)
            return
        pid, uid = peer_of(sock)
        if uid != os.getuid():
            logger.warning("refused a connection of user %d (pid %d)", uid, pid)
            sock.close()
            return
        self._adopt(sock, pid)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add(self._sock, self._on_ready)

    def close(self) -> None:
        """Accept nothing any more."""
        self._sock.close()


class Link:
    """One node link."""

    __slots__ = (
        "connection",
        "deadline",
        "kind",
        "on_flushed",
        "peer_pid",
        "pid",
        "process_id",
        "refused",
        "where",
    )

    def __init__(self, connection: Connection[Any], peer_pid: int, where: str = "") -> None:
        self.connection = connection
        #: Where the other side is, for the log.
        self.where = where or f"pid {peer_pid}"
        #: Why we have closed it, if we have.
        self.refused = ""
        #: What the kernel says of the other side; ``pid`` is what it says itself.
        self.peer_pid = peer_pid
        self.pid = 0
        #: Empty until it has said Hello.
        self.process_id = b""
        #: "driver", "worker" or "tool"; empty until it has registered.
        self.kind = ""
        #: Called when everything that was queued has left.
        self.on_flushed: Callable[[], None] | None = None
        #: Ends it if it has not said Hello by then.
        self.deadline: Timer | None = None

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self.connection.fileno()


class RemoteLink(Link):
    """A process of another node, as handlers of messages see it.

    What it says comes through its daemon, and what it is sent goes through ``Links.send``.
    """

    __slots__ = ()

    def __init__(self, process_id: bytes) -> None:
        # Nobody reads from it or writes to it.
        self.where = "another node"
        self.peer_pid = self.pid = 0
        self.process_id = process_id
        self.kind = "remote"
        self.on_flushed = None


class Links:
    """All node links."""

    def __init__(
        self,
        loop: Loop,
        hello: Hello,
        on_message: Callable[[Link, Any], None],
        on_closed: Callable[[Link], None],
    ) -> None:
        """``on_message`` raises ProtocolError to end the link; ``on_closed`` hears of every end."""
        self._loop = loop
        self._hello = hello
        self._on_message = on_message
        self._on_closed = on_closed
        self._links: set[Link] = set()
        #: Links of registered processes.
        self.by_process: dict[bytes, Link] = {}
        self._dirty: set[Link] = set()
        #: Given what is for a process that has no link here.
        self.elsewhere: Callable[[bytes, Any], None] = lambda process_id, message: None

    def adopt(self, sock: socket.socket, peer_pid: int) -> None:
        """Take over an accepted connection."""
        self.add(Link(Connection(sock, node_decoder), peer_pid))

    def add(self, link: Link) -> None:
        """Take over a connection; the other side has to say ``Hello``, as we do."""
        self._links.add(link)
        self._loop.add(link, lambda events: self._on_events(link, events))
        link.deadline = self._loop.call_later(HELLO_SECONDS, lambda: self._expect_greeted(link))
        self.queue(link, self._hello)

    def registered(self, link: Link, kind: str) -> None:
        """The process has introduced itself."""
        link.kind = kind
        self.by_process[link.process_id] = link

    # ------------------------------------------------------------------ sending

    def send(self, process_id: bytes, message: object) -> None:
        """Queue a message for a process; nothing happens if it is gone."""
        link = self.by_process.get(process_id)
        if link is not None:
            self.queue(link, message)
        else:
            self.elsewhere(process_id, message)

    def broadcast(self, message: object) -> None:
        """Queue a message for every driver and worker."""
        for link in self.by_process.values():
            if link.kind != "tool":
                self.queue(link, message)

    def deliver(self, outgoing: Iterable[tuple[bytes, object]]) -> None:
        """Queue messages, each for the process named beside it."""
        for process_id, message in outgoing:
            self.send(process_id, message)

    def queue(self, link: Link, message: object) -> None:
        """Queue a message for a link, whether or not the other side has registered."""
        link.connection.send(message)
        self._dirty.add(link)

    def touch(self, link: Link) -> None:
        """What is queued for a link can be sent now."""
        self._dirty.add(link)

    def flush(self) -> None:
        """Send what was queued."""
        dirty, self._dirty = self._dirty, set()
        for link in dirty:
            self._flush(link)

    def _flush(self, link: Link) -> None:
        if link not in self._links:
            return
        done = link.connection.flush()
        if not done and link.connection.backlog_size > MAX_BACKLOG:
            self._end(link, f"it leaves {MAX_BACKLOG >> 20} MiB unread")
            return
        self._loop.want_write(link, not done)
        if done and link.on_flushed is not None:
            link.on_flushed()

    # ------------------------------------------------------------------ receiving

    def _on_events(self, link: Link, events: int) -> None:
        if events & WRITE:
            self._flush(link)
        if events & READ:
            self.read(link)

    def read(self, link: Link) -> bool:
        """Handle what has arrived; return whether there may be more."""
        if link not in self._links:
            return False
        try:
            messages = link.connection.receive()
            if messages is None:
                self.close(link)
                return False
            for message in messages:
                if link.process_id:
                    self._on_message(link, message)
                else:
                    self._greet(link, message)
        except ProtocolError as error:
            self._end(link, str(error))
            return False
        except Exception:
            # A message that is well formed but makes no sense must not end the daemon.
            logger.exception("could not handle a message")
            self._end(link, "its message could not be handled")
            return False
        return bool(messages)

    def _greet(self, link: Link, message: object) -> None:
        if not isinstance(message, Hello) or not message.process_id:
            raise ProtocolError("it did not begin with Hello")
        if message.version != PROTOCOL_VERSION:
            raise ProtocolError(f"it speaks version {message.version}, not {PROTOCOL_VERSION}")
        link.process_id = message.process_id
        link.pid = message.pid

    def _expect_greeted(self, link: Link) -> None:
        if link in self._links and not link.process_id:
            self._end(link, f"it said no Hello within {HELLO_SECONDS:g} s")

    # ------------------------------------------------------------------ ends

    def _end(self, link: Link, reason: str) -> None:
        link.refused = reason
        logger.warning(
            "closed the connection of %s (%s): %s",
            link.kind or "an unknown process",
            link.where,
            reason,
        )
        self.close(link)

    def close(self, link: Link) -> None:
        """Close a link and tell."""
        if link not in self._links:
            return
        self._links.discard(link)
        self._dirty.discard(link)
        if self.by_process.get(link.process_id) is link:
            del self.by_process[link.process_id]
        self._loop.remove(link)
        link.connection.close()
        if link.deadline is not None:
            link.deadline.cancel()
        self._on_closed(link)
