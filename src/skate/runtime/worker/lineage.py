"""How lost objects are made again: which task made them, out of what.

An object in shared memory is lost when its last copy is gone: the node died, a spill file was
deleted.  Its owner then runs the task again that returned it, and before that, if need be, those
that made its arguments.  What has to be kept for this is the *lineage*: the task's message, and
where its arguments come from.  Their values are not kept, so an argument that nobody can reach any
more is freed as if there were no lineage.  Small results live with their owner and have none.

Everything here is called with the core's lock held.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec import structs

from skate.exceptions import ObjectReconstructionFailedError
from skate.ids import distance, nth, owner_of
from skate.runtime.wire.messages import RefGrant, Task, Terms
from skate.runtime.worker.cells import (
    FAILED,
    INLINE,
    PENDING,
    STORED,
    ActorCell,
    Cell,
    WeakActorCell,
)
from skate.runtime.worker.record import NOTHING, Record
from skate.runtime.worker.remade import RemadeStream
from skate.runtime.worker.streams import Stream

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Location
    from skate.runtime.worker.core import Core

#: What the lineage of a process may take, in bytes; beyond that the oldest is forgotten.
MAX_LINEAGE_BYTES = 256 * 1024 * 1024
#: What one task's lineage takes besides its arguments, in bytes; measured.
OVERHEAD_BYTES = 1500


class Argument:
    """One ref among a task's arguments, and how to get at its object when the task runs again."""

    __slots__ = (
        "_contained",
        "_data",
        "_is_actor",
        "_weak",
        "object_id",
        "origin",
        "owner_address",
    )

    def __init__(self, cell: Any) -> None:
        self.object_id: bytes = cell.object_id
        self.owner_address: str = cell.owner_address
        self._weak: weakref.ref[Any] = weakref.ref(cell)
        #: It is the handle of an actor, which nothing makes again.
        self._is_actor = isinstance(cell, ActorCell | WeakActorCell)
        #: The value, if it is small, and the refs in it: these are kept, their objects are not.
        self._data: bytes | None = None
        self._contained: list[Argument] = []
        #: What made the object; None if nothing is known that could make it again.
        self.origin: Lineage | None = None
        if cell.status:
            self.on_ready(cell)
        elif type(cell) is Cell:
            cell.listen(self)

    def on_ready(self, cell: Any) -> None:
        """The object has its value: see what would have to be kept of it."""
        if cell.status == INLINE:
            self._data = cell.data
            self._contained = [Argument(inner) for inner in cell.contained or ()]
        elif cell.handle is not None:
            self.origin = cell.handle.origin

    @property
    def size(self) -> int:
        """Bytes that this keeps."""
        return len(self._data) if self._data is not None else 0

    def revive(self, lineages: Lineages) -> Any:
        """Return a cell of the object: the one that there is, or one that will get its value."""
        cell = self._weak()
        if cell is not None:
            return cell
        if self._is_actor:
            return WeakActorCell(self.object_id, "")
        core = lineages.core
        if owner_of(self.object_id) != core.process_id:
            # The owner may have it still: it says so, or that the object was freed.
            return core.ownership.borrow(RefGrant(self.object_id, self.owner_address))
        cell = core.ownership.known(self.object_id) or Cell(self.object_id, core.address)
        if cell.status != PENDING:
            return cell
        if self._data is not None:
            cell.contained = [inner.revive(lineages) for inner in self._contained]
            cell.data = self._data
            cell.status = INLINE
        elif self.origin is not None:
            lineages.remake(cell, self.origin, "nobody referred to it any more")
        else:
            text = (
                f"object {self.object_id.hex()} is needed to make a lost object again, but it was"
                " freed and put() made it, which cannot be repeated"
            )
            cell.data = core.error(ObjectReconstructionFailedError(text))
            cell.status = FAILED
        core.ownership.know(cell)
        return cell


