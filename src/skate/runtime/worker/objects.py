"""Objects of this process: values in and out, and who else may reach them.

The rules of counting are in ``docs/architecture.md`` ("Ownership").  Methods marked *locked* are
called with the core's lock held; the others take it themselves and never hold it while they pickle,
unpickle or copy.
"""

from __future__ import annotations

import concurrent.futures
import gc
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from skate.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    OwnerDiedError,
    TaskError,
)
from skate.ids import owner_of
from skate.refs import ObjectRef
from skate.runtime.store.client import StoreClient
from skate.runtime.wire.messages import (
    AddBorrower,
    BorrowerAdded,
    FetchObject,
    KillActor,
    Location,
    ObjectFreed,
    ObjectStored,
    ObjectValue,
    RefGrant,
    ReleaseBorrow,
    Value,
)
from skate.runtime.worker.borrowing import BorrowTable
from skate.runtime.worker.cells import (
    FAILED,
    INLINE,
    PENDING,
    STORED,
    BorrowedCell,
    Cell,
    StoredObject,
    WeakActorCell,
)
from skate.runtime.worker.pump import Waiter
from skate.serialization import Serialized, deserialize, serialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: Values up to this many bytes travel in messages, larger ones through shared memory.
INLINE_MAX = 100 * 1024
#: Seconds after which free shared memory goes back to the daemon, counted twice.
TRIM_SECONDS = 5.0


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


class _FutureListener:
    """Completes a ``concurrent.futures.Future``, outside of the lock."""

    __slots__ = ("future", "objects")

    def __init__(self, objects: Objects, future: concurrent.futures.Future[Any]) -> None:
        self.objects = objects
        self.future = future

    def on_ready(self, cell: Cell) -> None:
        self.objects.core.pump.callbacks.append(lambda: self.finish(cell))

    def finish(self, cell: Cell) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            value = self.objects.load(cell)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


