"""Objects of the inline engine: pickles in cells, ready as soon as there are any."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skate.engine.inline.records import Actor, ActorCell, Cell, Ordered
from skate.engine.inline.running import dump_error, store_value
from skate.exceptions import ObjectLostError, TaskError
from skate.ids import IdSource, new_process_id
from skate.refs import ObjectRef, hooks
from skate.serialization import (
    Slot,
    deserialize,
    deserialize_arguments,
    fill_slots,
    serialize_arguments,
)

if TYPE_CHECKING:
    import concurrent.futures


class InlineObjects:
    """The object side of the engine."""

    def __init__(self) -> None:
        self._process_id = new_process_id()
        self._ids = IdSource(self._process_id)
        self._id_lock = threading.Lock()
        #: Objects and actors that refs being unpickled may name.
        self._cells: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        self._pinned: dict[bytes, Any] = {}
        self._actors: dict[bytes, Actor] = {}
        hooks.resolve = self._resolve
        hooks.pin = self._pin
        hooks.future = self._future
        hooks.awaited = self._awaited

    def end_actor(self, actor_id: bytes, cause: str) -> None:
        """End an actor, if it lives; see ``records.Session``."""
        raise NotImplementedError

    def put(self, value: object) -> ObjectRef[Any]:
        """Store the pickle of a value."""
        cell = self.new_cells(1)[0]
        store_value(cell, value)
        return ObjectRef(cell)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return values; there is nothing to wait for."""
        return [self.get_one(ref, timeout) for ref in refs]

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return a fresh copy of the value, its arrays read-only."""
        cell = ref._cell
        self._check_cell(cell)
        value = deserialize(cell.data)
        if cell.failed:
            raise value.as_instanceof_cause() if isinstance(value, TaskError) else value
        return value

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Everything is ready."""
        return list(refs[:num_returns]), list(refs[num_returns:])

    def completions(self, refs: Sequence[ObjectRef[Any]]) -> Ordered:
        """Everything is ready, in the order given."""
        return Ordered(refs)

    @property
    def node(self) -> str:
        """The id of the only node."""
        return self._process_id.hex()

    def _new_id(self) -> bytes:
        with self._id_lock:
            return self._ids.draw()

    def new_cells(self, count: int) -> list[Cell]:
        """Make cells of new objects."""
        cells = [Cell(self, self._new_id()) for _ in range(count)]
        for cell in cells:
            self._cells[cell.object_id] = cell
        return cells

    def _check_cell(self, cell: Any) -> None:
        if cell.session is not self:
            raise ObjectLostError(f"{cell.object_id.hex()} belongs to a session that has ended")

    def _resolve(self, object_id: bytes, owner_address: str) -> Any:
        if not owner_address:
            return ActorCell(self, object_id, keeps=False)
        cell = self._cells.get(object_id)
        if cell is not None:
            return cell
        if object_id in self._actors:
            return ActorCell(self, object_id, keeps=False)
        lost = Cell(self, object_id)
        self.fail([lost], dump_error(ObjectLostError(f"object {object_id.hex()} was freed")))
        return lost

    def _pin(self, cell: Any) -> None:
        self._pinned[cell.object_id] = cell

    def _future(self, cell: Any) -> concurrent.futures.Future[Any]:
        import concurrent.futures

        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(self.get_one(ObjectRef(cell), None))
        except Exception as error:
            future.set_exception(error)
        return future

    def _awaited(self, cell: Any) -> Any:
        import asyncio  # whoever awaits has it

        return asyncio.wrap_future(self._future(cell))

    def _pack(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Cell | Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Pickle arguments.  Return what makes copies of them, or the cell of one that failed."""
        cells: list[Cell] = []

        def replaced(value: Any) -> Any:
            if type(value) is not ObjectRef:
                return value
            self._check_cell(value._cell)
            cells.append(value._cell)
            return Slot(len(cells) - 1)

        args = tuple([replaced(value) for value in args])
        kwargs = {name: replaced(value) for name, value in kwargs.items()}
        serialized = serialize_arguments(args, kwargs)
        for cell in cells:
            if cell.failed:
                return cell
        data, keep = serialized.to_bytes(), serialized.refs

        def unpack() -> tuple[tuple[Any, ...], dict[str, Any]]:
            _ = keep  # refs inside the arguments live until the last attempt
            copies = deserialize_arguments(data)
            return fill_slots(*copies, [deserialize(cell.data) for cell in cells])

        return unpack

    def _fill(self, cells: list[Cell], result: Any, name: str) -> None:
        if len(cells) == 1:
            store_value(cells[0], result)
            return
        if not cells:
            return
        try:
            parts = list(result)
        except TypeError:
            raise ValueError(
                f"{name} has num_returns={len(cells)} but returned {type(result).__name__},"
                " not a sequence"
            ) from None
        if len(parts) != len(cells):
            raise ValueError(
                f"{name} has num_returns={len(cells)} but returned {len(parts)} values"
            )
        for cell, part in zip(cells, parts, strict=True):
            store_value(cell, part)

    def fail(self, cells: list[Cell], data: bytes) -> None:
        """Give objects a serialized exception."""
        for cell in cells:
            cell.data = data
            cell.failed = True
