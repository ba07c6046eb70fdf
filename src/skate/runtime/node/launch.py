"""Starting a node daemon: the driver's side.

The driver makes the session directory and binds both sockets itself, and the daemon inherits them:
the driver can connect and send at once; what it sends waits in the kernel for the daemon.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import signal
import socket
import subprocess
import sys

import msgspec
from msgspec import structs

from skate.exceptions import SessionError
from skate.ids import new_process_id
from skate.runtime.node import session_dir
from skate.runtime.node.causes import describe_status
from skate.runtime.node.config import LAST_WORDS, ClusterConfig, NodeConfig, Paths
from skate.runtime.wire import addresses

__all__ = ["ClusterConfig", "NodeConfig", "NodeProcess", "launch"]

#: Connections that the kernel accepts while the daemon is starting or busy.
BACKLOG = 1024
#: Seconds that the rest of a session gets to end by itself once its daemon was killed.
REMAINS_SECONDS = 2.0
#: Seconds after the end of its connections in which the daemon's process has ended, too.
STATUS_SECONDS = 0.5


class NodeProcess:
    """A node daemon, as the driver that started it sees it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        paths: Paths,
        node_id: bytes,
        cluster_address: str = "",
    ) -> None:
        self._process = process
        self._paths = paths
        self.pid = process.pid
        #: Directory of the session; gone when the session has ended.
        self.session_dir = paths.directory
        #: Path of the Unix socket for node messages.
        self.node_address = paths.node_socket
        #: Path of the Unix socket for store requests.
        self.store_address = paths.store_socket
        self.node_id = node_id
        #: ``host:port`` for the other nodes of a cluster; "" outside of one.
        self.cluster_address = cluster_address
        #: Written by the daemon when it has joined the cluster and drivers may come.
        self.description_path = paths.description
        #: The cluster's token.
        self.token_path = paths.token

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the daemon has ended, ``timeout`` seconds at most; return whether it has."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def leave(self) -> None:
        """Let it outlive this process, which is not to wait for it any more."""
        # Or ``Popen`` would warn of a child that still runs.
        self._process.returncode = 0

    def kill(self) -> None:
        """End the daemon by force.  Its zygote ends what it leaves; this waits for that."""
        lock = session_dir.open_lock(self._paths)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._clear_up(lock)

    def clear_up(self) -> None:
        """The daemon has ended: wait for the rest of the session, and remove what is left of it.

        A daemon removes everything, and so does the zygote of one that was killed; but while it
        still imports modules, the zygote is killed with it.
        """
        lock = session_dir.open_lock(self._paths)
        if lock is not None:
            self._clear_up(lock)

    def _clear_up(self, lock: int | None) -> None:
        if lock is not None:
            session_dir.wait_until_unlocked(lock, REMAINS_SECONDS)
            os.close(lock)
        session_dir.keep_log(self._paths, self._paths.node_log)
        session_dir.remove(self._paths)

    @property
    def log(self) -> str:
        """Where the log is of a daemon that has crashed or was killed; "" if it is empty."""
        return session_dir.node_log(self._paths)

    def describe_end(self) -> str:
        """Say in one line how the daemon has ended, which is why its connection did."""
        ended = self.wait(STATUS_SECONDS)
        how = self._cause() if ended else "has closed its connections"
        return f"(pid {self.pid}) {how}{session_dir.describe_log(self._paths)}"

    def _cause(self) -> str:
        # Popen has a negative signal number where the kernel has a status of its own.
        code = self._process.returncode
        cause = describe_status(-code if code < 0 else code << 8)
        return f"was {cause}" if code < 0 else cause

    def explain(self) -> str:
        """Say in the first line why the daemon ended; waits a moment for its status.

        The end of its log follows unless the daemon has named the reason itself.
        """
        if not self.wait(REMAINS_SECONDS):
            return f"the node daemon (pid {self.pid}) does not answer"
        text = f"the node daemon (pid {self.pid}) {self._cause()}"
        log = session_dir.node_log(self._paths)
        tail = session_dir.tail(self._paths.node_log) or session_dir.tail(log)
        if not tail:
            return text
        lines = tail.splitlines()
        for line in reversed(lines):
            if line.endswith(LAST_WORDS):
                # It begins with time, level and name of the logger.
                reason = line.partition(": ")[2].removesuffix(LAST_WORDS)
                return f"{reason} (the node's log: {log})"
        return f"{text}: {lines[-1].strip()}\nThe end of its log {log}:\n{tail}"


def launch(config: NodeConfig, token: bytes | None = None) -> NodeProcess:
    """Start the daemon of a new session and return at once.

    ``token`` is that of the cluster to join; a new cluster makes one.

    Raises:
        SessionError: the session directory cannot be made, the process cannot be started, or the
            port of ``config.cluster`` is taken.
    """
    if not sys.executable:
        raise SessionError("this Python does not know its own path (sys.executable is empty)")
    paths, lock_fd = session_dir.create()
    node_id = new_process_id()
    sockets: list[socket.socket] = []
    try:
        with open(os.path.join(paths.directory, "config"), "xb") as file:
            # Whatever else is in ``sys.path``, imports ignore it.
            entries: list[object] = [*config.sys_path]
            marshal.dump([entry for entry in entries if isinstance(entry, str)], file)
            file.write(node_id + msgspec.msgpack.encode(structs.replace(config, sys_path=[])))
        for path in (paths.node_socket, paths.store_socket):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.bind(path)
            sock.listen(BACKLOG)
        cluster_address = ""
        if config.cluster is not None:
            sockets.append(_open_to_others(config.cluster, paths, token))
            port = sockets[-1].getsockname()[1]
            cluster_address = addresses.join(config.cluster.host, port)
        process = _start(paths, [lock_fd, *(sock.fileno() for sock in sockets)])
    except OSError as error:
        session_dir.remove(paths)
        raise SessionError(f"cannot start the node daemon: {error}") from error
    except SessionError:
        session_dir.remove(paths)
        raise
    finally:
        for sock in sockets:
            sock.close()
        os.close(lock_fd)
    return NodeProcess(process, paths, node_id, cluster_address)


def _open_to_others(cluster: ClusterConfig, paths: Paths, token: bytes | None) -> socket.socket:
    from skate.runtime.wire.authentication import write_token  # clusters only

    write_token(paths.token, token)
    return addresses.listen(cluster.host, cluster.port, BACKLOG)


def _start(paths: Paths, fds: list[int]) -> subprocess.Popen[bytes]:
    # Not imported: that would execute the daemon's code in the driver.
    # What is imported stays: looking for garbage among it would make the start longer.
    bootstrap = (
        "import gc, sys, marshal; gc.disable(); "
        "f = open(sys.argv[1] + '/config', 'rb'); sys.path[:] = marshal.load(f); "
        "from skate.runtime.node.boot import main; main(f, *sys.argv[1:])"
    )
    # A driver without standard streams may have any of these as 0, 1 or 2.
    passed = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]
    try:
        with open(paths.node_log, "xb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", bootstrap, paths.directory, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=passed,
                start_new_session=True,
            )
    finally:
        for fd in passed:
            os.close(fd)
