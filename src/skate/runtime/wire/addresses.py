"""Addresses of processes: where on one node, and where from another, a process is reached.

Without a cluster the address of a process is the path of its Unix socket.  In a cluster it names
the node as well, and host and port for everybody else: ``<node id in hex>@<host>:<port><path>``.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from skate.exceptions import SessionError


class Access(NamedTuple):
    """What a process needs to take part in a cluster of several nodes."""

    #: Where to listen: a name or address of this host.
    host: str
    #: The secret that all processes of the cluster share.
    token: bytes


def in_cluster(node_id: bytes, host: str, port: int, path: str) -> str:
    """Return the address of a process of a cluster."""
    return f"{node_id.hex()}@{host}:{port}{path}"


def endpoint(address: str, node_id: bytes) -> str | tuple[str, int]:
    """Return what to connect to from a node: a Unix path, or host and port.

    Raises:
        ValueError: it is no address.
    """
    if address.startswith("/"):
        return address
    node, _, rest = address.partition("@")
    place, slash, path = rest.partition("/")
    if bytes.fromhex(node) == node_id:
        return slash + path
    return split(place)


def split(place: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        ValueError: it does not look like that.
    """
    host, colon, port = place.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{place!r} is not host:port")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    """Return ``host:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one.

    Raises:
        SessionError: the port is taken, or the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise SessionError(
            f"cannot listen on {join(host, port)}: {error.strerror}; choose another port, or a "
            "host name of this machine"
        ) from error
    sock.setblocking(False)
    return sock


def dial(host: str, port: int) -> socket.socket:
    """Begin to connect and return the socket at once; what is sent meanwhile has to wait.

    Raises:
        OSError: it cannot even be tried.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((host, port))
        except BlockingIOError:
            return sock
    except BaseException:
        sock.close()
        raise
    return sock
