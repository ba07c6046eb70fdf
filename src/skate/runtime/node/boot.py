"""The first code of the daemon's process: forks the zygote, then becomes the daemon.

``launch`` starts it, having put the driver's ``sys.path`` in place.
"""

from __future__ import annotations

# Nothing of the daemon itself is imported before the fork: the zygote does not need it, and
# begins to import what workers need a few milliseconds earlier.
import gc
import os
import signal
import socket
import sys
from typing import BinaryIO, NoReturn

import msgspec

from skate.ids import PROCESS_ID_SIZE
from skate.runtime.node import processes, zygote
from skate.runtime.node.config import NodeConfig, Paths


def main(config_file: BinaryIO, directory: str, lock_fd: str, *socket_fds: str) -> NoReturn:
    """Be the node daemon.

    ``config_file`` is read up to ``sys.path``; the node's id and the encoded ``NodeConfig`` follow.
    The descriptors, in decimal, are those of the lock and of the listening sockets: for node and
    store links and, in a cluster, for other nodes.
    """
    with config_file:
        payload = config_file.read()
    node_id = payload[:PROCESS_ID_SIZE]
    config = msgspec.msgpack.decode(payload[PROCESS_ID_SIZE:], type=NodeConfig)
    paths = Paths(directory)
    lock = int(lock_fd)
    fds = [int(fd) for fd in socket_fds]
    for fd in (lock, *fds):
        os.set_inheritable(fd, False)
    # Blocked signals and ignored ones are inherited; the driver may have set up any.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    sys.argv = [""]
    ours, theirs = socket.socketpair()
    gc.freeze()
    sys.stdout.flush()
    if os.fork() == 0:
        ours.close()
        # A listening socket that the daemon's death does not close would leave others waiting.
        for fd in fds:
            os.close(fd)
        zygote.run(theirs, config, paths, lock)
    theirs.close()
    _be_daemon(config, paths, node_id, fds, ours)


def _be_daemon(
    config: NodeConfig,
    paths: Paths,
    node_id: bytes,
    fds: list[int],
    zygote_socket: socket.socket,
) -> NoReturn:
    processes.set_name("skate-node")
    # Should the zygote be killed, its children become ours to end.
    processes.adopt_orphans()
    import logging

    from skate.runtime.node.daemon import Daemon

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("skate").setLevel(logging.INFO)
    _raise_descriptor_limit()
    gc.freeze()
    gc.enable()
    sockets = [socket.socket(fileno=fd) for fd in fds]
    status = Daemon(config, paths, node_id, sockets, zygote_socket).run()
    sys.stderr.flush()
    os._exit(status)


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as we may: four for each worker."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS refuses "unlimited"
        return
