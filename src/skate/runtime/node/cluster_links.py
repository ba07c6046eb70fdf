"""Connections between daemons: TCP, and nothing is read before both ends know the token."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from skate.runtime.node.links import Link, Links
from skate.runtime.node.loop import Loop
from skate.runtime.wire import addresses
from skate.runtime.wire.chunks import ChunkConnection
from skate.runtime.wire.cluster import cluster_decoder
from skate.runtime.wire.messages import Hello


class ClusterLink(Link):
    """A connection to another daemon."""

    __slots__ = ()

    connection: ChunkConnection[Any]


class ClusterLinks(Links):
    """All links to other daemons; ``by_process`` has them by node id."""

    def __init__(
        self,
        loop: Loop,
        hello: Hello,
        token: bytes,
        on_message: Callable[[Link, Any], None],
        on_closed: Callable[[Link], None],
    ) -> None:
        super().__init__(loop, hello, on_message, on_closed)
        self._token = token

    def adopt(self, sock: socket.socket, peer_pid: int) -> None:
        """Take over an accepted connection."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            where = addresses.join(*sock.getpeername()[:2])
        except OSError:
            # It is gone already, which the first read will tell.
            where = "another host"
        self._add(sock, where, False)

    def connect(self, address: str, *, for_chunks: bool = False) -> ClusterLink:
        """Begin to connect to another daemon; the link closes if that fails.

        Raises:
            OSError, ValueError: there can be nobody at this address.
        """
        host, port = addresses.split(address)
        return self._add(addresses.dial(host, port), address, True, for_chunks)

    def _add(
        self, sock: socket.socket, where: str, is_client: bool, for_chunks: bool = False
    ) -> ClusterLink:
        connection: ChunkConnection[Any] = ChunkConnection(
            sock,
            cluster_decoder,
            self._token,
            is_client,
            lambda _connection: self.touch(link),
            for_chunks,
        )
        link = ClusterLink(connection, 0, where)
        self.add(link)
        return link
