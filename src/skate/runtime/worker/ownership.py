"""Who may still reach which object: refs handed out and received, and what finalizers leave.

The rules of counting are in ``docs/architecture.md`` ("Ownership").  Everything here is called with
the core's lock held, apart from what says otherwise.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from skate.exceptions import ObjectLostError, OwnerDiedError
from skate.ids import owner_of
from skate.runtime.wire.messages import (
    AddBorrower,
    BorrowerAdded,
    KillActor,
    Location,
    ObjectFreed,
    RefGrant,
    ReleaseBorrow,
)
from skate.runtime.worker.borrowing import BorrowTable
from skate.runtime.worker.cells import BorrowedCell, Cell, WeakActorCell
from skate.runtime.worker.pump import Waiter

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: Seconds after which free shared memory goes back to the daemon, counted twice.
TRIM_SECONDS = 5.0


class Ownership:
    """Counts the refs that this process hands out, receives and drops."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.borrows = BorrowTable()
        #: Every cell whose id another process may name.
        self._known: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        #: Cells kept until the owner has acknowledged that we handed a ref on.
        self._handing: dict[bytes, list[Any]] = {}
        #: Borrows that we have announced ourselves and the owner has not acknowledged.
        self._unconfirmed: dict[bytes, Waiter] = {}
        #: How many more looks at unused memory are scheduled: what two in a row find unused goes.
        self._trims_due = 0

    def know(self, cell: Any) -> None:
        """Another process, or a pickle, may name this cell."""
        self._known[cell.object_id] = cell

    def all_known(self) -> list[Any]:
        """Return all cells that ``known`` can find."""
        return list(self._known.values())

    def known(self, object_id: bytes) -> Any | None:
        """Return the cell of an id if this process has one."""
        return self.borrows.cell(object_id) or self._known.get(object_id)

    def grant(self, cell: Any, receiver: bytes | None) -> RefGrant:
        """Count that ``receiver`` is about to be handed a ref of ``cell``.

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
        """Take a ref that we were handed; the cell returned has to be kept by somebody."""
        cell = self.find(object_id, owner_address)
        if type(cell) is BorrowedCell:
            cell.grants += 1
        return cell

    def accept_all(self, grants: Iterable[RefGrant]) -> list[Any]:
        """Take several refs."""
        return [self.accept(grant.object_id, grant.owner_address) for grant in grants]

    def borrow(self, grant: RefGrant) -> Any:
        """Register ourselves with the owner of a ref that nobody counted for us."""
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
        """Wait, without the lock, until the owner has counted what we ``borrow`` or is dead."""
        waiter = self._unconfirmed.get(object_id)
        if waiter is not None:
            self.core.pump.block(waiter)

    def resolve(self, object_id: bytes, owner_address: str) -> Any:
        """Find the cell of a ref that is being unpickled; takes the lock itself."""
        with self.core.lock:
            return self.find(object_id, owner_address)

    def find(self, object_id: bytes, owner_address: str) -> Any:
        """Return the cell of an id, a new one if this process has none."""
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
                self.core.objects.fail(
                    cell, core.error(ObjectLostError(f"object {object_id.hex()} was freed"))
                )
        else:
            cell = BorrowedCell(object_id, owner_address, core.finalized)
            if owner in core.dead:
                self.core.objects.fail(cell, core.error(self.owner_died(object_id)))
        self._known[object_id] = cell
        return cell

    def pin(self, cell: Any) -> None:
        """A ref was pickled behind our back: keep its object for good.  Takes the lock itself."""
        with self.core.lock:
            self._known[cell.object_id] = cell
            if owner_of(cell.object_id) == self.core.process_id:
                self.borrows.pin(cell.object_id, cell)
            else:
                self.grant(cell, b"")

    def on_add_borrower(self, peer: Peer, message: AddBorrower) -> None:
        """A borrower has handed a ref of ours to somebody."""
        object_id = message.object_id
        cell = self.known(object_id)
        if cell is not None and message.borrower not in self.core.dead:
            self.borrows.add(object_id, cell, message.borrower)
        self.core.links.send(peer, BorrowerAdded(object_id, message.borrower))

    def on_borrower_added(self, _peer: Peer, message: BorrowerAdded) -> None:
        """The owner has counted the receiver: our own ref is no longer needed for it."""
        if message.borrower == self.core.process_id:
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
        """A borrower has dropped a ref of ours."""
        self.borrows.release(message.object_id, peer.process_id, message.count)

    def on_process_died(self, process_id: bytes) -> None:
        """It borrows nothing any more, and what it owned and we do not have is lost."""
        self.borrows.forget(process_id)
        for object_id in [i for i in self._handing if owner_of(i) == process_id]:
            del self._handing[object_id]
        for object_id in [i for i in self._unconfirmed if owner_of(i) == process_id]:
            waiter = self._unconfirmed.pop(object_id)
            while not waiter.done:
                waiter.on_ready()
        for object_id, cell in list(self._known.items()):
            if owner_of(object_id) == process_id and not cell.status:
                self.core.objects.fail(cell, self.core.error(self.owner_died(object_id)))

    def fail_all(self, error: bytes) -> None:
        """The session is over: no other process will answer."""
        for cell in list(self._known.values()):
            if type(cell) is BorrowedCell:
                self.core.objects.fail(cell, error)

    def owner_died(self, object_id: bytes) -> OwnerDiedError:
        """Return the exception for an object whose owner is gone."""
        owner = owner_of(object_id)
        cause = self.core.dead.get(owner, "it cannot be reached")
        return OwnerDiedError(
            f"object {object_id.hex()} is lost: its owner, process {owner.hex()}, died ({cause})"
        )

    def free_own(self, location: Location) -> None:
        """Reuse memory that this process wrote; if unused for long, give it back."""
        self.core.objects.store.free(location)
        self._trim_later()

    def _trim_later(self) -> None:
        if not self._trims_due:
            self.core.pump.call_later(TRIM_SECONDS, self._trim)
        self._trims_due = 2

    def _trim(self) -> None:
        # The store may have to talk to the daemon: not under the lock.
        self.core.pump.callbacks.append(self.core.objects.store.trim)
        self._trims_due -= 1
        if self._trims_due:
            self.core.pump.call_later(TRIM_SECONDS, self._trim)

    def drain(self) -> None:
        """Do what finalizers left behind."""
        core = self.core
        items = core.finalized.items
        while items:
            item = items.popleft()
            if item[0] == "free":
                _, object_id, location = item
                store = core.objects.store
                if store.is_writer(location):
                    store.take(object_id, location)
                    self._trim_later()
                core.links.send_node(ObjectFreed(object_id, location))
            elif item[0] == "release":
                _, object_id, address, count = item
                core.actors.forget(object_id)
                owner = owner_of(object_id)
                if owner not in core.dead:
                    peer = core.links.peer(owner, address)
                    core.links.send(peer, ReleaseBorrow(object_id, count))
            elif item[0] == "lineage":
                core.lineages.drop(item[1])
            elif item[0] == "stream":
                item[1].on_dropped()
            else:
                core.actors.forget(item[1])
                core.links.send_node(KillActor(item[1], no_restart=True, graceful=True))
