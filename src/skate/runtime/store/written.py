"""A segment as its writer sees it: an allocator, a mapping, and which pages exist already.

Fresh pages are filled with ``pwrite``: the kernel need not clear them first and takes no page
faults, which is twice as fast as copying into a new mapping (3.5 GB/s to 1.8 GB/s, where memory
that exists takes 7 to 12).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from skate.runtime.store import header
from skate.runtime.store.allocator import Allocator
from skate.runtime.store.opened import OpenSegment
from skate.runtime.store.segment import Descriptor
from skate.serialization import Serialized


class WrittenSegment:
    """One segment of which this process is the writer.  Its client's lock guards it."""

    __slots__ = (
        "_allocator",
        "_filled",
        "_mapped",
        "opened",
        "retired",
        "segment_id",
        "size",
    )

    def __init__(self, opened: OpenSegment) -> None:
        self.opened = opened
        self.segment_id = opened.segment_id
        self.size = opened.mapping.size
        #: No further allocation.
        self.retired = False
        self._allocator = Allocator(self.size)
        #: Pages below this offset exist, and pages below this offset are in our page table.
        #: High-water marks are enough: the allocator fills a segment from below, and a mistake
        #: costs page faults only.
        self._filled = 0
        self._mapped = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is allocated."""
        return self._allocator.is_empty

    @property
    def largest_free(self) -> int:
        """The largest object that fits, in bytes; 0 once retired."""
        return 0 if self.retired else max(0, self._allocator.largest_free - header.HEADER_SIZE)

    def allocate(self, size: int) -> int | None:
        """Return the offset of room for a header and ``size`` bytes, or None."""
        return None if self.retired else self._allocator.allocate(header.HEADER_SIZE + size)

    def take(self, offset: int, object_id: bytes, size: int) -> bool:
        """Use the memory of an object again unless somebody looks at it or has taken it already."""
        opened = self.opened
        # Our own readers' lock would not stop us: it was taken through the same description.
        if not self.holds(offset, size) or opened.is_pinned(offset):
            return False
        address = opened.mapping.address
        return header.take_mapped(opened.descriptor.fd, offset, address, object_id, size)

    def holds(self, offset: int, size: int) -> bool:
        """Return whether memory for an object of ``size`` bytes is allocated at ``offset``."""
        return size >= 0 and self._allocator.holds(offset, header.HEADER_SIZE + size)

    def free(self, offset: int) -> None:
        """Use the memory of an allocation again."""
        self._allocator.free(offset)

    def prepare(self, offset: int, object_id: bytes, size: int) -> Callable[[Serialized], None]:
        """Return a function that copies an object to ``offset``; it may run without the lock.

        The header comes last: only complete objects have one.
        """
        name = header.header(object_id, size)
        body = offset + header.HEADER_SIZE
        end = body + size
        opened = self.opened
        if end > self._filled:
            self._filled = end
            descriptor = opened.descriptor

            def write(serialized: Serialized) -> None:
                _write_pages(descriptor, body, serialized)
                os.pwrite(descriptor.fd, name, offset)

            return write
        mapping = opened.mapping
        fresh_from = self._mapped
        self._mapped = max(fresh_from, end)

        def copy(serialized: Serialized) -> None:
            if end > fresh_from:
                mapping.populate(max(offset, fresh_from), end)
            view = mapping.writable_view(offset, header.HEADER_SIZE + size)
            serialized.write_into(view[header.HEADER_SIZE :])
            view[: header.HEADER_SIZE] = name

        return copy


def _write_pages(descriptor: Descriptor, offset: int, serialized: Serialized) -> None:
    for piece in serialized.pieces():
        view = memoryview(piece)
        while view:
            written = os.pwrite(descriptor.fd, view, offset)
            offset += written
            view = view[written:]
