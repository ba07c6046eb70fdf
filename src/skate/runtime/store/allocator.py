"""Where in a segment the next object goes: best fit over an ordered list of holes.

Best fit keeps the untouched end of a segment in one piece and prefers holes that have been written
before, whose pages are warm.  Holes are merged with their neighbours when they are made, so there
are few: finding one is a binary search, adding one moves a short list.
"""

from __future__ import annotations

from bisect import bisect_left, insort

#: Objects start at multiples of this many bytes, and so do the buffers inside them.
ALIGNMENT = 64


class Allocator:
    """The map of one segment: which ranges are taken, which are holes.  Not thread safe."""

    __slots__ = ("_allocated", "_hole_ends", "_holes", "_order", "size", "used")

    def __init__(self, size: int) -> None:
        """Start with one hole of ``size`` bytes (rounded down to the alignment)."""
        self.size = size - size % ALIGNMENT
        #: Bytes taken, rounding included.
        self.used = 0
        #: Offset of each allocation: its rounded size.
        self._allocated: dict[int, int] = {}
        #: Offset of each hole: its size; and the same holes by their ends.
        self._holes: dict[int, int] = {}
        self._hole_ends: dict[int, int] = {}
        #: Holes as (size, offset), ascending.
        self._order: list[tuple[int, int]] = []
        if self.size > 0:
            self._add_hole(0, self.size)

    @property
    def largest_free(self) -> int:
        """The largest size that can be allocated now, in bytes."""
        return self._order[-1][0] if self._order else 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is allocated."""
        return not self._allocated

    def __len__(self) -> int:
        return len(self._allocated)

    def allocate(self, size: int) -> int | None:
        """Take ``size`` bytes; return their offset, or None if no hole is large enough.

        Raises:
            ValueError: ``size`` is negative.
        """
        if size < 0:
            raise ValueError(f"cannot allocate {size} bytes")
        # An empty object takes a unit too, so that two allocations never share an offset.
        size = (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT or ALIGNMENT
        order = self._order
        index = bisect_left(order, (size, -1))
        if index == len(order):
            return None
        hole_size, offset = order.pop(index)
        del self._holes[offset]
        del self._hole_ends[offset + hole_size]
        if hole_size > size:
            self._add_hole(offset + size, hole_size - size)
        self._allocated[offset] = size
        self.used += size
        return offset

    def holds(self, offset: int, size: int) -> bool:
        """Return whether an allocation of ``size`` bytes starts at ``offset``."""
        taken = self._allocated.get(offset)
        return taken is not None and 0 <= taken - size < ALIGNMENT + (size == 0)

    def free(self, offset: int) -> None:
        """Give an allocation back.

        Raises:
            ValueError: none starts at ``offset``.
        """
        size = self._allocated.pop(offset, None)
        if size is None:
            raise ValueError(f"nothing is allocated at offset {offset}")
        self.used -= size
        end = offset + size
        after = self._holes.get(end)
        if after is not None:
            self._remove_hole(end, after)
            size += after
        before = self._hole_ends.get(offset)
        if before is not None:
            length = offset - before
            self._remove_hole(before, length)
            offset = before
            size += length
        self._add_hole(offset, size)

    def _add_hole(self, offset: int, size: int) -> None:
        self._holes[offset] = size
        self._hole_ends[offset + size] = offset
        insort(self._order, (size, offset))

    def _remove_hole(self, offset: int, size: int) -> None:
        del self._holes[offset]
        del self._hole_ends[offset + size]
        del self._order[bisect_left(self._order, (size, offset))]

    def holes(self) -> list[tuple[int, int]]:
        """Return the holes as (offset, size), by offset."""
        return sorted(self._holes.items())
