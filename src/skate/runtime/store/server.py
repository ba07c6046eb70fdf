"""The node daemon's end of the store: which segments exist, who writes them, what is in them.

Decisions only, apart from making the anonymous files themselves: the daemon calls one method per
message or death, and sends what it returns.  Nothing here raises because of what a process says.
"""

from __future__ import annotations

import logging
import os

from skate.ids import owner_of
from skate.runtime.store.header import HEADER_SIZE, is_there, take
from skate.runtime.store.segment import create_segment, read_only_descriptor
from skate.runtime.wire.messages import (
    Location,
    Message,
    ObjectFreed,
    ObjectStored,
    SegmentAnswer,
    SegmentRetired,
)

logger = logging.getLogger(__name__)

#: What the daemon has to send: process id and message.
Outgoing = list[tuple[bytes, Message]]

#: Frees that overtake the message which announces their object, remembered per segment.
MAX_EARLY_FREES = 100_000


class Entry:
    """An object, or an earlier copy of one, in the memory of this node."""

    __slots__ = ("doomed", "object_id", "offset", "owner", "places", "segment", "size")

    def __init__(self, object_id: bytes, segment: Segment, offset: int, size: int) -> None:
        self.object_id = object_id
        self.owner = owner_of(object_id)
        self.segment = segment
        #: Where the header begins.
        self.offset = offset
        self.size = size
        #: Where it has been said to be, from the first place on: its owner may know any of these.
        self.places: list[Location] = []
        #: Nobody can ask for it any more; it goes as soon as nobody looks at it.
        self.doomed = False

    def location(self, node_id: bytes) -> Location:
        """Return where it lies."""
        return Location(node_id, self.segment.segment_id, self.offset, self.size)


class Segment:
    """One segment and what is in it, as far as its writer has said."""

    __slots__ = (
        "early_frees",
        "entries",
        "fd",
        "read_fd",
        "readers",
        "segment_id",
        "size",
        "writer",
    )

    def __init__(self, segment_id: int, fd: int, size: int, writer: bytes) -> None:
        self.segment_id = segment_id
        self.fd = fd
        #: For readers; made when the first one asks.
        self.read_fd = -1
        self.size = size
        #: None once the writer is dead.
        self.writer: bytes | None = writer
        #: Processes that have been sent the descriptor for reading.
        self.readers: set[bytes] = set()
        self.entries: set[Entry] = set()
        #: Objects, and where they are, that were freed before the writer's announcement arrived.
        self.early_frees: set[tuple[bytes, int]] = set()

    def contains(self, location: Location) -> bool:
        """Return whether there is room for such an object at such a place."""
        return (
            location.offset >= 0
            and location.size >= 0
            and location.offset + HEADER_SIZE + location.size <= self.size
        )


