"""Which objects a process holds, and what in it holds them.

There is no table of objects: a cell lives as long as somebody refers to it.  So whoever asks has
Python's garbage collector list the cells, which costs tens of milliseconds then and nothing ever
else.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skate.ids import owner_of
from skate.refs import ObjectRef
from skate.runtime.store.client import Pin
from skate.runtime.wire.state import ObjectRow
from skate.runtime.worker.cells import (
    FAILED,
    INLINE,
    PENDING,
    STORED,
    ActorCell,
    BorrowedCell,
    Cell,
)

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core

_LOCATIONS = {PENDING: "pending", INLINE: "inline", STORED: "memory", FAILED: "failed"}
#: What constructors set last: another thread, or a KeyboardInterrupt, may have come in between.
_LAST: dict[type, str] = {Cell: "listeners", ActorCell: "keeps", BorrowedCell: "finalized"}


def held_objects(core: Core) -> Iterator[ObjectRow]:
    """Return a row per object or actor handle that this process holds; takes the lock itself."""
    cells: list[Any] = []
    refs: Counter[int] = Counter()
    views: Counter[int] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is ObjectRef:
            refs[id(getattr(thing, "_cell", None))] += 1
        elif kind in _LAST:
            if not hasattr(thing, _LAST[kind]):
                continue
            # Refs of an earlier session of this process may still lie about.
            if kind is BorrowedCell:
                ours = thing.finalized is core.finalized
            else:
                ours = owner_of(thing.object_id) == core.process_id
            if ours:
                cells.append(thing)
        elif kind is Pin:
            views.update(_cells_in(getattr(thing, "keep", None)))
    del thing
    rows: list[ObjectRow] = []
    with core.lock:
        arguments: Counter[int] = Counter()
        makers: dict[int, str] = {}
        for record in core.submitter.pending.values():
            for cell in (*record.slot_cells, *record.nested):
                arguments[id(cell)] += 1
            for cell in record.cells:
                makers[id(cell)] = record.name
        captured: Counter[int] = Counter()
        for cell in cells:
            for inner in cell.contained or ():
                captured[id(inner)] += 1
        for cell in cells:
            key = id(cell)
            row = ObjectRow(
                cell.object_id,
                _size(cell),
                _location(cell),
                owner_of(cell.object_id) == core.process_id,
                refs[key],
                views[key] > 0,
                arguments[key],
                captured[key],
                task_name=makers.get(key, ""),
                is_actor=type(cell) is ActorCell,
            )
            if row.owned:
                borrowers = core.ownership.borrows.borrowers(cell.object_id)
                row.pinned = b"" in borrowers
                borrowers.pop(b"", None)
                row.borrowers = borrowers
            rows.append(row)
    yield from rows


def _location(cell: Any) -> str:
    if type(cell) is BorrowedCell and cell.status == PENDING and not cell.requested:
        return "owner"
    return _LOCATIONS[cell.status]


def _cells_in(kept: Any) -> Iterator[int]:
    """Find the identities of the cells among what a view keeps."""
    if type(kept) is tuple:
        for part in kept:
            yield from _cells_in(part)
    elif type(kept) in (Cell, BorrowedCell):
        yield id(kept)


def _size(cell: Any) -> int:
    if cell.status == STORED:
        return int(cell.location.size)
    return -1 if cell.data is None else sys.getsizeof(cell.data) - sys.getsizeof(b"")
