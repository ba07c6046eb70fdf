"""Generators that run again because items of theirs were lost; see ``lineage.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skate.exceptions import ObjectReconstructionFailedError
from skate.ids import distance, nth
from skate.runtime.worker.cells import INLINE, Cell

if TYPE_CHECKING:
    from skate.runtime.wire.calls import StreamItems, StreamValues, Terms
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.lineage import Lineage
    from skate.runtime.worker.record import Record

#: As many items as the consumer would have to take for the generator never to wait.
EVERYTHING = 1 << 62


class RemadeStream:
    """Takes the place of a ``Stream`` and keeps the lost items only.  Locked, all of it."""

    __slots__ = ("_core", "_lineage", "_record", "_wanted", "total")

    def __init__(self, core: Core, record: Record, lineage: Lineage) -> None:
        self._core = core
        self._record: Record | None = record
        self._lineage = lineage
        #: Lost items, by their number.
        self._wanted: dict[int, Cell] = {}
        #: How many items it has yielded, once it has ended.
        self.total = 0

    def want(self, cell: Cell) -> None:
        """An item was lost."""
        assert self._record is not None
        self._wanted[distance(self._record.task_id, cell.object_id) - 1] = cell

    def resume(self, terms: Terms) -> None:
        """The call is about to be sent."""
        terms.received = min(self._wanted, default=0)
        terms.taken = EVERYTHING
        terms.stream_limit = 0

    def waited(self, _now: float) -> float:
        """How long it has waited for a consumer: never."""
        return 0.0

    def on_items(self, message: StreamItems) -> None:
        """Small values have come."""
        for number, data in enumerate(message.items, message.first):
            cell = self._wanted.pop(number, None)
            if cell is not None and not cell.status:
                cell.data = data
                self._core.objects.complete(cell, INLINE)

    def on_values(self, message: StreamValues) -> None:
        """Other values have come."""
        assert self._record is not None
        for number, value in enumerate(message.values, message.first):
            cell = self._wanted.pop(number, None)
            if cell is None:
                # Nobody has lost it: it is freed with this cell.
                cell = Cell(nth(self._record.task_id, 1 + number), self._core.address)
            self._core.objects.fill(cell, value, self._lineage)

    def end(self, error: bytes | None, raised: bool = False) -> None:
        """The call has ended."""
        record, self._record = self._record, None
        if record is None:
            return
        core = self._core
        if error is None:
            core.lineages.of(record)
        for number, cell in sorted(self._wanted.items()):
            if error is not None:
                core.objects.fail(cell, error)
            elif number < self.total:
                # It was lost after its turn.
                core.lineages.remake(cell, self._lineage, "it was lost while its generator ran")
            else:
                text = (
                    f"object {cell.object_id.hex()} was lost and making it again failed:"
                    f" {record.name}() yielded {self.total} items this time, and it was number"
                    f" {number}"
                )
                core.objects.fail(cell, core.error(ObjectReconstructionFailedError(text)))
        self._wanted.clear()
