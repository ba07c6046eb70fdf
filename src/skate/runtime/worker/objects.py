"""Objects of this process: values in and out, and who else may reach them.

The rules of counting are in ``docs/architecture.md`` ("Ownership").  Methods marked *locked* are
called with the core's lock held; the others take it themselves and never hold it while they pickle,
unpickle or copy.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    TaskError,
)
from skate.ids import owner_of
from skate.refs import ObjectRef
from skate.runtime.store.client import NotHereError, StoreClient
from skate.runtime.wire.messages import (
    FetchObject,
    LocateObject,
    Location,
    ObjectLocated,
    ObjectStored,
    ObjectsUsed,
    ObjectValue,
    ReportLost,
    Value,
)
from skate.runtime.worker.cells import (
    FAILED,
    INLINE,
    PENDING,
    STORED,
    BorrowedCell,
    Cell,
    StoredObject,
)
from skate.runtime.worker.own_code import PACKAGE
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.reading_ahead import ReadAhead
from skate.runtime.worker.writing import MAKE_ROOM, Writing
from skate.serialization import Serialized, deserialize, serialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: How often the daemon is told which objects were read, in seconds.
REPORT_SECONDS = 1.0
#: Values up to this many bytes travel in messages, larger ones through shared memory.
INLINE_MAX = 100 * 1024


def follow(object_id: bytes, handle: StoredObject, answer: ObjectLocated) -> None:
    """Look for a stored value where the daemon says.

    Raises:
        ObjectLostError: no copy is left.
        ObjectStoreFullError: there is no room for it on this node; it is not lost.
    """
    if answer.no_room:
        raise ObjectStoreFullError(
            f"no room in memory for object {object_id.hex()} of {handle.location.size} bytes,"
            f" which is {answer.no_room}: {answer.reason}\n{MAKE_ROOM}"
        )
    if answer.location is None:
        raise ObjectLostError(answer.reason)
    handle.location = answer.location


def failure(data: bytes) -> BaseException:
    """Return what ``get`` raises for an object that has failed."""
    error: BaseException = deserialize(data)
    return error.as_instanceof_cause() if isinstance(error, TaskError) else error


class _AllOrFailure(Waiter):
    """Waits for several cells, but not longer than until one of them fails."""

    __slots__ = ()

    def on_ready(self, cell: Any = None) -> None:
        self.remaining -= 1
        if self.remaining <= 0 or cell.status == FAILED:
            self.done = True
            self.wake()


class _RemoteReader:
    """A borrower that waits for the value of a pending object of ours."""

    __slots__ = ("objects", "peer")

    def __init__(self, objects: Objects, peer: Peer) -> None:
        self.objects = objects
        self.peer = peer

    def on_ready(self, cell: Cell) -> None:
        self.objects.answer(self.peer, cell)


class Objects:
    """The object side of a core."""

    def __init__(self, core: Core, store: StoreClient) -> None:
        self.core = core
        self.store = store
        self.writing = Writing(core, store)
        self._reported = 0.0
        #: How often an object was not where it was said to be.
        self.misses = 0

    # ------------------------------------------------------------------ put, get, wait

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value and return its ref."""
        return ObjectRef(self.new_cell(serialize(value)))

    def new_cell(self, serialized: Serialized) -> Cell:
        """Make an object of ours out of a serialized value."""
        core = self.core
        refs = serialized.refs
        if serialized.size <= INLINE_MAX:
            data = serialized.to_bytes()
            with core.lock:
                cell = Cell(core.ids.draw(), core.address)
            cell.data = data
            status = INLINE
        else:
            with core.lock:
                object_id = core.ids.draw()
            location = self.writing.write(object_id, serialized)
            cell = Cell(object_id, core.address)
            cell.handle = StoredObject(object_id, location, core.finalized)
            with core.lock:
                core.links.send_node(ObjectStored(object_id, location, call_site()))
            core.pump.activity += 1
            core.pump.nudge()
            status = STORED
        if refs:
            cell.contained = [ref._cell for ref in refs]
            with core.lock:
                # Whoever gets the value here unpickles refs to these cells.
                for inner in cell.contained:
                    core.ownership.know(inner)
        cell.status = status
        return cell

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return the value of a ref, or raise its exception."""
        cell = ref._cell
        if cell.status == INLINE:
            return deserialize(cell.data)
        return self.load(cell, None if timeout is None else time.monotonic() + timeout, timeout)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return the values in order; raise as soon as one of them has failed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        cells = [ref._cell for ref in refs]
        pending = [cell for cell in cells if not cell.status]
        if pending:
            self._await(pending, deadline, timeout)
            for cell in cells:
                if cell.status == FAILED:
                    self.load(cell)
        values = []
        ahead: ReadAhead | None = None
        for index, cell in enumerate(cells):
            if cell.status == INLINE:
                values.append(deserialize(cell.data))
                continue
            if ahead is None:
                ahead = ReadAhead(self, cells)
            values.append(self.load(cell, deadline, timeout))
            ahead.loaded(index)
        return values

    def _await(self, cells: list[Any], deadline: float | None, timeout: float | None) -> None:
        core = self.core
        waiter = _AllOrFailure(len(cells))
        with core.lock:
            for cell in cells:
                if cell.status:
                    waiter.on_ready(cell)
                else:
                    cell.listen(waiter)
                    self.request_if_borrowed(cell)
        if waiter.done or core.block(waiter, deadline):
            return
        with core.lock:
            for cell in cells:
                if cell.listeners is not None and waiter in cell.listeners:
                    cell.listeners.remove(waiter)
        missing = sum(1 for cell in cells if not cell.status)
        raise GetTimeoutError(
            f"{missing} of {len(cells)} awaited object(s) not ready after {timeout} s; "
            f"first: {cells[0].object_id.hex()}"
        )

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split refs into ready ones, at most ``num_returns``, and the others."""
        ready, rest = _split(refs, num_returns)
        if len(ready) >= num_returns:
            return ready, rest
        core = self.core
        deadline = None if timeout is None else time.monotonic() + timeout
        with core.lock:
            for ref in rest:
                self.request_if_borrowed(ref._cell)
        if timeout == 0:
            core.poll()
            return _split(refs, num_returns)
        waiter = Waiter(1)
        pump = core.pump
        seen = -1

        def look() -> bool:
            nonlocal seen
            if pump.completions != seen:
                seen = pump.completions
                if sum(1 for ref in refs if ref._cell.status) >= num_returns:
                    waiter.done = True
            return waiter.done

        look()
        pump.any_waiters.append(waiter)
        try:
            core.block(waiter, deadline, look)
        finally:
            pump.any_waiters.remove(waiter)
        return _split(refs, num_returns)

    def load(self, cell: Any, deadline: float | None = None, timeout: float | None = None) -> Any:
        """Deserialize the value of a cell, or raise its exception.

        Waits for it until ``deadline`` (monotonic; ``timeout`` is what the user said) if it is
        pending, or lost and being made again.
        """
        while True:
            status = cell.status
            if status == INLINE:
                return deserialize(cell.data)
            if status == STORED:
                handle = cell.handle
                if handle is None:
                    continue  # another thread has just found that it is lost
                try:
                    view = self._view(cell, handle, deadline, timeout)
                except ObjectLostError as error:
                    self.report_lost(cell, handle.location, str(error))
                    continue
                return deserialize(view)
            if status == PENDING:
                self._await([cell], deadline, timeout)
                continue
            raise failure(cell.data)

    def report_lost(self, cell: Any, location: Location, reason: str) -> None:
        """No copy of a stored object can be had: its owner has to make it again."""
        core = self.core
        with core.lock:
            core.check_open()
            if type(cell) is not BorrowedCell:
                core.lineages.lost(cell, location, reason)
            elif cell.status == STORED and cell.location == location:
                cell.status = PENDING
                cell.handle = None
                cell.requested = False
                self.request(cell, ReportLost(cell.object_id, location, reason))
            core.links.flush()

    def _view(
        self, cell: Any, handle: StoredObject, deadline: float | None, timeout: float | None
    ) -> memoryview:
        """Return a view of a stored value, which is brought to this node if it is elsewhere.

        Raises:
            ObjectLostError: no copy is left.  This is the one place where that is found out.
            ObjectStoreFullError: there is no room for it on this node; it is not lost.
            GetTimeoutError: bringing it here takes too long.
        """
        object_id = cell.object_id
        while True:
            location = handle.location
            try:
                # The cell may get another handle, but this memory is for the view.
                return self.store.open(location, object_id, (cell, handle))
            except NotHereError:
                self.misses += 1
                answer = self._locate(object_id, location, deadline)
            if answer is None:
                raise GetTimeoutError(
                    f"object {object_id.hex()} could not be brought here within {timeout} s"
                )
            follow(object_id, handle, answer)

    def _locate(
        self, object_id: bytes, location: Location, deadline: float | None
    ) -> ObjectLocated | None:
        answer: ObjectLocated | None = self.core.ask_patiently(
            lambda number: LocateObject(number, object_id, location), deadline
        )
        return answer

    def report_use(self) -> None:
        """Locked.  Tell the daemon what was read, from time to time."""
        now = time.monotonic()
        if now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        used, self.store.used = self.store.used, set()
        self.core.links.send_node(ObjectsUsed(list(used)))

    # ------------------------------------------------------------------ completing (locked)

    def complete(self, cell: Cell, status: int) -> None:
        """Locked.  A cell has got its value."""
        pump = self.core.pump
        pump.completions += 1
        cell.complete(status)
        # Only if another thread pumps: what it waits for may be this.
        pump.nudge()

    def fail(self, cell: Cell, error: bytes) -> None:
        """Locked.  A cell has got a serialized exception instead of a value."""
        if cell.status == PENDING:
            cell.data = error
            self.complete(cell, FAILED)

    def fill(self, cell: Cell, value: Value, origin: Any = None) -> None:
        """Locked.  A value for a pending cell has arrived; its grants are accepted in any case.

        ``origin``: the lineage of a call's result.
        """
        contained = self.core.ownership.accept_all(value.refs) if value.refs else None
        if cell.status != PENDING:
            return
        owned = type(cell) is Cell
        if value.location is not None:
            handle = StoredObject(
                cell.object_id, value.location, self.core.finalized if owned else None, origin
            )
            cell.handle = handle
            status = STORED
        else:
            status = FAILED if value.error else INLINE
            cell.data = value.data
        cell.contained = contained
        self.complete(cell, status)

    # ------------------------------------------------------------------ values for others (locked)

    def value_for(self, cell: Any, receiver: bytes | None) -> Value:
        """Locked.  Return the value of a cell that is not pending, with grants for ``receiver``."""
        refs = (
            [self.core.ownership.grant(inner, receiver) for inner in cell.contained]
            if cell.contained
            else []
        )
        if cell.status == STORED:
            return Value(None, cell.location, refs)
        return Value(cell.data, None, refs, cell.status == FAILED)

    def value_of(
        self, serialized: Serialized, object_id: bytes, receiver: bytes, created: str
    ) -> Value:
        """Return a fresh value that ``receiver`` will own, written to shared memory if large.

        ``created``: the name of the task, for whoever wonders where the object comes from.
        """
        if serialized.size <= INLINE_MAX:
            location = None
        else:
            location = self.writing.write(object_id, serialized)
        return self._written(serialized, location, object_id, receiver, created)

    async def value_on_loop(
        self, serialized: Serialized, object_id: bytes, receiver: bytes, created: str
    ) -> Value:
        """Do the same on an event loop, which goes on while there is no room."""
        if serialized.size <= INLINE_MAX:
            location = None
        else:
            location = await self.writing.write_on_loop(object_id, serialized)
        return self._written(serialized, location, object_id, receiver, created)

    def _written(
        self,
        serialized: Serialized,
        location: Location | None,
        object_id: bytes,
        receiver: bytes,
        created: str,
    ) -> Value:
        core = self.core
        value = Value(serialized.to_bytes() if location is None else None, location)
        with core.lock:
            if location is not None:
                core.links.send_node(ObjectStored(object_id, location, created))
            if serialized.refs:
                value.refs = [
                    self.core.ownership.grant(ref._cell, receiver) for ref in serialized.refs
                ]
        return value

    # ------------------------------------------------------------------ messages (locked)

    def request(self, cell: BorrowedCell, question: ReportLost | None = None) -> None:
        """Locked.  Ask the owner for the value, once."""
        if cell.requested or cell.status:
            return
        cell.requested = True
        core = self.core
        owner = owner_of(cell.object_id)
        peer = core.links.peer(owner, cell.owner_address)
        if peer.dead or owner in core.dead:
            self.fail(cell, core.error(core.ownership.owner_died(cell.object_id)))
            return
        core.links.send(peer, question or FetchObject(cell.object_id))

    def request_if_borrowed(self, cell: Any) -> None:
        """Locked.  Make sure that a pending cell will get its value."""
        if type(cell) is BorrowedCell:
            self.request(cell)

    def on_fetch(self, peer: Peer, message: FetchObject) -> None:
        """Locked.  A borrower asks for a value of ours."""
        object_id = message.object_id
        cell = self.core.ownership.known(object_id)
        if cell is None:
            text = f"object {object_id.hex()} was freed by its owner"
            value = Value(self.core.error(ObjectLostError(text)), error=True)
            self.core.links.send(peer, ObjectValue(object_id, value))
        elif cell.status:
            self.answer(peer, cell)
        else:
            cell.listen(_RemoteReader(self, peer))

    def on_report_lost(self, peer: Peer, message: ReportLost) -> None:
        """Locked.  A borrower cannot get at an object of ours."""
        cell = self.core.ownership.known(message.object_id)
        if cell is not None:
            self.core.lineages.lost(cell, message.location, message.reason)
        self.on_fetch(peer, FetchObject(message.object_id))

    def answer(self, peer: Peer, cell: Cell) -> None:
        """Locked.  Send a value to a borrower."""
        value = self.value_for(cell, peer.process_id)
        self.core.links.send(peer, ObjectValue(cell.object_id, value))

    def on_value(self, _peer: Peer, message: ObjectValue) -> None:
        """Locked.  The owner has answered."""
        cell = self.core.ownership.known(message.object_id)
        if cell is None:
            # Nobody waits any more: take the grants and drop them at once.
            self.core.ownership.accept_all(message.value.refs)
            return
        self.fill(cell, message.value)


def call_site() -> str:
    """Return file and line of the user's code that has called us; "" if there is none."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _split(
    refs: Sequence[ObjectRef[Any]], num_returns: int
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    ready: list[ObjectRef[Any]] = []
    rest: list[ObjectRef[Any]] = []
    for index, ref in enumerate(refs):
        if ref._cell.status:
            ready.append(ref)
            if len(ready) == num_returns:
                rest.extend(refs[index + 1 :])
                break
        else:
            rest.append(ref)
    return ready, rest
