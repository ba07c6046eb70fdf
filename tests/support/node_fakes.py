"""A driver and a worker without a runtime, for tests of the node daemon alone.

The worker executes whatever source text it is sent: a test connects to its address and tells it
what to do.  As an actor it executes its specification.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from skate.ids import IdSource, new_process_id
from skate.runtime.node.launch import NodeConfig, NodeProcess, launch
from skate.runtime.wire import messages as wire
from skate.runtime.wire.connection import Connection, node_decoder
from skate.runtime.worker.config import WorkerConfig

M = TypeVar("M")

#: Nothing in these tests takes longer, in seconds.
PATIENCE = 15.0
_LENGTH = struct.Struct("<I")


class NodeClient:
    """A node link that waits for messages."""

    def __init__(self, address: str, process_id: bytes, own_address: str = "") -> None:
        self.process_id = process_id
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)
        self.connection = Connection(sock, node_decoder)
        self.closed = False
        #: What has arrived and nobody has waited for yet.
        self.inbox: list[Any] = []
        self.send(wire.Hello(process_id, os.getpid(), own_address))

    def send(self, *messages: object) -> None:
        """Send messages now."""
        for message in messages:
            self.connection.send(message)
        deadline = time.monotonic() + PATIENCE
        while not self.connection.flush():
            assert time.monotonic() < deadline, "the daemon does not read"
            select.select([], [self.connection], [], 1.0)

    def receive(self, seconds: float) -> None:
        """Take in what arrives within some time; return as soon as something has."""
        if self.closed or not select.select([self.connection], [], [], max(seconds, 0))[0]:
            return
        messages = self.connection.receive()
        if messages is None:
            self.closed = True
        else:
            self.inbox += messages

    def find(self, kind: type[M], fields: dict[str, object]) -> M | None:
        """Take the first message of a type with these values out of the inbox."""
        for message in self.inbox:
            if isinstance(message, kind) and all(
                getattr(message, name) == value for name, value in fields.items()
            ):
                self.inbox.remove(message)
                return message
        return None

    def wait_for(self, kind: type[M], timeout: float = PATIENCE, **fields: object) -> M:
        """Wait for a message of a type whose fields have these values, and take it."""
        deadline = time.monotonic() + timeout
        while (message := self.find(kind, fields)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or self.closed:
                state = "closed" if self.closed else "silent"
                raise AssertionError(f"no {kind.__name__} {fields}; {state}; got {self.inbox}")
            self.receive(left)
        return message

    def settle(self) -> None:
        """Wait until the daemon has handled everything sent so far."""
        self.send(wire.StateRequest(999_999, "nodes"))
        self.wait_for(wire.StateAnswer, request_id=999_999)

    def wait_closed(self, timeout: float = PATIENCE) -> None:
        """Wait until the daemon has closed the connection."""
        deadline = time.monotonic() + timeout
        while not self.closed:
            assert time.monotonic() < deadline, "the connection stays open"
            self.receive(deadline - time.monotonic())

    def rows(self, what: str) -> list[dict[str, Any]]:
        """Ask for rows of the state API."""
        self.send(wire.StateRequest(7, what))
        return self.wait_for(wire.StateAnswer, request_id=7).rows

    def request_lease(
        self, request_id: int, depth: int = 0, name: str = "f", **resources: float
    ) -> None:
        """Ask for a lease."""
        self.send(wire.RequestLease(request_id, resources, depth, name))

    def lease(self, request_id: int = 1, depth: int = 0, **resources: float) -> wire.LeaseGranted:
        """Ask for a lease and wait for it."""
        self.request_lease(request_id, depth, **resources)
        return self.wait_for(wire.LeaseGranted, request_id=request_id)

    def close(self) -> None:
        """Close the link."""
        self.closed = True
        self.connection.close()


class FakeDriver(NodeClient):
    """A session and its driver's link."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        super().__init__(node.node_address, new_process_id())
        self.ids = IdSource(self.process_id)
        self.send(wire.Register("driver", ""))
        self.registered = self.wait_for(wire.Registered)

    def create_actor(self, code: str = "", **changes: Any) -> bytes:
        """Ask for an actor whose constructor executes ``code``; return its id."""
        actor_id = self.ids.draw()
        fields: dict[str, Any] = {
            "name": "",
            "namespace": "",
            "resources": {},
            "max_restarts": 0,
            "handle": b"",
            "detached": False,
            "depth": 0,
        }
        fields.update(changes)
        self.send(
            wire.CreateActor(
                actor_id=actor_id,
                class_name="Keeper",
                max_concurrency=1,
                spec=code.encode(),
                **fields,
            )
        )
        return actor_id

    def actor(self, code: str = "", **changes: Any) -> wire.ActorState:
        """Make an actor and wait until it lives."""
        actor_id = self.create_actor(code, **changes)
        return self.wait_for(wire.ActorState, actor_id=actor_id, state="alive")

    def shutdown(self) -> None:
        """End the session as drivers do."""
        self.send(wire.Shutdown())
        self.wait_for(wire.ShutdownDone)
        assert self.node.wait(PATIENCE)
        self.close()


