"""The node daemon's end of the store: which segments exist, who writes them, what keeps them.

Decisions only, apart from making the anonymous files themselves: the daemon calls one method per
message or death, and sends what it returns.  Nothing here raises because of what a process says.
"""

from __future__ import annotations

import logging
import os

from skate.ids import owner_of
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


class _Segment:
    """One segment.  Objects whose owner is the writer itself are the writer's business alone:
    they live and die with it."""

    __slots__ = ("early_frees", "fd", "objects", "read_fd", "readers", "retired", "size", "writer")

    def __init__(self, fd: int, size: int, writer: bytes) -> None:
        self.fd = fd
        #: For readers; made when the first one asks.
        self.read_fd = -1
        self.size = size
        #: None once the writer is dead.
        self.writer: bytes | None = writer
        self.retired = False
        #: Processes that have been sent the descriptor for reading.
        self.readers: set[bytes] = set()
        #: Objects of other owners: owner, then (object id, offset), to size.
        self.objects: dict[bytes, dict[tuple[bytes, int], int]] = {}
        self.early_frees: set[tuple[bytes, int, int]] = set()

    def contains(self, location: Location) -> bool:
        return (
            location.offset >= 0
            and location.size >= 0
            and location.offset + location.size <= self.size
        )


class SegmentTable:
    """All segments of one node."""

    def __init__(self, node_id: bytes, limit_bytes: int) -> None:
        """Start empty; segments may take ``limit_bytes`` together."""
        self._node_id = node_id
        self.limit_bytes = limit_bytes
        #: Sum of the sizes of all segments.
        self.used_bytes = 0
        self._segments: dict[int, _Segment] = {}
        self._next_id = 1
        self._dead: set[bytes] = set()

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
        self._segments[segment_id] = _Segment(fd, size, process_id)
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
        if segment.objects:
            error = f"segment {segment_id} holds objects of living owners"
            return SegmentAnswer(segment_id, 0, error), []
        return SegmentAnswer(segment_id, segment.size), self._drop(segment_id, segment)

    # ----------------------------------------------------------------- the node link

    def object_stored(self, writer_id: bytes, message: ObjectStored) -> Outgoing:
        """Note that ``writer_id`` wrote an object."""
        segment = self._find(message.location)
        if segment is None or segment.writer != writer_id:
            logger.debug("ignored %r of %s", message, writer_id.hex())
            return []
        object_id, location = message.object_id, message.location
        owner = owner_of(object_id)
        if owner == writer_id:
            return []
        early = (object_id, location.offset, location.size)
        if early in segment.early_frees:
            segment.early_frees.remove(early)
            return [(writer_id, ObjectFreed(object_id, location))]
        if owner in self._dead:
            # Written for a caller that is gone: nobody was told of it, it can go at once.
            return [(writer_id, ObjectFreed(object_id, location))]
        segment.objects.setdefault(owner, {})[object_id, location.offset] = location.size
        return []

    def object_freed(self, message: ObjectFreed) -> Outgoing:
        """Note that the owner freed an object; pass it on to the writer if it lives.

        Every object is passed on once, however often and in whatever order messages arrive: by
        the time of a second message its memory may belong to another object.
        """
        object_id, location = message.object_id, message.location
        segment = self._find(location)
        if segment is None:
            return []
        owner = owner_of(object_id)
        if owner == segment.writer:
            return []
        owned = segment.objects.get(owner)
        size = owned.get((object_id, location.offset)) if owned is not None else None
        if owned is None or size != location.size:
            self._note_early_free(segment, object_id, location)
            return []
        del owned[object_id, location.offset]
        if not owned:
            del segment.objects[owner]
        if segment.writer is not None:
            return [(segment.writer, message)]
        return self._drop_if_unused(location.segment_id, segment)

    def _note_early_free(self, segment: _Segment, object_id: bytes, location: Location) -> None:
        """The writer's announcement comes over another connection and may be on its way."""
        if segment.writer is None:
            return
        if len(segment.early_frees) >= MAX_EARLY_FREES:
            logger.warning("too many frees of unknown objects in segment %d", location.segment_id)
            segment.early_frees.clear()
        segment.early_frees.add((object_id, location.offset, location.size))

    def process_died(self, process_id: bytes) -> Outgoing:
        """Forget a process: what it wrote has no writer now, what it owned is orphaned.

        Call it after everything that the process sent has been handled.  Orphans may still be
        looked at by borrowers, and nobody counts these any more: their memory is not used again.
        The writer is told to retire the segment, and then that the orphans are free, so that it
        gives the segment back when the last object of a living owner is gone.
        """
        if process_id in self._dead:
            return []
        self._dead.add(process_id)
        outgoing: Outgoing = []
        for segment_id, segment in list(self._segments.items()):
            segment.readers.discard(process_id)
            orphans = segment.objects.pop(process_id, {})
            if segment.writer == process_id:
                segment.writer = None
                segment.retired = True
                segment.early_frees.clear()
            elif segment.writer is not None and orphans:
                segment.retired = True
                outgoing.append((segment.writer, SegmentRetired(segment_id)))
                for (object_id, offset), size in orphans.items():
                    location = Location(self._node_id, segment_id, offset, size)
                    outgoing.append((segment.writer, ObjectFreed(object_id, location)))
            outgoing += self._drop_if_unused(segment_id, segment)
        return outgoing

    # ----------------------------------------------------------------- both

    def rows(self) -> list[dict[str, str | int | bool]]:
        """Return one row per segment, for the state API."""
        return [
            {
                "segment_id": segment_id,
                "size": segment.size,
                "writer": segment.writer.hex() if segment.writer is not None else "",
                "retired": segment.retired,
                "objects_of_others": sum(map(len, segment.objects.values())),
                "readers": len(segment.readers),
            }
            for segment_id, segment in self._segments.items()
        ]

    def close(self) -> None:
        """Close all segments; the kernel frees each when its last mapping is gone."""
        for segment_id, segment in list(self._segments.items()):
            self._drop(segment_id, segment)

    def _find(self, location: Location) -> _Segment | None:
        if location.node_id != self._node_id:
            return None
        segment = self._segments.get(location.segment_id)
        return segment if segment is not None and segment.contains(location) else None

    def _drop_if_unused(self, segment_id: int, segment: _Segment) -> Outgoing:
        if segment.writer is None and not segment.objects:
            return self._drop(segment_id, segment)
        return []

    def _drop(self, segment_id: int, segment: _Segment) -> Outgoing:
        del self._segments[segment_id]
        self.used_bytes -= segment.size
        os.close(segment.fd)
        if segment.read_fd >= 0:
            os.close(segment.read_fd)
        return [(reader, SegmentRetired(segment_id)) for reader in sorted(segment.readers)]

    def _full(self, size: int) -> str:
        return (
            f"the object store is full: {size} bytes asked, {self.used_bytes} of its "
            f"limit of {self.limit_bytes} bytes are used"
        )

    def __repr__(self) -> str:
        return f"<SegmentTable {len(self._segments)} segments, {self.used_bytes} bytes>"