class Lineage:
    """What it takes to run one task again."""

    __slots__ = ("__weakref__", "nested", "record", "refusal", "size", "slots")

    def __init__(self, record: Record, refusal: str = "") -> None:
        """``refusal``: keep nothing but why the task cannot run again."""
        #: Why it cannot be used, for the user; "" while it can.
        self.refusal = refusal
        self.slots: list[Argument] = []
        self.nested: list[Argument] = []
        self.size = 0
        #: The finished call, its results and arguments left out; None if there is a refusal.
        self.record: Record | None = None
        if refusal:
            return
        self.slots = [Argument(cell) for cell in record.slot_cells]
        self.nested = [Argument(cell) for cell in record.nested]
        kept = sum(argument.size for argument in (*self.slots, *self.nested))
        self.size = OVERHEAD_BYTES + len(record.task.arguments) + kept
        self.record = _without_objects(record)

    def forget(self, reason: str) -> None:
        """Give up for this reason."""
        self.refusal = reason
        self.record = None
        self.slots = []
        self.nested = []


def _without_objects(record: Record) -> Record:
    task: Task = structs.replace(record.task, slots=NOTHING, refs=NOTHING)
    bare = Record(task, [])
    bare.code = record.code
    bare.stats = record.stats
    bare.options = record.options
    bare.retries = record.retries
    bare.home = record.home
    # An actor lives no longer because of what it has returned.
    bare.kept = weakref.ref(record.kept) if record.kept is not None else None
    return bare


