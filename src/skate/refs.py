"""Object references, and the hooks by which the engine that made them follows them around.

An ``ObjectRef`` is a handle on a *cell*, the engine's record of one object in this process.  Within
a process Python's own reference counting says when nobody holds an object any more: a cell dies
with the last ref to it.  Between processes the engines count (see ``docs/architecture.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import concurrent.futures

T = TypeVar("T")


class Cell(Protocol):
    """What any engine's record of an object or actor offers."""

    @property
    def object_id(self) -> bytes:
        """16 bytes, unique in the cluster."""

    @property
    def owner_address(self) -> str:
        """Where the owner listens; "" in engines without processes."""


class Hooks:
    """How refs reach the engine of this process.  An engine fills these in when it starts."""

    #: Find or make the cell of a ref that was unpickled: ``resolve(object_id, owner_address)``.
    resolve: Callable[[bytes, str], Any]
    #: A ref was pickled by somebody else than ``skate.serialization``; keep its object for good.
    pin: Callable[[Any], None]
    #: Return a future of the running event loop that receives the same.
    awaited: Callable[[Any], Any]
    #: Return a ``concurrent.futures.Future`` that receives the value or the exception of a cell.
    future: Callable[[Any], concurrent.futures.Future[Any]]

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the engine: refs can no longer be unpickled or awaited."""

        def no_engine(*_: Any) -> Any:
            raise RuntimeError("no Skate session is running in this process; call skate.init()")

        self.resolve = no_engine
        self.pin = no_engine
        self.future = no_engine
        self.awaited = no_engine


hooks = Hooks()


class Tracked:
    """Base of what may travel inside values and keeps something alive: refs and actor handles."""

    __slots__ = ("_cell",)

    _cell: Any

    def reduce_tracked(self) -> tuple[Any, ...]:
        """Return the pickle reduction; ``skate.serialization`` calls this and counts by itself."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        hooks.pin(self._cell)
        return self.reduce_tracked()


class ObjectRef(Tracked, Generic[T]):
    """A future and a name for one immutable object, perhaps in another process.

    Refs are cheap to copy and may be passed to tasks and actors.  As a top-level argument a ref is
    replaced by its value; nested in a list or dict it stays a ref.  Refs to one object are equal.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    def binary(self) -> bytes:
        """Return the 16-byte id."""
        object_id: bytes = self._cell.object_id
        return object_id

    def hex(self) -> str:
        """Return the id as 32 hexadecimal digits."""
        return self.binary().hex()

    def future(self) -> concurrent.futures.Future[T]:
        """Return a ``concurrent.futures.Future`` of the value, at once.

        A value that is on disk or on another node is brought meanwhile.
        """
        return hooks.future(self._cell)

    def __await__(self) -> Generator[Any, None, T]:
        value: T = yield from hooks.awaited(self._cell)
        return value

    def __eq__(self, other: object) -> bool:
        if type(other) is not ObjectRef:
            return NotImplemented
        return self._cell is other._cell or self._cell.object_id == other._cell.object_id

    def __hash__(self) -> int:
        return hash(self._cell.object_id)

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"

    def reduce_tracked(self) -> tuple[Any, ...]:
        """Reduce to id and owner; see ``Tracked``."""
        return _rebuild, (self._cell.object_id, self._cell.owner_address)


def _rebuild(object_id: bytes, owner_address: str) -> ObjectRef[Any]:
    return ObjectRef(hooks.resolve(object_id, owner_address))
