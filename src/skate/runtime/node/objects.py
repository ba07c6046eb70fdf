"""The objects of this node: where each of them is, for whoever asks, and room for more.

Finding an object may take long (it is on disk, or on another node), so whoever asks hands over a
function that is called, on the daemon's thread, when the object is in the memory of this node or
known to be lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TypeAlias

from skate.runtime.node.loop import Loop
from skate.runtime.node.room import Room
from skate.runtime.node.spilling import Spiller
from skate.runtime.store.arena import Arena
from skate.runtime.store.entries import Entry, Segment
from skate.runtime.store.server import Outgoing, SegmentTable
from skate.runtime.store.spill import SpillStorage
from skate.runtime.wire.messages import (
    LocateObject,
    Location,
    Message,
    ObjectFreed,
    ObjectLocated,
    ObjectStored,
    ObjectsUsed,
    RequestRoom,
    RoomAnswer,
    SegmentRetired,
)

#: How often to look whether somebody still looks at an object that nobody can ask for, in seconds.
SWEEP_SECONDS = 1.0
#: An object that was brought here stays for so long, so that who has asked can open it, in seconds.
#: Longer would limit how fast a small store can be read through.
KEEP_SECONDS = 0.05

#: How long an object that is to be brought here waits for room without anything that could be
#: spilled, in seconds.  Many fresh workers may hold an argument each, and have to import half a
#: library before they look at it: on a busy machine, all at once, that has taken more than 10.
BRING_SECONDS = 30.0
#: Objects that could not be read, remembered with the reason.
MOST_DAMAGED = 1000
#: Memory that no segment has is given to the machine when nobody has waited for any for so long.
SPARE_SECONDS = 5.0


class NoRoom(str):
    """Why an object cannot be brought here that is not lost."""

    __slots__ = ()


#: Called with where the object is on this node, or with None and why it is lost.
Found: TypeAlias = Callable[[Location | None, str], None]


class NodeObjects:
    """The directory of a node's objects."""

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        table: SegmentTable,
        storage: SpillStorage,
        deliver: Callable[[Iterable[tuple[bytes, Message]]], None],
    ) -> None:
        self._loop = loop
        self._node_id = node_id
        self.table = table
        self._deliver = deliver
        self.arena = Arena(table, node_id)
        self.spiller = Spiller(loop, table, storage, self.send)
        self.room = Room(loop, node_id, table, self.spiller, self.send, self.arena.is_filling)
        #: Adds to an error why there is no room: ``explain(error, done)``.
        self.explain: Callable[[str, Callable[[str], None]], None] = lambda error, done: done(error)
        #: Brings an object here from another node: ``pull(object_id, location, lost, found)``.
        #: ``lost`` says why it is not here any more if that is where it is said to be: there may be
        #: copies.  None as long as there are no other nodes.
        self.pull: Callable[[bytes, Location, str, Found], None] | None = None
        #: Told of every object that a process of this node has freed.
        self.on_freed: Callable[[ObjectFreed], None] = lambda message: None
        #: Who waits for an object that is being brought here.
        self._awaited: dict[bytes, list[Found]] = {}
        #: Objects that could not be read from disk, and why: for those who ask again.
        self._damaged: dict[bytes, str] = {}
        self._sweeping = False
        self._trimming = False

    # ------------------------------------------------------------------ messages

    def stored(self, process_id: bytes, message: ObjectStored) -> None:
        """A process wrote an object."""
        self.send(self.table.object_stored(process_id, message))

    def freed(self, message: ObjectFreed) -> None:
        """An owner freed an object."""
        self.send(self.table.object_freed(message))
        self.on_freed(message)

    def used(self, message: ObjectsUsed) -> None:
        """A process has read objects."""
        for object_id in message.object_ids:
            entry = self.table.find(object_id)
            if entry is not None:
                self.table.touch(entry)

    def locate(self, process_id: bytes, message: LocateObject) -> None:
        """A process asks where an object is."""

        def answer(location: Location | None, reason: str, no_room: str = "") -> None:
            located = ObjectLocated(
                message.request_id, message.object_id, location, reason, no_room
            )
            self._deliver([(process_id, located)])

        def found(location: Location | None, reason: str) -> None:
            if not message.request_id:
                return  # it was asked for ahead of time
            if isinstance(reason, NoRoom):
                entry = self.table.find(message.object_id)
                is_spilled = entry is not None and entry.file is not None
                where = "on disk" if is_spilled else "on another node"
                self.explain(reason, lambda explained: answer(None, explained, where))
            else:
                answer(location, reason)

        self.find(message.object_id, message.location, found)

    def wants_room(self, process_id: bytes, message: RequestRoom) -> None:
        """A process waits for memory."""

        def answer(error: str) -> None:
            self._deliver([(process_id, RoomAnswer(message.request_id, error))])

        def done(error: str) -> None:
            if error and message.explain:
                self.explain(error, answer)
            else:
                answer(error)

        self.room.request(process_id, message.size, message.patience, done)

    def process_died(self, process_id: bytes) -> None:
        """Nobody counts any more what it owned."""
        self.send(self.table.process_died(process_id))
        self.room.process_died(process_id)

    # ------------------------------------------------------------------ finding

    def find(self, object_id: bytes, hint: Location, found: Found) -> None:
        """Call ``found`` when the object is in the memory of this node, or lost.

        ``hint`` is where it was said to be; it may be on another node.
        """
        location = self.table.locate(object_id)
        if location is not None:
            self._keep(object_id)
            found(location, "")
            return
        if object_id in self._awaited:
            self._awaited[object_id].append(found)
            return
        brought = functools.partial(self._brought, object_id)
        entry = self.table.find(object_id)
        if entry is not None and entry.file is not None and entry.segment is None:
            self._awaited[object_id] = [found]
            self._restore(entry, brought)
        else:
            reason = self._damaged.pop(object_id, "") or _why_lost(hint, self._node_id)
            if self.pull is None:
                found(None, reason)
            else:
                self._awaited[object_id] = [found]
                self.pull(object_id, hint, reason, brought)

    def _keep(self, object_id: bytes) -> None:
        entry = self.table.find(object_id)
        if entry is not None:
            entry.kept_until = self._loop.now() + KEEP_SECONDS

    def _brought(self, object_id: bytes, location: Location | None, reason: str) -> None:
        self._keep(object_id)
        for found in self._awaited.pop(object_id, ()):
            found(location, reason)

    def _restore(self, entry: Entry, found: Found) -> None:
        """Read an object from disk."""

        def placed(place: tuple[Segment, int] | None, error: str) -> None:
            if place is None:
                found(None, error)
            elif self.table.find(entry.object_id) is not entry:
                self.arena.free(place[0].segment_id, place[1])
                found(None, "it was freed")
            else:
                segment, offset = place
                read = functools.partial(self._restored, entry, segment, offset, found)
                self.spiller.restore(entry, segment, offset, read)

        self.allocate(entry.size, placed)

    def _restored(
        self, entry: Entry, segment: Segment, offset: int, found: Found, error: str
    ) -> None:
        if self.table.find(entry.object_id) is not entry:
            self.table.wipe(segment, offset)
            self.arena.free(segment.segment_id, offset)
            found(None, "it was freed")
        elif error:
            self.arena.free(segment.segment_id, offset)
            self.send(self.table.lost(entry))
            if self.pull is None:
                self._damage(entry.object_id, found, None, error)
                return
            hint = Location(self._node_id, 0, 0, entry.size)
            pulled = functools.partial(self._damage, entry.object_id, found)
            self.pull(entry.object_id, hint, error, pulled)
        else:
            found(self.table.restored(entry, segment.segment_id, offset), "")

    def _damage(
        self, object_id: bytes, found: Found, location: Location | None, reason: str
    ) -> None:
        """An object could not be read from disk, and was brought from another node or is lost."""
        if location is None and len(self._damaged) < MOST_DAMAGED:
            self._damaged[object_id] = reason
        found(location, reason)

    # ------------------------------------------------------------------ memory

    def allocate(
        self, size: int, placed: Callable[[tuple[Segment, int] | None, str], None]
    ) -> None:
        """Take room in a segment of the daemon's own for an object of ``size`` bytes.

        ``placed`` is called with the segment and the offset of the header, as soon as there is
        room, or with None and why there is none: a ``NoRoom``, to be handed on as it is.
        """

        def attempt() -> bool:
            place = self.arena.fit(size)
            if place is not None:
                placed(place, "")
            return place is not None

        def done(error: str) -> None:
            if error:
                placed(None, NoRoom(error))
                return
            place = self.arena.allocate(size)
            if place is not None:
                placed(place, "")
            else:
                wait()

        def wait() -> None:
            needed = self.arena.needed(size)
            self.room.request(self._node_id, needed, BRING_SECONDS, done, attempt)

        if self.room:
            wait()
        elif (place := self.arena.allocate(size)) is not None:
            placed(place, "")
        else:
            wait()

    def send(self, outgoing: Outgoing) -> None:
        """Send what the table has to say."""
        others = []
        for process_id, message in outgoing:
            if process_id != self._node_id:
                others.append((process_id, message))
            elif isinstance(message, SegmentRetired):
                self.arena.retire(message.segment_id)
        self._deliver(others)
        if self.table.has_doomed and not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self.send(self.table.sweep())

    def run(self) -> None:
        """After each round of the loop: see whether those who wait can be served."""
        if self.room.is_active:
            self.room.run()
        while self.arena.has_empty:
            self.send(self.arena.give_back())
            if self.room.is_active:
                self.room.run()
        if self.table.has_spares and not self._trimming:
            self._trimming = True
            self._loop.call_later(SPARE_SECONDS, self._trim)

    def _trim(self) -> None:
        self._trimming = False
        if not self.room.is_active:
            self.table.drop_spares()

    def close(self) -> None:
        """The session ends."""
        self.spiller.close()


def _why_lost(hint: Location, node_id: bytes) -> str:
    if hint.node_id != node_id:
        return f"its only copy was on node {hint.node_id.hex()}, which cannot be reached"
    return "its only copy went with the process that wrote it"
