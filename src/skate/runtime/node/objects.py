"""The objects of this node: where each of them is, for whoever asks.

Finding an object may take long (it is on disk, or on another node), so whoever asks hands over a
function that is called, on the daemon's thread, when the object is in the memory of this node or
known to be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from skate.runtime.node.loop import Loop
from skate.runtime.store.server import Outgoing, SegmentTable
from skate.runtime.wire.messages import (
    LocateObject,
    Location,
    Message,
    ObjectFreed,
    ObjectLocated,
    ObjectStored,
)

#: How often to look whether somebody still looks at an object that nobody can ask for, in seconds.
SWEEP_SECONDS = 1.0

#: Called with where the object is on this node, or with None and why it is lost.
Found: TypeAlias = Callable[[Location | None, str], None]


class NodeObjects:
    """The directory of a node's objects."""

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        table: SegmentTable,
        deliver: Callable[[Iterable[tuple[bytes, Message]]], None],
    ) -> None:
        self._loop = loop
        self._node_id = node_id
        self.table = table
        self._deliver = deliver
        #: Brings an object here that is said to be on another node: ``pull(object_id, location,
        #: found)``.  None as long as there are no other nodes.
        self.pull: Callable[[bytes, Location, Found], None] | None = None
        #: Who waits for an object that is being brought here.
        self._awaited: dict[bytes, list[Found]] = {}
        self._sweeping = False

    # ------------------------------------------------------------------ messages

    def stored(self, process_id: bytes, message: ObjectStored) -> None:
        """A process wrote an object."""
        self.send(self.table.object_stored(process_id, message))

    def freed(self, message: ObjectFreed) -> None:
        """An owner freed an object."""
        self.send(self.table.object_freed(message))

    def locate(self, process_id: bytes, message: LocateObject) -> None:
        """A process asks where an object is."""

        def found(location: Location | None, reason: str) -> None:
            answer = ObjectLocated(message.request_id, message.object_id, location, reason)
            self._deliver([(process_id, answer)])

        self.find(message.object_id, message.location, found)

    def process_died(self, process_id: bytes) -> None:
        """Nobody counts any more what it owned."""
        self.send(self.table.process_died(process_id))

    # ------------------------------------------------------------------ finding

    def find(self, object_id: bytes, hint: Location, found: Found) -> None:
        """Call ``found`` when the object is in the memory of this node, or lost.

        ``hint`` is where it was said to be; it may be on another node.
        """
        location = self.table.locate(object_id)
        if location is not None:
            found(location, "")
            return
        if object_id in self._awaited:
            self._awaited[object_id].append(found)
            return
        if hint.node_id != self._node_id and self.pull is not None:
            self._awaited[object_id] = [found]
            self.pull(
                object_id, hint, lambda location, reason: self._brought(object_id, location, reason)
            )
            return
        found(None, _why_lost(hint, self._node_id))

    def _brought(self, object_id: bytes, location: Location | None, reason: str) -> None:
        for found in self._awaited.pop(object_id, ()):
            found(location, reason)

    # ------------------------------------------------------------------ memory

    def send(self, outgoing: Outgoing) -> None:
        """Send what the table has to say."""
        self._deliver(outgoing)
        if self.table.has_doomed and not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self.send(self.table.sweep())


def _why_lost(hint: Location, node_id: bytes) -> str:
    if hint.node_id != node_id:
        return f"its only copy was on node {hint.node_id.hex()}, which cannot be reached"
    return "its only copy went with the process that wrote it"
