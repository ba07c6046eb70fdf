"""The node daemon's end of the store: which segments exist, who writes them, what is in them.

Decisions only, apart from making the anonymous files themselves: the daemon calls one method per
message or death, and sends what it returns.  Nothing here raises because of what a process says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from skate.ids import owner_of
from skate.runtime.store.entries import Entry, Segment, SpillFile
from skate.runtime.store.header import EMPTY, claim, is_there, release, share, take
from skate.runtime.store.segment import create_segment, read_only_descriptor, slab_size
from skate.runtime.store.spares import Spares
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

#: Dead processes that are remembered.
REMEMBERED_DEAD = 4096
#: Frees that overtake the message which announces their object, remembered per segment.
MAX_EARLY_FREES = 100_000


class SegmentTable:
    """All segments of one node, and all objects in them."""

    def __init__(self, node_id: bytes, limit_bytes: int) -> None:
        """Start empty; segments may take ``limit_bytes`` together."""
        self._node_id = node_id
        self.limit_bytes = limit_bytes
        #: Segments that take many objects have this size: in a small store they have to be small,
        #: or a few writers would have all of it.
        self.slab_bytes = slab_size(limit_bytes)
        #: Sum of the sizes of all segments.
        self.used_bytes = 0
        self._segments: dict[int, Segment] = {}
        self._spares = Spares()
        self._next_id = 1
        #: Processes that have died, the latest of them: what they have sent may still arrive.
        self._dead: dict[bytes, None] = {}
        #: Bytes that were promised to processes and that these have not acquired yet.
        self._reserved: dict[bytes, int] = {}
        #: Others wait for memory: only who was promised some gets any.
        self.contended = False
        #: Ticks with every use of an object.
        self._clock = 0
        #: Frees memory in segments that the daemon writes itself.
        self.on_own_freed: Callable[[int, int], None] = lambda segment_id, offset: None
        #: Called with a spill file none of whose objects is needed any more.
        self.on_file_unused: Callable[[SpillFile], None] = lambda file: None
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
        promised = self._reserved.get(process_id, 0)
        most = self.free_bytes + promised
        if size > most or (self.contended and size > promised):
            return SegmentAnswer(0, 0, self._full(size)), None
        asked = size
        try:
            fd, size = self._spares.take(size, most) or (create_segment(size), size)
            self._spares.shrink(self.limit_bytes - self.used_bytes - size)
        except (OSError, OverflowError, ValueError) as error:
            logger.warning("cannot make a segment of %d bytes: %s", size, error)
            return SegmentAnswer(0, 0, f"cannot make a segment of {size} bytes: {error}"), None
        segment_id = self._next_id
        self._next_id += 1
        self._segments[segment_id] = Segment(segment_id, fd, size, process_id)
        self.used_bytes += size
        self.promise(process_id, -min(asked, promised))
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

    # ----------------------------------------------------------------- promises

    @property
    def free_bytes(self) -> int:
        """Bytes that are neither used nor promised."""
        return self.limit_bytes - self.used_bytes - sum(self._reserved.values())

    def promise(self, process_id: bytes, size: int) -> None:
        """Keep so many bytes more (or less) for a process."""
        promised = self._reserved.pop(process_id, 0) + size
        if promised > 0:
            self._reserved[process_id] = promised

    def promised(self, process_id: bytes) -> int:
        """Return how many bytes are kept for a process."""
        return self._reserved.get(process_id, 0)

    # ----------------------------------------------------------------- the node link

    def object_stored(self, writer_id: bytes, message: ObjectStored) -> Outgoing:
        """Note that ``writer_id`` wrote an object, for itself or for another owner."""
        segment = self.find_segment(message.location)
        if segment is None or segment.writer != writer_id:
            logger.debug("ignored %r of %s", message, writer_id.hex())
            return []
        object_id, location = message.object_id, message.location
        known = self._entries.get(object_id)
        if known is not None and known.segment is segment and known.offset == location.offset:
            return []
        entry = Entry(object_id, location, message.created)
        self._put(entry, segment, location.offset)
        early = (object_id, location.offset)
        if early in segment.early_frees or entry.owner in self._dead:
            # In the second case it was written for a caller that is gone: nobody was told of it.
            segment.early_frees.discard(early)
            return self._reclaim(entry)
        outgoing = []
        if known is not None:
            # The task ran twice, because its first answer was lost: nobody was told of the first.
            outgoing = self._discard(known)
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
        if message.location not in entry.places and not entry.is_copy:
            return []
        return self._discard(entry)

    def pulled(
        self, object_id: bytes, hint: Location, segment: Segment, offset: int
    ) -> tuple[Location, Outgoing]:
        """An object was brought here from another node, where ``hint`` said it was."""
        entry = Entry(object_id, hint)
        entry.is_copy = True
        outgoing: Outgoing = []
        known = self._entries.get(object_id)
        if known is not None:
            outgoing += self._discard(known)
        self._put(entry, segment, offset)
        location = entry.location(self._node_id)
        entry.places.append(location)
        self._entries[object_id] = entry
        self._owned.setdefault(entry.owner, {})[object_id] = entry
        if entry.owner in self._dead:
            outgoing += self._discard(entry)
        return location, outgoing

    def locate(self, object_id: bytes) -> Location | None:
        """Return where in the memory of this node an object is."""
        entry = self._entries.get(object_id)
        if entry is None or entry.segment is None:
            return None
        if not is_there(entry.segment.fd, entry.offset, object_id, entry.size):
            # Freed by its owner and writer, who is about to say so.
            return None
        self.touch(entry)
        return entry.location(self._node_id)

    def lies_at(self, object_id: bytes, location: Location) -> bool:
        """Return whether an object is at a place of this node, announced or not."""
        segment = self.find_segment(location)
        return segment is not None and is_there(
            segment.fd, location.offset, object_id, location.size
        )

    def find(self, object_id: bytes) -> Entry | None:
        """Return what is known of an object that somebody can ask for."""
        return self._entries.get(object_id)

    def touch(self, entry: Entry) -> None:
        """Note that an object is used."""
        self._clock += 1
        entry.used = self._clock

    def _note_early_free(self, message: ObjectFreed) -> None:
        """The writer's announcement comes over another connection and may be on its way."""
        object_id, location = message.object_id, message.location
        segment = self.find_segment(location)
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
        self._dead[process_id] = None
        if len(self._dead) > REMEMBERED_DEAD:
            del self._dead[next(iter(self._dead))]
        self._reserved.pop(process_id, None)
        outgoing: Outgoing = []
        for segment in list(self._segments.values()):
            segment.readers.discard(process_id)
            if segment.writer == process_id:
                segment.writer = None
                segment.early_frees.clear()
        for entry in list(self._owned.get(process_id, {}).values()):
            outgoing += self._discard(entry)
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

    def _put(self, entry: Entry, segment: Segment, offset: int) -> None:
        """It is in memory now."""
        entry.segment = segment
        entry.offset = offset
        segment.entries.add(entry)
        segment.fresh = False
        self.touch(entry)

    def _discard(self, entry: Entry) -> Outgoing:
        """Nobody will ask for it any more."""
        self._unlist(entry)
        self._leave_file(entry)
        return self._reclaim(entry) if entry.segment is not None else []

    def _reclaim(self, entry: Entry) -> Outgoing:
        """Take the memory of an object that nobody can ask for, unless somebody looks at it."""
        if not entry.copying:
            outgoing = self._take(entry)
            if outgoing is not None:
                return outgoing
        entry.doomed = True
        self._doomed.add(entry)
        return []

    def _take(self, entry: Entry) -> Outgoing | None:
        """Take the memory of an object; None if somebody looks at it."""
        segment = entry.segment
        assert segment is not None
        taken = take(segment.fd, entry.offset, entry.object_id, entry.size)
        if taken is None:
            return None
        location = entry.location(self._node_id)
        segment.entries.discard(entry)
        entry.segment = None
        self._doomed.discard(entry)
        outgoing: Outgoing = []
        # If the header is gone, the writer is the owner and has taken the memory itself.
        if taken and segment.writer == self._node_id:
            self.on_own_freed(segment.segment_id, entry.offset)
        elif taken and segment.writer is not None:
            outgoing.append((segment.writer, ObjectFreed(entry.object_id, location)))
        return outgoing + self._drop_if_unused(segment)

    def _unlist(self, entry: Entry) -> None:
        """Nobody can ask for it any more."""
        del self._entries[entry.object_id]
        owned = self._owned[entry.owner]
        del owned[entry.object_id]
        if not owned:
            del self._owned[entry.owner]

    def _forget(self, entry: Entry) -> None:
        """Its owner has taken its memory back, and the segment with it."""
        assert entry.segment is not None
        entry.segment.entries.discard(entry)
        entry.segment = None
        self._doomed.discard(entry)
        if self._entries.get(entry.object_id) is entry:
            self._unlist(entry)
            self._leave_file(entry)

    # ----------------------------------------------------------------- disk

    def is_unused(self, entry: Entry) -> bool:
        """Return whether nobody looks at an object in memory just now."""
        segment = entry.segment
        if segment is None or not claim(segment.fd, entry.offset):
            self.touch(entry)
            return False
        release(segment.fd, entry.offset)
        return True

    def begin_copy(self, entry: Entry) -> bool:
        """Lock an object in order to write it to disk; False if somebody looks at it."""
        segment = entry.segment
        assert segment is not None
        if entry.copying or not claim(segment.fd, entry.offset):
            return False
        if not is_there(segment.fd, entry.offset, entry.object_id, entry.size):
            release(segment.fd, entry.offset)
            return False
        # From here on others may read it, too.
        share(segment.fd, entry.offset)
        entry.copying = True
        return True

    def end_copy(self, entry: Entry, file: SpillFile | None, position: int) -> Outgoing:
        """An object was written to disk (None: it was not): take its memory if nobody looks."""
        segment = entry.segment
        assert segment is not None
        entry.copying = False
        if file is not None and not entry.doomed:
            entry.file = file
            entry.position = position
            file.objects += 1
        outgoing = self._take(entry) if file is not None or entry.doomed else None
        if outgoing is None:
            release(segment.fd, entry.offset)
            if not entry.doomed:
                self.touch(entry)
            return []
        return outgoing

    def evict(self, entry: Entry) -> Outgoing | None:
        """Take the memory of an object that is on disk already; None if somebody looks at it."""
        outgoing = self._take(entry)
        if outgoing is None:
            self.touch(entry)
        return outgoing

    def restored(self, entry: Entry, segment_id: int, offset: int) -> Location:
        """An object was read from disk again, into a segment of the daemon's own."""
        self._put(entry, self._segments[segment_id], offset)
        location = entry.location(self._node_id)
        if location not in entry.places:
            entry.places.append(location)
        return location

    def wipe(self, segment: Segment, offset: int) -> None:
        """Forget what the daemon itself has written to a place that no entry names."""
        os.pwrite(segment.fd, EMPTY, offset)

    def lost(self, entry: Entry) -> Outgoing:
        """An object that is on disk alone cannot be read."""
        return self._discard(entry) if self._entries.get(entry.object_id) is entry else []

    def _leave_file(self, entry: Entry) -> None:
        file, entry.file = entry.file, None
        if file is not None:
            file.objects -= 1
            if file.objects == 0:
                self.on_file_unused(file)

    def segment(self, segment_id: int) -> Segment:
        """Return one segment."""
        return self._segments[segment_id]

    def exists(self, segment: Segment) -> bool:
        """Return whether a segment has not been dropped."""
        return segment.segment_id in self._segments

    def segments(self) -> list[Segment]:
        """Return all segments."""
        return list(self._segments.values())

    def entries(self) -> list[Entry]:
        """Return all objects that somebody can ask for."""
        return list(self._entries.values())

    def retire(self, segment: Segment) -> Outgoing:
        """Have a segment's writer put nothing more into it and give it back when it is empty."""
        if segment.retired or segment.writer is None:
            return []
        segment.retired = True
        return [(segment.writer, SegmentRetired(segment.segment_id))]

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
        self._spares.shrink(0)

    @property
    def has_spares(self) -> bool:
        """Whether memory is kept that no segment has."""
        return bool(self._spares)

    def drop_spares(self) -> None:
        """Give memory that no segment has back to the machine."""
        self._spares.shrink(0)

    def find_segment(self, location: Location) -> Segment | None:
        """Return the segment of a location, if it exists and has room for such an object."""
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
        if segment.evicting or self.contended:
            self._spares.add(segment.fd, segment.size)
        else:
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
