"""Reading ahead: of many objects those that come next are brought here while one is read.

One object at a time would leave the disk (or the network) idle while the process reads what it has
got, and the process while the disk works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.runtime.wire.messages import LocateObject
from skate.runtime.worker.cells import STORED

if TYPE_CHECKING:
    from skate.runtime.worker.objects import Objects

#: Objects that are asked for ahead; their bytes are limited by the size of the store as well.
MOST_AHEAD = 8


class ReadAhead:
    """Follows a process through a list of cells that it loads in order."""

    __slots__ = ("_ahead_bytes", "_cells", "_misses", "_next", "_objects")

    def __init__(self, objects: Objects, cells: Sequence[Any]) -> None:
        self._objects = objects
        self._cells = cells
        self._misses = objects.misses
        #: The first cell that was not asked for, and the bytes of those before it; -1: nothing had
        #: to be brought here yet.
        self._next = -1
        self._ahead_bytes = 0

    def loaded(self, index: int) -> None:
        """The cell at ``index`` was loaded: ask for some of those behind it."""
        objects = self._objects
        if self._next < 0:
            if objects.misses == self._misses:
                return
            self._next = index + 1
        else:
            self._ahead_bytes = max(0, self._ahead_bytes - _size(self._cells[index]))
        cells, most = self._cells, objects.store.keep_free
        asked = []
        while self._next < min(len(cells), index + 1 + MOST_AHEAD):
            cell = cells[self._next]
            if self._ahead_bytes and self._ahead_bytes + _size(cell) > most:
                break
            self._next += 1
            self._ahead_bytes += _size(cell)
            handle = cell.handle
            if handle is not None and cell.status == STORED:
                asked.append(LocateObject(0, cell.object_id, handle.location))
        if asked:
            core = objects.core
            with core.lock:
                for message in asked:
                    core.links.send_node(message)
                core.links.flush()


def _size(cell: Any) -> int:
    handle = cell.handle
    return 0 if handle is None else int(handle.location.size)
