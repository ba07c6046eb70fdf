"""Cells: what a process knows of one object.

Python's reference count of a cell is the process's local count: refs, pending tasks and views hold
cells, and a finalizer puts what the rest of the world has to learn on ``dropped``.  Finalizers run
at any moment, also inside the garbage collector while a lock is held, so they do nothing but
append.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from skate.runtime.wire.messages import Location

#: The value is not known yet.
PENDING = 0
#: ``data`` holds the serialized value.
INLINE = 1
#: ``location`` says where the value lies in shared memory.
STORED = 2
#: ``data`` holds a serialized exception.
FAILED = 3


class Listener(Protocol):
    """Something to call, with the lock held, when a cell stops being pending."""

    def on_ready(self, cell: Cell) -> None: ...


class Finalized:
    """What finalizers leave behind for the next turn of the pump."""

    __slots__ = ("items", "nudge")

    def __init__(self) -> None:
        self.items: deque[tuple[Any, ...]] = deque()
        #: Makes the background thread look if nobody else does.
        self.nudge: Callable[[], None] = lambda: None

    def add(self, item: tuple[Any, ...]) -> None:
        """Append; safe in finalizers."""
        self.items.append(item)
        self.nudge()


class Cell:
    """An object owned by this process.

    ``status`` leaves PENDING under the lock, and goes back to it only if a STORED object was lost.
    """

    __slots__ = (
        "__weakref__",
        "contained",
        "data",
        "handle",
        "listeners",
        "object_id",
        "owner_address",
        "status",
    )

    def __init__(self, object_id: bytes, owner_address: str) -> None:
        self.object_id = object_id
        self.owner_address = owner_address
        self.status = PENDING
        self.data: Any = None
        #: Keeps the shared memory; see ``StoredObject``.
        self.handle: StoredObject | None = None
        #: Cells of the refs inside the value.
        self.contained: list[Any] | None = None
        self.listeners: list[Any] | None = None

    @property
    def location(self) -> Location:
        """Where a STORED value lies."""
        assert self.handle is not None
        return self.handle.location

    def listen(self, listener: Listener) -> None:
        """Call ``listener.on_ready(cell)`` once it is not pending; only while it is."""
        if self.listeners is None:
            self.listeners = [listener]
        else:
            self.listeners.append(listener)

    def complete(self, status: int) -> None:
        """Leave PENDING and tell the listeners; the value has been filled in before."""
        self.status = status
        listeners = self.listeners
        if listeners is not None:
            self.listeners = None
            for listener in listeners:
                listener.on_ready(self)


class StoredObject:
    """A place in shared memory that the owner frees when nothing refers to it any more."""

    __slots__ = ("finalized", "location", "made_at", "object_id", "origin")

    def __init__(
        self,
        object_id: bytes,
        location: Location,
        finalized: Finalized | None,
        origin: Any = None,
    ) -> None:
        self.object_id = object_id
        #: The ``Lineage`` of what a task has returned.
        self.origin = origin
        #: A hint: where it was last seen, maybe as a copy on another node than it was made on.
        self.location = location
        #: Where it was made.  Only the node that has the object there can tell it by this from one
        #: that was made again, so this is what the end of the object is reported with.
        self.made_at = location
        #: None in borrowers: they release their borrow instead.
        self.finalized = finalized

    def __del__(self) -> None:
        finalized = self.finalized
        if finalized is not None:
            finalized.add(("free", self.object_id, self.made_at))


class BorrowedCell(Cell):
    """An object owned by another process, which has handed us a ref ``grants`` times."""

    __slots__ = ("finalized", "grants", "requested")

    def __init__(self, object_id: bytes, owner_address: str, finalized: Finalized) -> None:
        super().__init__(object_id, owner_address)
        self.grants = 0
        #: Whether ``FetchObject`` was sent.
        self.requested = False
        self.finalized = finalized

    def __del__(self) -> None:
        if self.grants:
            self.finalized.add(("release", self.object_id, self.owner_address, self.grants))


class ActorCell(Cell):
    """An actor created by this process; its death means that no handle exists anywhere."""

    __slots__ = ("detached", "finalized", "keeps")

    def __init__(
        self, actor_id: bytes, owner_address: str, finalized: Finalized, detached: bool
    ) -> None:
        super().__init__(actor_id, owner_address)
        self.finalized = finalized
        self.detached = detached
        #: Cells of the constructor's arguments: a restart needs them again.
        self.keeps: list[Any] = []

    def __del__(self) -> None:
        if not self.detached:
            self.finalized.add(("actor", self.object_id))


class WeakActorCell(Cell):
    """An actor found by name: this handle does not keep it alive."""

    __slots__ = ()
