"""Memory that the daemon itself writes: for objects that it reads from disk or pulls."""

from __future__ import annotations

from skate.runtime.store.allocator import Allocator
from skate.runtime.store.entries import Segment
from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.store.server import Outgoing, SegmentTable


class Arena:
    """Allocates in segments of which the node is the writer."""

    def __init__(self, table: SegmentTable, node_id: bytes) -> None:
        self._table = table
        self._node_id = node_id
        #: Segments, and the holes in them; those that may be used for further objects.
        self._allocators: dict[int, Allocator] = {}
        self._slabs: dict[int, Allocator] = {}
        #: Segments in which there was nothing left.
        self._empty: set[int] = set()
        table.on_own_freed = self.free

    def needed(self, size: int) -> int:
        """Return the size of the segment that an object needs if no other has room."""
        length = HEADER_SIZE + size
        slab = self._table.slab_bytes
        return slab if length <= slab // 2 else length

    def fit(self, size: int) -> tuple[Segment, int] | None:
        """Take room for an object and its header in a segment that there is."""
        length = HEADER_SIZE + size
        for segment_id, allocator in self._slabs.items():
            offset = allocator.allocate(length)
            if offset is not None:
                return self._table.segment(segment_id), offset
        return None

    def allocate(self, size: int) -> tuple[Segment, int] | None:
        """Take room for an object and its header; None if there is none."""
        place = self.fit(size)
        if place is not None:
            return place
        length = HEADER_SIZE + size
        wanted = self.needed(size)
        answer, fd = self._table.acquire(self._node_id, wanted)
        if fd is None:
            return None
        allocator = self._allocators[answer.segment_id] = Allocator(wanted + -wanted % 64)
        if wanted > length:
            self._slabs[answer.segment_id] = allocator
        offset = allocator.allocate(length)
        assert offset is not None
        return self._table.segment(answer.segment_id), offset

    def free(self, segment_id: int, offset: int) -> None:
        """Give memory back whose header is wiped, or was never written."""
        allocator = self._allocators[segment_id]
        allocator.free(offset)
        if allocator.is_empty:
            self._empty.add(segment_id)

    def is_filling(self, segment: Segment) -> bool:
        """Return whether room was taken in a segment for what is not yet there."""
        allocator = self._allocators.get(segment.segment_id)
        return allocator is not None and len(allocator) > len(segment.entries)

    def retire(self, segment_id: int) -> None:
        """Put nothing more into a segment."""
        self._slabs.pop(segment_id, None)

    @property
    def has_empty(self) -> bool:
        """Whether ``give_back`` may have something to do."""
        return bool(self._empty)

    def give_back(self) -> Outgoing:
        """Give back segments with nothing in them."""
        outgoing: Outgoing = []
        for segment_id in self._empty:
            if self._allocators[segment_id].is_empty:
                del self._allocators[segment_id]
                self._slabs.pop(segment_id, None)
                outgoing += self._table.give_back(self._node_id, segment_id)[1]
        self._empty.clear()
        return outgoing
