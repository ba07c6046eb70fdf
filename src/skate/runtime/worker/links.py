"""Connections of a process: one to its node daemon, one to each process it deals with.

A process sends everything for one peer on one connection, so that what it sends arrives in order.
When two processes connect to each other at the same moment there are two connections, and each
side goes on sending on the one that it opened.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from skate.exceptions import SessionError
from skate.runtime.wire import addresses
from skate.runtime.wire.addresses import Access
from skate.runtime.wire.connection import (
    Connection,
    ProtocolError,
    node_decoder,
    peer_decoder,
)
from skate.runtime.wire.messages import PROTOCOL_VERSION, Hello
from skate.runtime.worker.pump import Pump

logger = logging.getLogger("skate")

#: Messages queued for one peer before they are sent even though more may follow at once.
FLUSH_AT = 64
#: Connections that the kernel accepts on our behalf while we are busy.
BACKLOG = 512


class Peer:
    """Another driver or worker, as one end of a link."""

    __slots__ = ("address", "connection", "dead", "functions", "leases_begun", "pid", "process_id")

    def __init__(self, process_id: bytes, address: str) -> None:
        self.process_id = process_id
        self.address = address
        self.pid = 0
        #: The connection we send on.
        self.connection: Connection[Any] | None = None
        #: Ids of the functions it has been sent.
        self.functions: set[bytes] = set()
        #: Leases it has been told of.
        self.leases_begun: set[int] = set()
        self.dead = False

    @property
    def queued(self) -> int:
        """How many messages wait to be sent to it."""
        return len(self.connection.out) if self.connection is not None else 0


class _Link:
    """A connection as a source of the pump."""

    __slots__ = ("connection", "links", "on_closed", "on_message", "peer")

    def __init__(
        self,
        links: Links,
        connection: Connection[Any],
        on_message: Callable[[Any, Any], None],
        on_closed: Callable[[Any], None],
    ) -> None:
        self.links = links
        self.connection = connection
        self.on_message = on_message
        self.on_closed = on_closed
        #: Known once the other side has said Hello.
        self.peer: Peer | None = None

    def fileno(self) -> int:
        return self.connection.fileno()

    def on_events(self, mask: int) -> None:
        if mask & select.EPOLLOUT and self.connection.flush():
            self.links.pump.want_write(self, False)
        if mask & ~select.EPOLLOUT:
            self.read()

    def read(self) -> bool:
        """Handle what has arrived; return whether there may be more."""
        try:
            messages = self.connection.receive()
        except ProtocolError as error:
            self.links.complain(self, str(error))
            messages = None
        if messages is None:
            self.links.drop(self)
            self.on_closed(self.peer)
            return False
        on_message = self.on_message
        for message in messages:
            peer = self.peer
            if peer is None:
                if type(message) is not Hello or message.version != PROTOCOL_VERSION:
                    self.links.complain(self, "it did not begin with a valid Hello")
                    self.links.drop(self)
                    return False
                self.links.greeted(self, message)
                continue
            on_message(peer, message)
        return bool(messages)


class _Listener:
    """A socket on which peers connect, as a source of the pump."""

    __slots__ = ("adopt", "sock")

    def __init__(self, sock: socket.socket, adopt: Callable[[socket.socket], None]) -> None:
        self.sock = sock
        self.adopt = adopt

    def fileno(self) -> int:
        return self.sock.fileno()

    def on_events(self, _mask: int) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError:
            return
        self.adopt(sock)


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is our user's (or cannot be told)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, 12))
    return bool(uid == os.getuid())


class Links:
    """All connections of this process.  Everything here runs under the core's lock."""

    def __init__(
        self,
        pump: Pump,
        process_id: bytes,
        path: str,
        on_peer_message: Callable[[Peer, Any], None],
        on_peer_closed: Callable[[Peer | None], None],
        on_unreachable: Callable[[bytes, str], None],
        node_id: bytes = b"",
        access: Access | None = None,
    ) -> None:
        """Listen on the Unix socket ``path`` and, if there is ``access``, for other nodes too."""
        self.pump = pump
        self.process_id = process_id
        self._path = path
        self._node_id = node_id
        self._access = access
        self._listeners = [_Listener(_listen(path), self._adopt_local)]
        #: Where others reach this process.
        self.address = path
        if access is not None:
            sock = addresses.listen(access.host, 0, BACKLOG)
            self._listeners.append(_Listener(sock, self._adopt_remote))
            port = sock.getsockname()[1]
            self.address = addresses.in_cluster(node_id, access.host, port, path)
        self._hello = Hello(process_id, os.getpid(), self.address)
        self._on_peer_message = on_peer_message
        self._on_peer_closed = on_peer_closed
        self._on_unreachable = on_unreachable
        self.peers: dict[bytes, Peer] = {}
        self._links: dict[Connection[Any], _Link] = {}
        for listener in self._listeners:
            pump.add(listener)
        #: The connection to the daemon.
        self.node: Connection[Any]
        #: Connections with queued messages.
        self.dirty: set[Connection[Any]] = set()

    def open_node(
        self,
        address: str,
        on_message: Callable[[Peer, Any], None],
        on_closed: Callable[[Peer | None], None],
    ) -> None:
        """Connect to the node daemon.

        Raises:
            SessionError: nobody listens there.
        """
        try:
            sock = _connect(address)
        except OSError as error:
            raise SessionError(f"cannot reach the node daemon at {address}: {error}") from error
        connection = Connection(sock, node_decoder)
        self.node = connection
        link = _Link(self, connection, on_message, on_closed)
        self._links[connection] = link
        connection.send(self._hello)
        self.pump.add(link)

    def peer(self, process_id: bytes, address: str) -> Peer:
        """Return the peer, connecting to it if need be; it is ``dead`` if that fails."""
        peer = self.peers.get(process_id)
        if peer is not None:
            return peer
        peer = Peer(process_id, address)
        try:
            connection = self._connect(address)
        except (OSError, ValueError) as error:
            peer.dead = True
            self._on_unreachable(process_id, f"cannot connect to {address}: {error}")
            return peer
        self.peers[process_id] = peer
        link = self._add(connection)
        link.peer = peer
        peer.connection = connection
        return peer

    def _connect(self, address: str) -> Connection[Any]:
        target = addresses.endpoint(address, self._node_id)
        if isinstance(target, str):
            return Connection(_connect(target), peer_decoder)
        if self._access is None:
            raise ValueError(f"{address} is in a cluster and this process is not")
        return self._authenticated(addresses.dial(*target), self._access, is_client=True)

    def _authenticated(
        self, sock: socket.socket, access: Access, is_client: bool
    ) -> Connection[Any]:
        from skate.runtime.wire.authentication import AuthenticatedConnection  # clusters only

        return AuthenticatedConnection(sock, peer_decoder, access.token, is_client, self._touch)

    def _touch(self, connection: Connection[Any]) -> None:
        self.dirty.add(connection)

    def _adopt_local(self, sock: socket.socket) -> None:
        if not same_user(sock):
            sock.close()
            return
        self._add(Connection(sock, peer_decoder))

    def _adopt_remote(self, sock: socket.socket) -> None:
        from skate.runtime.wire.authentication import HANDSHAKE_SECONDS

        assert self._access is not None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = self._add(self._authenticated(sock, self._access, is_client=False))

        def expect_greeted() -> None:
            if link.peer is None and link.connection in self._links:
                self.complain(link, f"it said nothing within {HANDSHAKE_SECONDS:g} s")
                self.drop(link)

        self.pump.call_later(HANDSHAKE_SECONDS, expect_greeted)

    def _add(self, connection: Connection[Any]) -> _Link:
        link = _Link(self, connection, self._on_peer_message, self._on_peer_closed)
        self._links[connection] = link
        connection.send(self._hello)
        self.dirty.add(connection)
        self.pump.add(link)
        return link

    @staticmethod
    def complain(link: _Link, reason: str) -> None:
        """Log why a connection was closed."""
        try:
            other = link.connection.sock.getpeername()
        except OSError:
            other = ""
        where = addresses.join(*other[:2]) if isinstance(other, tuple) else "this host"
        logger.warning("closed a connection from %s: %s", where, reason)

    def greeted(self, link: _Link, hello: Hello) -> None:
        """The other side of an accepted connection has said who it is."""
        peer = self.peers.get(hello.process_id)
        if peer is None:
            peer = Peer(hello.process_id, hello.address)
            if link.connection is not getattr(self, "node", None):
                self.peers[hello.process_id] = peer
        if peer.connection is None:
            peer.connection = link.connection
        peer.pid = hello.pid
        link.peer = peer

    def send(self, peer: Peer, message: object) -> None:
        """Queue a message for a peer; dropped if it is dead, which is told elsewhere."""
        connection = peer.connection
        if connection is None:
            return
        connection.out.append(message)
        self.dirty.add(connection)

    def send_node(self, message: object) -> None:
        """Queue a message for the daemon."""
        self.node.out.append(message)
        self.dirty.add(self.node)

    def flush(self) -> None:
        """Send what is queued, to the daemon first: it must know of objects before others do."""
        dirty = self.dirty
        if not dirty:
            return
        self.dirty = set()
        if self.node in dirty:
            dirty.discard(self.node)
            self._flush_one(self.node)
        for connection in dirty:
            self._flush_one(connection)

    def flush_peer(self, peer: Peer) -> None:
        """Send what is queued for one peer (and for the daemon) now."""
        dirty = self.dirty
        node = self.node
        if node.out:
            dirty.discard(node)
            self._flush_one(node)
        connection = peer.connection
        if connection is not None:
            dirty.discard(connection)
            self._flush_one(connection)

    def _flush_one(self, connection: Connection[Any]) -> None:
        if not connection.flush():
            link = self._links.get(connection)
            if link is not None:
                self.pump.want_write(link, True)

    def drop(self, link: _Link) -> None:
        """Close a connection."""
        if self._links.pop(link.connection, None) is None:
            return
        self.pump.remove(link)
        self.dirty.discard(link.connection)
        link.connection.close()

    def forget(self, process_id: bytes) -> Peer | None:
        """A process is dead: read what it still managed to say, then close its connections."""
        for link in [
            link
            for link in self._links.values()
            if link.peer is not None and link.peer.process_id == process_id
        ]:
            while link.connection in self._links and link.read():
                pass
            self.drop(link)
        peer = self.peers.pop(process_id, None)
        if peer is not None:
            peer.dead = True
            peer.connection = None
        return peer

    def close(self) -> None:
        """Close everything."""
        for link in list(self._links.values()):
            self.drop(link)
        for listener in self._listeners:
            self.pump.remove(listener)
            listener.sock.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def abandon(self) -> None:
        """After a fork, in the child: close our copies of the descriptors."""
        for link in self._links.values():
            link.connection.close()
        for listener in self._listeners:
            listener.sock.close()


def _connect(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