class Lineages:
    """The lineage of all objects that this process owns."""

    def __init__(self, core: Core) -> None:
        self.core = core
        #: Oldest first; those whose objects are gone are skipped.
        self._order: deque[weakref.ref[Lineage]] = deque()
        self._sizes: dict[weakref.ref[Lineage], int] = {}
        #: Bytes of all that is kept.
        self.total = 0
        #: Tasks that run again, by their id.
        self.running: dict[bytes, tuple[Lineage, Record]] = {}
        #: Runs to start; a list, because a chain of lost objects may be long.
        self._starting: deque[tuple[Lineage, Record]] = deque()
        self._is_starting = False

    # ------------------------------------------------------------------ keeping

    def of(self, record: Record) -> Lineage:
        """Return the lineage to keep with the stored results of a call that was just answered."""
        running = self.running.pop(record.task_id, None)
        if running is not None:
            finished = running[0].record
            if finished is not None:
                finished.retries = record.retries
                finished.task.attempt = record.task.attempt
            return running[0]
        if record.retries == 0 or (record.retries is None and not record.home.max_task_retries):
            option = "max_task_retries" if record.task.actor_id else "max_retries"
            return Lineage(
                record, f"{record.name}(), which returned it, has no retries left ({option})"
            )
        lineage = Lineage(record)
        ref = weakref.ref(lineage, self._gone)
        self._order.append(ref)
        self._sizes[ref] = lineage.size
        self.total += lineage.size
        while self.total > MAX_LINEAGE_BYTES and self._order:
            self._evict(self._order.popleft())
        return lineage

    def _gone(self, ref: weakref.ref[Lineage]) -> None:
        # Runs wherever the last reference ends, so nothing but a note for the next look.
        self.core.finalized.add(("lineage", ref))

    def drop(self, ref: weakref.ref[Lineage]) -> None:
        """The objects of a lineage, and what was made out of them, are gone."""
        self.total -= self._sizes.pop(ref, 0)
        order = self._order
        while order and order[0] not in self._sizes:
            order.popleft()
        if len(order) > 2 * len(self._sizes) + 1000:
            self._order = deque(kept for kept in order if kept in self._sizes)

    def _evict(self, ref: weakref.ref[Lineage]) -> None:
        lineage = ref()
        if lineage is not None:
            lineage.forget(
                f"its lineage was forgotten when that of newer objects took more than"
                f" {MAX_LINEAGE_BYTES >> 20} MiB"
            )
        self.total -= self._sizes.pop(ref, 0)

    # ------------------------------------------------------------------ making again

    def lost(self, cell: Cell, location: Location, reason: str) -> None:
        """The copy of an object of ours at ``location`` is gone: make it again, or fail it."""
        handle = cell.handle
        if cell.status != STORED or handle is None or handle.location != location:
            return  # it has another copy by now, or is being made
        cell.status = PENDING
        cell.handle = None
        # It has nothing left to free, and what it would say could be taken for the next copy.
        handle.finalized = None
        self.remake(cell, handle.origin, reason)

    def remake(self, cell: Cell, lineage: Lineage | None, reason: str) -> None:
        """Give a pending cell its value by running the task again that returned it."""
        refusal = self._refusal(lineage)
        if lineage is None or lineage.record is None or refusal:
            text = f"object {cell.object_id.hex()} is lost ({reason}) and cannot be made again: "
            self.core.objects.fail(
                cell, self.core.error(ObjectReconstructionFailedError(text + refusal))
            )
            return
        task_id = lineage.record.task_id
        if task_id not in self.running:
            first = self.core.submitter.pending.get(task_id)
            if first is not None and isinstance(first.stream, Stream):
                first.stream.lose(cell)
                return
        found = self.running.get(task_id) or self._begin(lineage, lineage.record)
        record = found[1]
        if isinstance(record.stream, RemadeStream):
            record.stream.want(cell)
        else:
            record.cells[distance(record.task_id, cell.object_id)] = cell
        if not self._is_starting:
            self._start()

    def _refusal(self, lineage: Lineage | None) -> str:
        """Return why a task cannot be run again, "" if it can."""
        if lineage is None:
            return "put() made it, which cannot be repeated"
        finished = lineage.record
        if finished is None or finished.task_id in self.running:
            return lineage.refusal
        if finished.kept is not None and finished.kept() is None:
            return f"the actor on which {finished.name}() was called is gone"
        if finished.task.actor_id and finished.home.state == "dead":
            return f"the actor on which {finished.name}() was called is dead: {finished.home.cause}"
        if not _may_run(finished):
            runs = finished.task.attempt + 1
            option = "max_task_retries" if finished.task.actor_id else "max_retries"
            return (
                f"{finished.name}() has run {runs} time{'s' if runs > 1 else ''} already, and"
                f" {option} allows no more"
            )
        return ""

    def _begin(self, lineage: Lineage, finished: Record) -> tuple[Lineage, Record]:
        task = structs.replace(finished.task, attempt=finished.task.attempt + 1)
        # Results that nobody has lost, or nobody can reach any more, come once more all the same;
        # these cells take them in and let go of them.
        cells = [
            Cell(nth(task.task_id, index), self.core.address) for index in range(task.num_returns)
        ]
        record = Record(task, cells)
        if task.num_returns < 0:
            task.terms = structs.replace(task.terms) if task.terms is not None else Terms()
            record.stream = RemadeStream(self.core, record, lineage)
        record.code = finished.code
        record.stats = finished.stats
        record.options = finished.options
        # Calls of actors count attempts, tasks count what is left.
        record.retries = finished.retries
        if record.retries is not None and record.retries > 0 and not task.actor_id:
            record.retries -= 1
        record.home = finished.home
        record.kept = finished.kept() if finished.kept is not None else None
        found = self.running[task.task_id] = (lineage, record)
        self._starting.append(found)
        return found

    def _start(self) -> None:
        self._is_starting = True
        core = self.core
        try:
            while self._starting:
                lineage, record = self._starting.popleft()
                record.slot_cells = [argument.revive(self) for argument in lineage.slots]
                record.nested = [argument.revive(self) for argument in lineage.nested]
                core.submitter.resubmit(record)
        finally:
            self._is_starting = False

    def ended(self, task_id: bytes, crash: str = "") -> bytes | None:
        """A call has ended in another way; ``crash``: its worker died and no retries are left.

        Return the serialized exception of its results if that is not simply the call's.
        """
        if self.running.pop(task_id, None) is None or not crash:
            return None
        text = f"object {task_id.hex()} was lost and making it again failed: {crash}"
        return self.core.error(ObjectReconstructionFailedError(text))


def _may_run(finished: Record) -> bool:
    retries = finished.retries
    if not finished.task.actor_id:
        return retries != 0
    if retries is None:
        retries = finished.home.max_task_retries
    return retries < 0 or finished.task.attempt < retries
