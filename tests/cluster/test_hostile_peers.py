"""TCP ports of a cluster: who may speak there, and that there are none without a cluster."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from listeners import tcp_listeners
from node_fakes import processes_of, wait_until

import skate
from skate.cluster_utils import Cluster
from skate.runtime.wire.authentication import MAGIC, Handshake, read_token

pytestmark = pytest.mark.timeout(120)


@skate.remote
def where() -> str:
    return skate.get_runtime_context().get_node_id()


def test_no_tcp_port_without_a_cluster() -> None:
    skate.shutdown()
    skate.init(num_cpus=2, engine="native")
    try:
        assert skate.get(where.remote())
        session = skate.get_runtime_context()._context
        del session
        directory = skate.init(ignore_reinit_error=True).address_info["session_dir"]
        pids = [os.getpid(), *processes_of(directory)]
        assert len(pids) >= 4
        assert tcp_listeners(pids) == set()
    finally:
        skate.shutdown()


def ports(cluster: Cluster) -> set[int]:
    """Every TCP port of a cluster: of daemons, workers and this driver."""
    found = tcp_listeners([os.getpid()])
    assert len(found) == 1
    for node in cluster.list_all_nodes:
        found |= tcp_listeners(processes_of(node.process.session_dir))
    return found


def is_closed(sock: socket.socket) -> bool:
    """Wait for the other side to close a connection."""
    sock.settimeout(30)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True


def test_strangers_are_turned_away(two_nodes: Cluster) -> None:
    refs = [where.options(resources={name: 1}).remote() for name in ("here", "there")]
    before = skate.get(refs)
    listening = ports(two_nodes)
    assert len(listening) >= 5
    silent = [socket.create_connection(("127.0.0.1", port)) for port in listening]
    for port in listening:
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), MAGIC + os.urandom(64)):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(greeting)
                assert is_closed(sock)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            # A token, but another cluster's.
            handshake = Handshake(b"x" * 32, is_client=True)
            sock.settimeout(30)
            while handshake.outgoing:
                sock.sendall(handshake.outgoing)
                handshake.outgoing = b""
                received = sock.recv(handshake.wanted)
                if not received:
                    break
                handshake.feed(received)
            assert not handshake.done
    # All of them still work, for those who belong.
    refs = [where.options(resources={name: 1}).remote() for name in ("here", "there") * 20]
    assert skate.get(refs) == before * 20
    for node in two_nodes.list_all_nodes:
        log = Path(node.process.session_dir, "logs", "node.log").read_text()
        assert "protocol of a cluster" in log
        assert "does not know the token" in log
    # Silence costs nothing but the connection.
    for sock in silent:
        assert is_closed(sock)
        sock.close()


def test_somebody_with_the_token_and_nonsense(two_nodes: Cluster) -> None:
    token = read_token(two_nodes.list_all_nodes[0].process.token_path)
    for node in two_nodes.list_all_nodes:
        host, port = node.address.split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.settimeout(30)
            handshake = Handshake(token, is_client=True)
            while not handshake.done:
                sock.sendall(handshake.outgoing)
                handshake.outgoing = b""
                handshake.feed(sock.recv(handshake.wanted))
            sock.sendall(struct.pack("<I", 7) + b"garbage")
            assert is_closed(sock)
    assert (
        len({skate.get(where.options(resources={n: 1}).remote()) for n in ("here", "there")}) == 2
    )


def test_the_token_is_ours_alone(two_nodes: Cluster) -> None:
    tokens = {read_token(node.process.token_path) for node in two_nodes.list_all_nodes}
    assert len(tokens) == 1
    for node in two_nodes.list_all_nodes:
        assert os.stat(node.process.token_path).st_mode & 0o777 == 0o600
        directory = node.process.session_dir
    skate.shutdown()
    two_nodes.shutdown()
    wait_until(lambda: not os.path.exists(directory), "the session directory is gone")