class SegmentTable:
    """All segments of one node, and all objects in them."""

    def __init__(self, node_id: bytes, limit_bytes: int) -> None:
        """Start empty; segments may take ``limit_bytes`` together."""
        self._node_id = node_id
        self.limit_bytes = limit_bytes
        #: Sum of the sizes of all segments.
        self.used_bytes = 0
        self._segments: dict[int, Segment] = {}
        self._next_id = 1
        self._dead: set[bytes] = set()
        #: Objects that somebody can ask for; and by owner, then id.
        self._entries: dict[bytes, Entry] = {}
        self._owned: dict[bytes, dict[bytes, Entry]] = {}
        #: Those that nobody can ask for, and somebody looks at.
        self._doomed: set[Entry] = set()

    # ----------------------------------------------------------------- the store link

    def acquire(self, process_id: bytes, size: int) -> tuple[SegmentAnswer, int | None]:
        """Make a segment for a writer.  The descriptor stays ours: send it, do not close it."""
        if process_id in self._dead:
            return SegmentAnswer(0, 0, "the process is said to be dead"), None
        if size <= 0:
            return SegmentAnswer(0, 0, f"a segment of {size} bytes makes no sense"), None
        if size > self.limit_bytes - self.used_bytes:
            return SegmentAnswer(0, 0, self._full(size)), None
        try:
            fd = create_segment(size)
        except (OSError, OverflowError, ValueError) as error:
            logger.warning("cannot make a segment of %d bytes: %s", size, error)
            return SegmentAnswer(0, 0, f"cannot make a segment of {size} bytes: {error}"), None
        segment_id = self._next_id
        self._next_id += 1
        self._segments[segment_id] = Segment(segment_id, fd, size, process_id)
        self.used_bytes += size
        return SegmentAnswer(segment_id, size), fd

    def map(self, process_id: bytes, segment_id: int) -> tuple[SegmentAnswer, int | None]:
        """Return a segment for a reader: a descriptor that cannot write, and stays ours."""
        segment = self._segments.get(segment_id)
        if segment is None:
            return SegmentAnswer(segment_id, 0, f"there is no segment {segment_id}"), None
        if segment.read_fd < 0:
            try:
                segment.read_fd = read_only_descriptor(segment.fd)
            except OSError as error:
                logger.warning("cannot open segment %d for reading: %s", segment_id, error)
                return SegmentAnswer(segment_id, 0, f"cannot open the segment: {error}"), None
        if process_id != segment.writer and process_id not in self._dead:
            segment.readers.add(process_id)
        return SegmentAnswer(segment_id, segment.size), segment.read_fd

    def give_back(self, process_id: bytes, segment_id: int) -> tuple[SegmentAnswer, Outgoing]:
        """Take a segment back from its writer; its readers are to unmap it."""
        segment = self._segments.get(segment_id)
        if segment is None or segment.writer != process_id:
            error = f"segment {segment_id} is not written by this process"
            return SegmentAnswer(segment_id, 0, error), []
        # Objects of its own it frees itself; that it says so may be on its way.
        if any(entry.owner != process_id for entry in segment.entries):
            error = f"segment {segment_id} holds objects of other owners"
            return SegmentAnswer(segment_id, 0, error), []
        for entry in list(segment.entries):
            self._forget(entry)
        return SegmentAnswer(segment_id, segment.size), self._drop(segment)

    # ----------------------------------------------------------------- the node link

    def object_stored(self, writer_id: bytes, message: ObjectStored) -> Outgoing:
        """Note that ``writer_id`` wrote an object, for itself or for another owner."""
        segment = self._find(message.location)
        if segment is None or segment.writer != writer_id:
            logger.debug("ignored %r of %s", message, writer_id.hex())
            return []
        object_id, location = message.object_id, message.location
        known = self._entries.get(object_id)
        if known is not None and known.segment is segment and known.offset == location.offset:
            return []
        entry = Entry(object_id, segment, location.offset, location.size)
        entry.places.append(location)
        segment.entries.add(entry)
        early = (object_id, location.offset)
        if early in segment.early_frees or entry.owner in self._dead:
            # In the second case it was written for a caller that is gone: nobody was told of it.
            segment.early_frees.discard(early)
            return self._reclaim(entry)
        outgoing = []
        if known is not None:
            # The task ran twice, because its first answer was lost: nobody was told of the first.
            self._unlist(known)
            outgoing = self._reclaim(known)
        self._entries[object_id] = entry
        self._owned.setdefault(entry.owner, {})[object_id] = entry
        return outgoing

    def object_freed(self, message: ObjectFreed) -> Outgoing:
        """Note that the owner freed an object; tell the writer once its memory can be used again.

        The object may be elsewhere by now.  But a copy that was never where the message says is
        another one: it was lost and made again.
        """
        entry = self._entries.get(message.object_id)
        if entry is None:
            self._note_early_free(message)
            return []
        if message.location not in entry.places:
            return []
        self._unlist(entry)
        return self._reclaim(entry)

    def locate(self, object_id: bytes) -> Location | None:
        """Return where in the memory of this node an object is."""
        entry = self._entries.get(object_id)
        if entry is None:
            return None
        if not is_there(entry.segment.fd, entry.offset, object_id, entry.size):
            # Freed by its owner and writer, who is about to say so.
            return None
        return entry.location(self._node_id)

    def _note_early_free(self, message: ObjectFreed) -> None:
        """The writer's announcement comes over another connection and may be on its way."""
        object_id, location = message.object_id, message.location
        segment = self._find(location)
        if segment is None or segment.writer in (None, owner_of(object_id)):
            return
        if len(segment.early_frees) >= MAX_EARLY_FREES:
            logger.warning("too many frees of unknown objects in segment %d", location.segment_id)
            segment.early_frees.clear()
        segment.early_frees.add((object_id, location.offset))

    def process_died(self, process_id: bytes) -> Outgoing:
        """Forget a process: what it wrote has no writer now, what it owned nobody counts any more.

        Call it after everything that the process sent has been handled.  Borrowers may still look
        at what it owned: that stays until they do not.
        """
        if process_id in self._dead:
            return []
        self._dead.add(process_id)
        outgoing: Outgoing = []
        for segment in list(self._segments.values()):
            segment.readers.discard(process_id)
            if segment.writer == process_id:
                segment.writer = None
                segment.early_frees.clear()
        for entry in list(self._owned.get(process_id, {}).values()):
            self._unlist(entry)
            outgoing += self._reclaim(entry)
        for segment in list(self._segments.values()):
            outgoing += self._drop_if_unused(segment)
        return outgoing

    # ----------------------------------------------------------------- memory

    @property
    def has_doomed(self) -> bool:
        """Whether ``sweep`` has something to try."""
        return bool(self._doomed)

    def sweep(self) -> Outgoing:
        """Take the memory of objects that nobody can ask for, where nobody looks any more."""
        outgoing: Outgoing = []
        for entry in list(self._doomed):
            outgoing += self._reclaim(entry)
        return outgoing

    def _reclaim(self, entry: Entry) -> Outgoing:
        """Take the memory of an object that nobody can ask for, unless somebody looks at it."""
        segment = entry.segment
        taken = take(segment.fd, entry.offset, entry.object_id, entry.size)
        if taken is None:
            entry.doomed = True
            self._doomed.add(entry)
            return []
        self._forget(entry)
        outgoing: Outgoing = []
        # If the header is gone, the writer is the owner and has taken the memory itself.
        if taken and segment.writer is not None:
            message = ObjectFreed(entry.object_id, entry.location(self._node_id))
            outgoing.append((segment.writer, message))
        return outgoing + self._drop_if_unused(segment)

    def _unlist(self, entry: Entry) -> None:
        """Nobody can ask for it any more."""
        del self._entries[entry.object_id]
        owned = self._owned[entry.owner]
        del owned[entry.object_id]
        if not owned:
            del self._owned[entry.owner]

    def _forget(self, entry: Entry) -> None:
        """It is in memory no more."""
        entry.segment.entries.discard(entry)
        self._doomed.discard(entry)
        if self._entries.get(entry.object_id) is entry:
            self._unlist(entry)

    # ----------------------------------------------------------------- all

    def rows(self) -> list[dict[str, str | int | bool]]:
        """Return one row per segment, for the state API."""
        return [
            {
                "segment_id": segment.segment_id,
                "size": segment.size,
                "writer": segment.writer.hex() if segment.writer is not None else "",
                "objects": len(segment.entries),
                "readers": len(segment.readers),
            }
            for segment in self._segments.values()
        ]

    def close(self) -> None:
        """Close all segments; the kernel frees each when its last mapping is gone."""
        for segment in list(self._segments.values()):
            self._drop(segment)

    def _find(self, location: Location) -> Segment | None:
        if location.node_id != self._node_id:
            return None
        segment = self._segments.get(location.segment_id)
        return segment if segment is not None and segment.contains(location) else None

    def _drop_if_unused(self, segment: Segment) -> Outgoing:
        if segment.writer is None and not segment.entries and segment.segment_id in self._segments:
            return self._drop(segment)
        return []

    def _drop(self, segment: Segment) -> Outgoing:
        del self._segments[segment.segment_id]
        self.used_bytes -= segment.size
        os.close(segment.fd)
        if segment.read_fd >= 0:
            os.close(segment.read_fd)
        retired = SegmentRetired(segment.segment_id)
        return [(reader, retired) for reader in sorted(segment.readers)]

    def _full(self, size: int) -> str:
        return (
            f"the object store is full: {size} bytes asked, {self.used_bytes} of its "
            f"limit of {self.limit_bytes} bytes are used"
        )

    def __repr__(self) -> str:
        return f"<SegmentTable {len(self._segments)} segments, {self.used_bytes} bytes>"