def config(**changes: Any) -> NodeConfig:
    """A session with two CPUs and fake workers."""
    fields: dict[str, Any] = {
        "resources": {"CPU": 2.0},
        "object_store_memory": 1 << 26,
        "job_id": "job",
        "driver_pid": os.getpid(),
        "namespace": "session",
        "sys_path": [str(Path(__file__).parent), *sys.path],
        "worker_module": "node_fakes",
    }
    fields.update(changes)
    return NodeConfig(**fields)


@contextmanager
def driver(**changes: Any) -> Iterator[FakeDriver]:
    """A session that has ended, whatever the test did, when the block is left."""
    node = launch(config(**changes))
    link = None
    try:
        link = FakeDriver(node)
        yield link
    finally:
        if link is not None:
            link.close()
        if not node.wait(PATIENCE):
            node.kill()


def tell(address: str, code: str) -> Any:
    """Have a fake worker execute ``code`` and return what it assigned to ``result``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)
        sock.sendall(_LENGTH.pack(len(code)) + code.encode())
        parts = b""
        while part := sock.recv(4096):
            parts += part
    return ast.literal_eval(parts.decode()) if parts else None


def processes_of(session_dir: str) -> list[int]:
    """Living processes of a session: daemon, zygote and workers share their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if session_dir.encode() in command.split(b"\0"):
            found.append(int(entry))
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Any, what: str, timeout: float = PATIENCE) -> None:
    """Wait for a condition that no message announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.005)


def assert_gone(session_dir: str, timeout: float = 5.0) -> None:
    """Wait until no process and no file of a session is left."""
    wait_until(lambda: not processes_of(session_dir), "processes are left", timeout)
    wait_until(lambda: not os.path.exists(session_dir), "its directory is left", timeout)


# --------------------------------------------------------------------------- the worker


class FakeWorker:
    """Executes source text, for the daemon (actors) and for tests."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        #: Others may reach what it owns: it does not exit when it is told to.
        self.needed = False
        self.exits = 0
        self.address = f"{config.session_dir}/{config.worker_id.hex()}.sock"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.address)
        self.listener.listen()
        self.node = NodeClient(config.node_address, config.worker_id, self.address)
        self.node.send(wire.Register("worker", self.address))
        self.node.wait_for(wire.Registered)

    def run(self) -> NoReturn:
        """Obey."""
        while True:
            self._obey_daemon()
            ready, _, _ = select.select([self.listener, self.node.connection], [], [])
            if self.listener in ready:
                self._obey_test()
            else:
                self.node.receive(0)

    def _obey_daemon(self) -> None:
        if self.node.closed:
            os._exit(1)
        while (start := self.node.find(wire.StartActor, {})) is not None:
            error = None
            try:
                self._execute(start.spec.decode())
            except Exception as raised:
                error = repr(raised).encode()
            self.node.send(wire.ActorStarted(start.actor_id, error))
        if self.node.find(wire.ExitWorker, {}) is not None:
            if not self.needed:
                os._exit(0)
            self.exits += 1
            self.node.send(wire.StillNeeded())

    def _obey_test(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            (size,) = _LENGTH.unpack(sock.recv(4, socket.MSG_WAITALL))
            code = sock.recv(size, socket.MSG_WAITALL).decode()
            try:
                result = self._execute(code)
            except Exception:
                traceback.print_exc()
                return
            sock.sendall(repr(result).encode())

    def _execute(self, code: str) -> Any:
        names: dict[str, Any] = {
            "worker": self,
            "node": self.node,
            "wire": wire,
            "os": os,
            "signal": signal,
            "sys": sys,
            "time": time,
            "result": None,
        }
        exec(code, names)
        sys.stdout.flush()
        return names["result"]


def main(config: WorkerConfig) -> NoReturn:
    """Be a worker."""
    FakeWorker(config).run()