class Objects:
    """The object side of a core."""

    def __init__(self, core: Core, store: StoreClient) -> None:
        self.core = core
        self.store = store
        self.borrows = BorrowTable()
        #: Every cell whose id another process may name.
        self._known: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        #: Cells kept until the owner has acknowledged that we handed a ref on.
        self._handing: dict[bytes, list[Any]] = {}
        #: Borrows that we have announced ourselves and the owner has not acknowledged.
        self._unconfirmed: dict[bytes, Waiter] = {}
        #: How many more looks at unused memory are scheduled: what two in a row find unused goes.
        self._trims_due = 0

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
            location = self._write(serialized)
            with core.lock:
                object_id = core.ids.draw()
            cell = Cell(object_id, core.address)
            cell.handle = StoredObject(object_id, location, core.finalized)
            status = STORED
        if refs:
            cell.contained = [ref._cell for ref in refs]
            with core.lock:
                # Whoever gets the value here unpickles refs to these cells.
                for inner in cell.contained:
                    self._known[inner.object_id] = inner
        cell.status = status
        return cell

    def _write(self, serialized: Serialized) -> Location:
        """Write to shared memory, where what has become unreachable makes room."""
        self.core.drain()
        try:
            return self.store.write(serialized)
        except ObjectStoreFullError:
            # Refs in cycles, and releases of borrowers that nobody has read yet.
            gc.collect()
            self.core.poll()
            self.core.drain()
            return self.store.write(serialized)

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return the value of a ref, or raise its exception."""
        cell = ref._cell
        status = cell.status
        if status == INLINE:
            return deserialize(cell.data)
        if status == PENDING:
            self._await([cell], timeout)
        return self.load(cell)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return the values in order; raise as soon as one of them has failed."""
        cells = [ref._cell for ref in refs]
        pending = [cell for cell in cells if not cell.status]
        if pending:
            self._await(pending, timeout)
            for cell in cells:
                if cell.status == FAILED:
                    self.load(cell)
        return [
            deserialize(cell.data) if cell.status == INLINE else self.load(cell) for cell in cells
        ]

    def _await(self, cells: list[Any], timeout: float | None) -> None:
        core = self.core
        deadline = None if timeout is None else time.monotonic() + timeout
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
        if len(ready) >= num_returns or timeout == 0:
            if len(ready) < num_returns:
                self.core.poll()
                return _split(refs, num_returns)
            return ready, rest
        core = self.core
        deadline = None if timeout is None else time.monotonic() + timeout
        with core.lock:
            for ref in rest:
                self.request_if_borrowed(ref._cell)
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

    def future(self, cell: Cell) -> concurrent.futures.Future[Any]:
        """Return a future of a cell's value."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        listener = _FutureListener(self, future)
        with self.core.lock:
            if not cell.status:
                cell.listen(listener)
                self.request_if_borrowed(cell)
                return future
        listener.finish(cell)
        return future

    def load(self, cell: Any) -> Any:
        """Deserialize the value of a cell that is not pending, or raise its exception."""
        status = cell.status
        if status == INLINE:
            return deserialize(cell.data)
        if status == STORED:
            return deserialize(self.store.open(cell.location, cell))
        error = deserialize(cell.data)
        if isinstance(error, TaskError):
            raise error.as_instanceof_cause()
        raise error

    # ------------------------------------------------------------------ completing (locked)

    def complete(self, cell: Cell, status: int) -> None:
        """Locked.  A cell has got its value."""
        self.core.pump.completions += 1
        cell.complete(status)

    def fail(self, cell: Cell, error: bytes) -> None:
        """Locked.  A cell has got a serialized exception instead of a value."""
        if cell.status == PENDING:
            cell.data = error
            self.complete(cell, FAILED)

    def fill(self, cell: Cell, value: Value) -> None:
        """Locked.  A value for a pending cell has arrived; its grants are accepted in any case."""
        contained = self.accept_all(value.refs) if value.refs else None
        if cell.status != PENDING:
            return
        owned = type(cell) is Cell
        if value.location is not None:
            handle = StoredObject(
                cell.object_id, value.location, self.core.finalized if owned else None
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
        refs = [self.grant(inner, receiver) for inner in cell.contained] if cell.contained else []
        if cell.status == STORED:
            return Value(None, cell.location, refs)
        return Value(cell.data, None, refs, cell.status == FAILED)

    def value_of(self, serialized: Serialized, object_id: bytes, receiver: bytes) -> Value:
        """Return a fresh value that ``receiver`` will own, written to shared memory if large."""
        core = self.core
        if serialized.size <= INLINE_MAX:
            value = Value(serialized.to_bytes())
        else:
            value = Value(None, self._write(serialized))
        with core.lock:
            if value.location is not None:
                core.links.send_node(ObjectStored(object_id, value.location))
            if serialized.refs:
                value.refs = [self.grant(ref._cell, receiver) for ref in serialized.refs]
        return value

    def grant(self, cell: Any, receiver: bytes | None) -> RefGrant:
        """Locked.  Count that ``receiver`` is about to be handed a ref of ``cell``.

        None: nobody is counted, the receiver will call ``borrow``.
        """
        object_id = cell.object_id
        owner = owner_of(object_id)
        core = self.core
        self._known[object_id] = cell
        if receiver is None or type(cell) is WeakActorCell or receiver in core.dead:
            pass
        elif owner == core.process_id:
            self.borrows.add(object_id, cell, receiver)
        elif owner != receiver and owner not in core.dead:
            self._handing.setdefault(object_id, []).append(cell)
            peer = core.links.peer(owner, cell.owner_address)
            core.links.send(peer, AddBorrower(object_id, receiver))
        return RefGrant(object_id, cell.owner_address)

    def accept(self, object_id: bytes, owner_address: str) -> Any:
        """Locked.  Take a ref that we were handed; the cell returned has to be kept by somebody."""
        cell = self.find(object_id, owner_address)
        if type(cell) is BorrowedCell:
            cell.grants += 1
        return cell

    def accept_all(self, grants: Iterable[RefGrant]) -> list[Any]:
        """Locked.  Take several refs."""
        return [self.accept(grant.object_id, grant.owner_address) for grant in grants]

    def borrow(self, grant: RefGrant) -> Any:
        """Locked.  Register ourselves with the owner of a ref that nobody counted for us."""
        core = self.core
        cell = self.find(grant.object_id, grant.owner_address)
        owner = owner_of(grant.object_id)
        if type(cell) is BorrowedCell and owner not in core.dead:
            cell.grants += 1
            peer = core.links.peer(owner, grant.owner_address)
            core.links.send(peer, AddBorrower(grant.object_id, core.process_id))
            self._unconfirmed.setdefault(grant.object_id, Waiter(0)).expect()
        return cell

    def await_borrowed(self, object_id: bytes) -> None:
        """Wait until the owner has counted a ref that we ``borrow``, or is dead."""
        waiter = self._unconfirmed.get(object_id)
        if waiter is not None:
            self.core.pump.block(waiter)

    def resolve(self, object_id: bytes, owner_address: str) -> Any:
        """Find the cell of a ref that is being unpickled."""
        with self.core.lock:
            return self.find(object_id, owner_address)

    def find(self, object_id: bytes, owner_address: str) -> Any:
        """Locked.  Return the cell of an id, a new one if this process has none."""
        cell = self._known.get(object_id)
        if cell is not None:
            return cell
        core = self.core
        owner = owner_of(object_id)
        if not owner_address:
            return WeakActorCell(object_id, "")
        if owner == core.process_id:
            cell = self.borrows.cell(object_id)
            if cell is None:
                cell = Cell(object_id, core.address)
                self.fail(cell, core.error(ObjectLostError(f"object {object_id.hex()} was freed")))
        else:
            cell = BorrowedCell(object_id, owner_address, core.finalized)
            if owner in core.dead:
                self.fail(cell, core.error(self._owner_died(object_id)))
        self._known[object_id] = cell
        return cell

    def pin(self, cell: Any) -> None:
        """A ref was pickled behind our back: keep its object as long as its owner lives."""
        with self.core.lock:
            self._known[cell.object_id] = cell
            if owner_of(cell.object_id) == self.core.process_id:
                self.borrows.pin(cell.object_id, cell)
            else:
                self.grant(cell, b"")

    # ------------------------------------------------------------------ messages (locked)

    def request(self, cell: BorrowedCell) -> None:
        """Locked.  Ask the owner for the value, once."""
        if cell.requested or cell.status:
            return
        cell.requested = True
        core = self.core
        owner = owner_of(cell.object_id)
        peer = core.links.peer(owner, cell.owner_address)
        if peer.dead or owner in core.dead:
            self.fail(cell, core.error(self._owner_died(cell.object_id)))
            return
        core.links.send(peer, FetchObject(cell.object_id))

    def request_if_borrowed(self, cell: Any) -> None:
        """Locked.  Make sure that a pending cell will get its value."""
        if type(cell) is BorrowedCell:
            self.request(cell)

    def on_fetch(self, peer: Peer, message: FetchObject) -> None:
        """Locked.  A borrower asks for a value of ours."""
        object_id = message.object_id
        cell = self.borrows.cell(object_id) or self._known.get(object_id)
        if cell is None:
            text = f"object {object_id.hex()} was freed by its owner"
            value = Value(self.core.error(ObjectLostError(text)), error=True)
            self.core.links.send(peer, ObjectValue(object_id, value))
        elif cell.status:
            self.answer(peer, cell)
        else:
            cell.listen(_RemoteReader(self, peer))

    def answer(self, peer: Peer, cell: Cell) -> None:
        """Locked.  Send a value to a borrower."""
        value = self.value_for(cell, peer.process_id)
        self.core.links.send(peer, ObjectValue(cell.object_id, value))

    def on_value(self, _peer: Peer, message: ObjectValue) -> None:
        """Locked.  The owner has answered."""
        cell = self._known.get(message.object_id)
        if cell is None:
            # Nobody waits any more: take the grants and drop them at once.
            self.accept_all(message.value.refs)
            return
        self.fill(cell, message.value)

    def on_add_borrower(self, peer: Peer, message: AddBorrower) -> None:
        """Locked.  A borrower has handed a ref of ours to somebody."""
        object_id = message.object_id
        cell = self.borrows.cell(object_id) or self._known.get(object_id)
        if cell is not None and message.borrower not in self.core.dead:
            self.borrows.add(object_id, cell, message.borrower)
        self.core.links.send(peer, BorrowerAdded(object_id))

    def on_borrower_added(self, _peer: Peer, message: BorrowerAdded) -> None:
        """Locked.  The owner has counted the receiver: our own ref is no longer needed for it."""
        waiter = self._unconfirmed.get(message.object_id)
        if waiter is not None:
            waiter.on_ready()
            if waiter.done:
                del self._unconfirmed[message.object_id]
            return
        cells = self._handing.get(message.object_id)
        if cells:
            cells.pop()
            if not cells:
                del self._handing[message.object_id]

    def on_release(self, peer: Peer, message: ReleaseBorrow) -> None:
        """Locked.  A borrower has dropped a ref of ours."""
        self.borrows.release(message.object_id, peer.process_id, message.count)

    def on_process_died(self, process_id: bytes) -> None:
        """Locked.  It borrows nothing any more, and what it owned and we do not have is lost."""
        self.borrows.forget(process_id)
        for object_id in [i for i in self._handing if owner_of(i) == process_id]:
            del self._handing[object_id]
        for object_id in [i for i in self._unconfirmed if owner_of(i) == process_id]:
            waiter = self._unconfirmed.pop(object_id)
            while not waiter.done:
                waiter.on_ready()
        for object_id, cell in list(self._known.items()):
            if owner_of(object_id) == process_id and not cell.status:
                self.fail(cell, self.core.error(self._owner_died(object_id)))

    def fail_all(self, error: bytes) -> None:
        """Locked.  The session is over: no other process will answer."""
        for cell in list(self._known.values()):
            if type(cell) is BorrowedCell:
                self.fail(cell, error)

    def _owner_died(self, object_id: bytes) -> OwnerDiedError:
        owner = owner_of(object_id)
        cause = self.core.dead.get(owner, "it cannot be reached")
        return OwnerDiedError(
            f"object {object_id.hex()} is lost: its owner, process {owner.hex()}, died ({cause})"
        )

    def free_own(self, location: Location) -> None:
        """Locked.  Reuse memory that this process wrote; if unused for long, give it back."""
        self.store.free(location)
        if not self._trims_due:
            self.core.pump.call_later(TRIM_SECONDS, self._trim)
        self._trims_due = 2

    def _trim(self) -> None:
        # The store may have to talk to the daemon: not under the lock.
        self.core.pump.callbacks.append(self.store.trim)
        self._trims_due -= 1
        if self._trims_due:
            self.core.pump.call_later(TRIM_SECONDS, self._trim)

    def drain(self) -> None:
        """Locked.  Do what finalizers left behind."""
        core = self.core
        items = core.finalized.items
        while items:
            item = items.popleft()
            if item[0] == "free":
                _, object_id, location = item
                if self.store.is_writer(location):
                    self.free_own(location)
                else:
                    core.links.send_node(ObjectFreed(object_id, location))
            elif item[0] == "release":
                _, object_id, address, count = item
                owner = owner_of(object_id)
                if owner not in core.dead:
                    peer = core.links.peer(owner, address)
                    core.links.send(peer, ReleaseBorrow(object_id, count))
            else:
                core.links.send_node(KillActor(item[1], no_restart=True, graceful=True))


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
