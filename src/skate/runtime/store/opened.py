"""A segment as any process sees it that has mapped it, and the objects it has pinned there."""

from __future__ import annotations

import ctypes

from skate.runtime.store import header
from skate.runtime.store.segment import Descriptor, Mapping


class OpenSegment:
    """One mapped segment with an open file description of its own.  Its client's lock guards it."""

    __slots__ = ("_pins", "descriptor", "mapping", "segment_id")

    def __init__(self, segment_id: int, descriptor: Descriptor, mapping: Mapping) -> None:
        self.segment_id = segment_id
        self.descriptor = descriptor
        self.mapping = mapping
        #: Offset of each header that is locked here: how many views there are.
        self._pins: dict[int, int] = {}

    def pin(self, offset: int, object_id: bytes, size: int) -> bool:
        """Keep an object where it is; False if it is not there (any more)."""
        mapping = self.mapping
        if offset < 0 or size < 0 or offset + header.HEADER_SIZE + size > mapping.size:
            return False
        pins = self._pins
        count = pins.get(offset, 0)
        fd = self.descriptor.fd
        if not count and not header.share(fd, offset):
            return False
        # Only now: until it was locked somebody could have wiped it.
        data = ctypes.string_at(mapping.address + offset, header.NAMED_SIZE)
        if not header.names(data, object_id, size):
            if not count:
                header.release(fd, offset)
            return False
        pins[offset] = count + 1
        return True

    def is_pinned(self, offset: int) -> bool:
        """Return whether this process looks at the object."""
        return offset in self._pins

    def unpin(self, offset: int) -> None:
        """One view less."""
        count = self._pins[offset] - 1
        if count:
            self._pins[offset] = count
            return
        del self._pins[offset]
        header.release(self.descriptor.fd, offset)

    def view(self, offset: int, size: int, pin: object) -> memoryview:
        """Return a read-only view of an object whose header is at ``offset``."""
        return self.mapping.pinned_view(offset + header.HEADER_SIZE, size, pin)
