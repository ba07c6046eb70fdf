"""The drivers and workers of other nodes, as their daemons have told of them: plain bookkeeping."""

from __future__ import annotations

from collections.abc import Iterable

from skate.ids import PROCESS_ID_SIZE
from skate.runtime.wire.cluster import ProcessInfo
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.messages import Job


class RemoteProcesses:
    """Which processes there are, and where."""

    def __init__(self) -> None:
        #: The node of each.
        self.homes: dict[bytes, bytes] = {}
        self._by_node: dict[bytes, dict[bytes, ProcessInfo]] = {}

    def node_joined(self, node_id: bytes, processes: Iterable[ProcessInfo]) -> None:
        """A node has introduced itself, and these processes with it."""
        self._by_node[node_id] = {}
        for process in processes:
            self.joined(node_id, process)

    def joined(self, node_id: bytes, process: ProcessInfo) -> None:
        """A node has one process more.

        Raises:
            ProtocolError: it has no proper id.
        """
        if len(process.process_id) != PROCESS_ID_SIZE:
            raise ProtocolError("it has a process without a proper id")
        self.homes[process.process_id] = node_id
        self._by_node[node_id][process.process_id] = process

    def died(self, node_id: bytes, process_id: bytes) -> ProcessInfo | None:
        """Forget a process; return what was known of it."""
        process = self._by_node[node_id].pop(process_id, None)
        if process is not None:
            self.homes.pop(process_id, None)
        return process

    def node_left(self, node_id: bytes) -> list[ProcessInfo]:
        """Forget all processes of a node, and return them."""
        gone = list(self._by_node.pop(node_id, {}).values())
        for process in gone:
            self.homes.pop(process.process_id, None)
        return gone

    def drivers(self) -> list[bytes]:
        """Return those that are drivers."""
        return [
            process.process_id
            for processes in self._by_node.values()
            for process in processes.values()
            if process.kind == "driver"
        ]

    def job_of(self, process_id: bytes) -> Job | None:
        """Return whose work a process does."""
        process = self._by_node.get(self.homes.get(process_id, b""), {}).get(process_id)
        return process.job if process is not None else None
