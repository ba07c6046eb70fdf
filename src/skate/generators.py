"""What calls of generators return: iterators over refs of the items."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from skate.refs import ObjectRef

T = TypeVar("T")


class Stream(Protocol):
    """The items of one generator as the engine keeps them."""

    #: Not zero: ``take`` returns at once.
    status: int

    @property
    def object_id(self) -> bytes:
        """The id of the call."""

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Wait for the next item and return its ref; None at the end.

        Raises:
            GetTimeoutError: it did not come in time.
        """

    def take_soon(self) -> Awaitable[ObjectRef[Any] | None]:
        """Do the same in an event loop."""

    def completed(self) -> ObjectRef[None]:
        """Return a ref that is ready when the generator has ended."""

    def is_finished(self) -> bool:
        """Whether all items have been taken and no more will come."""

    def drop(self) -> None:
        """Nobody will take further items.  Safe in finalizers."""


class ObjectRefGenerator(Generic[T]):
    """Refs of the items that a task or actor call yields, each as soon as it is there.

    Made by ``f.remote()`` if ``f`` is a generator function::

        for ref in f.remote():
            print(skate.get(ref))

    ``next`` and ``async for`` wait until the next item exists, so ``get`` of its ref returns at
    once. If the generator raises, or cannot be run to its end, the last ref raises that.
    ``skate.wait`` takes generators among refs: one is ready when its next item is.  When the
    iterator is dropped before its end, the remote generator is closed at its next ``yield``.

    It belongs to the process that made the call and cannot be pickled.
    """

    __slots__ = ("__weakref__", "_cell")

    def __init__(self, stream: Stream) -> None:
        # Named as in refs, so that ``wait`` looks at both in the same way.
        self._cell = stream

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        return self._next_sync()

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[T]:
        """Return the next ref.

        Args:
            timeout_s: Seconds to wait at most; None: as long as it takes.

        Raises:
            StopIteration: There are no more items.
            GetTimeoutError: The next item was not there in time; a later call may succeed.
        """
        ref = self._cell.take(timeout_s)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        ref = await self._cell.take_soon()
        if ref is None:
            raise StopAsyncIteration
        return ref

    def completed(self) -> ObjectRef[None]:
        """Return a ref that is ready when the generator has ended; it raises what that raised.

        Whoever asks for it wants the generator to run to its end: it does so even if this iterator
        is dropped.
        """
        return self._cell.completed()

    def next_ready(self) -> bool:
        """Return whether ``next`` would return (or raise ``StopIteration``) at once."""
        return bool(self._cell.status)

    def is_finished(self) -> bool:
        """Return whether all refs have been taken and no more will come."""
        return self._cell.is_finished()

    def task_id(self) -> bytes:
        """Return the 16-byte id of the call."""
        return self._cell.object_id

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._cell.object_id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an ObjectRefGenerator belongs to the process that made the call and cannot be pickled"
            " or passed on: pass the refs that it yields, or make the call where it is iterated"
        )

    def __del__(self) -> None:
        stream = getattr(self, "_cell", None)
        if stream is not None:
            stream.drop()


class DynamicObjectRefGenerator(Generic[T]):
    """The refs of all items of a generator that was called with ``num_returns="dynamic"``.

    ``get`` of the call's ref returns it, after the generator has ended.  It may be iterated more
    than once and be passed on.  If the generator raised, the last ref raises that.
    """

    __slots__ = ("_refs",)

    def __init__(self, refs: Sequence[ObjectRef[T]]) -> None:
        self._refs = list(refs)

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"DynamicObjectRefGenerator({len(self._refs)} refs)"

    def __reduce__(self) -> tuple[Any, ...]:
        return DynamicObjectRefGenerator, (self._refs,)
