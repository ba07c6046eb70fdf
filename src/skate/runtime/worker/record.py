"""A submitted call, from ``.remote()`` to its answer, as its caller keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from skate.engine.base import Code
from skate.runtime.wire.messages import Task, Terms
from skate.runtime.worker.cells import FAILED, Cell
from skate.runtime.worker.leases import FunctionStats, Lease

if TYPE_CHECKING:
    from skate.runtime.worker.links import Peer
    from skate.runtime.worker.remade import RemadeStream
    from skate.runtime.worker.streams import Stream
    from skate.runtime.worker.timeouts import Overdue

#: The empty lists of most messages, one object for all: records by the hundred thousand keep the
#: garbage collector busy.  Messages get new lists, these are never changed.
NOTHING: list[Any] = []

#: Of calls whose duration nobody measures: those of actors.
_UNKNOWN = FunctionStats()


class Record:
    """A task or actor call that this process has submitted and that has not finished."""

    __slots__ = (
        "cancelled",
        "cells",
        "code",
        "failed_argument",
        "home",
        "kept",
        "lease",
        "memory_kills",
        "nested",
        "on_resolved",
        "options",
        "overdue",
        "parent",
        "retries",
        "since",
        "slot_cells",
        "stats",
        "stream",
        "task",
        "task_id",
        "waiting",
    )

    def __init__(self, task: Task, cells: list[Cell]) -> None:
        self.task = task
        #: When it was submitted, by ``perf_counter``.
        self.since = perf_counter()
        self.task_id = task.task_id
        self.cells = cells
        self.code: Code | None = None
        self.stats: FunctionStats = _UNKNOWN
        self.options: Any = None
        #: How often it may still be sent again; None in calls: as the actor's options say.
        self.retries: int | None = 0
        #: Cells of top-level refs, in the order of their slots.
        self.slot_cells: Sequence[Any] = ()
        #: Cells of refs inside the arguments.
        self.nested: Sequence[Any] = ()
        #: Arguments that are not ready.
        self.waiting = 0
        #: The serialized exception of an argument that failed.
        self.failed_argument: bytes | None = None
        self.on_resolved: Any = None
        #: The scheduling key, or the actor that it goes to.
        self.home: Any = None
        self.lease: Lease | None = None
        #: How often its worker was ended to save memory.
        self.memory_kills = 0
        #: What else has to live until the reply: the actor's cell.
        self.kept: Any = None
        self.cancelled = False
        #: It has run longer than it may.
        self.overdue: Overdue | None = None
        #: The items of a generator.
        self.stream: Stream | RemadeStream | None = None
        #: The task that submitted it; empty in drivers.
        self.parent = b""

    def on_ready(self, cell: Cell) -> None:
        """Locked.  An argument has got its value."""
        if cell.status == FAILED and self.failed_argument is None:
            self.failed_argument = cell.data
        self.waiting -= 1
        if self.waiting == 0 or self.failed_argument is not None:
            resolved, self.on_resolved = self.on_resolved, None
            if resolved is not None:
                resolved(self)

    def terms(self) -> Terms:
        """Return the task's terms, new ones if it has none."""
        terms = self.task.terms
        if terms is None:
            terms = self.task.terms = Terms()
        return terms

    @property
    def peer(self) -> Peer | None:
        """Where it was sent to, if it was."""
        if self.lease is not None:
            return self.lease.peer  # type: ignore[no-any-return]  # plain decisions know no peers
        return self.home.peer_of(self)  # type: ignore[no-any-return]  # a key or an actor

    @property
    def name(self) -> str:
        """What the call is named in messages to the user."""
        if self.task.name:
            return self.task.name
        return self.code.name if self.code is not None else self.task.method
