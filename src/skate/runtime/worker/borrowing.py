"""Who, besides us, may still reach the objects we own.  Plain bookkeeping without I/O."""

from __future__ import annotations

from typing import Any


class BorrowTable:
    """Counts of borrows per object and borrowing process.

    A count may be negative for a moment: a release that travels straight to the owner can overtake
    the ``AddBorrower`` of a third process.  Whoever sent that one still holds a borrow of its own,
    so the object is not freed meanwhile.
    """

    __slots__ = ("_counts", "_kept")

    def __init__(self) -> None:
        self._counts: dict[bytes, dict[bytes, int]] = {}
        #: Keeps the cells of lent objects alive.
        self._kept: dict[bytes, Any] = {}

    def add(self, object_id: bytes, cell: Any, borrower: bytes, count: int = 1) -> None:
        """Count ``count`` refs handed to ``borrower``; negative when it releases them."""
        counts = self._counts.get(object_id)
        if counts is None:
            counts = self._counts[object_id] = {}
            self._kept[object_id] = cell
        total = counts.get(borrower, 0) + count
        if total:
            counts[borrower] = total
            return
        counts.pop(borrower, None)
        if not counts:
            del self._counts[object_id]
            del self._kept[object_id]

    def release(self, object_id: bytes, borrower: bytes, count: int) -> None:
        """A borrower dropped a ref that it was handed ``count`` times; unknown ids are ignored."""
        cell = self._kept.get(object_id)
        if cell is not None:
            self.add(object_id, cell, borrower, -count)

    def forget(self, borrower: bytes) -> None:
        """A borrower died: it holds nothing any more."""
        for object_id in [i for i, counts in self._counts.items() if borrower in counts]:
            counts = self._counts[object_id]
            del counts[borrower]
            if not counts:
                del self._counts[object_id]
                del self._kept[object_id]

    def cell(self, object_id: bytes) -> Any | None:
        """Return the cell of a lent object."""
        return self._kept.get(object_id)

    def pin(self, object_id: bytes, cell: Any) -> None:
        """Keep an object for as long as this process lives."""
        self.add(object_id, cell, b"")

    def borrowers(self, object_id: bytes) -> dict[bytes, int]:
        """Return a copy of the counts of one object."""
        return dict(self._counts.get(object_id, {}))

    def __len__(self) -> int:
        return len(self._counts)
