"""``as_completed``: refs in the order in which their values come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from skate.api.objects import check_refs, check_timeout
from skate.api.session import current
from skate.exceptions import GetTimeoutError
from skate.refs import ObjectRef

T = TypeVar("T")


class AsCompleted(Generic[T]):
    """What ``as_completed`` returns: an iterator, also for ``async for``."""

    def __init__(self, refs: list[ObjectRef[T]], timeout: float | None) -> None:
        self._total = self._left = len(refs)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._completions = current().completions(refs)

    def __iter__(self) -> AsCompleted[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        if not self._left:
            raise StopIteration
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        ref = self._completions.take(left)
        if ref is None:
            raise self._late()
        self._left -= 1
        return ref

    def __aiter__(self) -> AsCompleted[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        if not self._left:
            raise StopAsyncIteration
        import asyncio  # whoever iterates like this has it

        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        try:
            ref: ObjectRef[T] = await asyncio.wait_for(self._completions.take_soon(), left)
        except TimeoutError:
            raise self._late() from None
        self._left -= 1
        return ref

    def _late(self) -> GetTimeoutError:
        return GetTimeoutError(
            f"as_completed: {self._left} of {self._total} objects not ready after {self._timeout} s"
        )

    def __del__(self) -> None:
        completions = getattr(self, "_completions", None)
        if completions is not None:
            # When the interpreter exits, parts of it are gone.
            with contextlib.suppress(Exception):
                completions.close()


def as_completed(
    object_refs: Iterable[ObjectRef[T]], *, timeout: float | None = None
) -> AsCompleted[T]:
    """Iterate over refs in the order in which their values (or errors) come.

    ::

        for ref in skate.as_completed(refs):
            print(skate.get(ref))

    Also ``async for ref in skate.as_completed(refs)``.  Other than a loop around ``wait`` it takes
    the same time per ref however many there are.

    Args:
        object_refs: Refs.
        timeout: Seconds, from this call on, for all of them together; None: as long as it takes.

    Raises:
        TypeError, ValueError: ``object_refs`` are no refs, or ``timeout`` is no number of seconds.
        GetTimeoutError: (while iterating) the next one was not ready in time.
    """
    if timeout is not None:
        timeout = check_timeout("as_completed", timeout)
    given: Any = object_refs
    refs = list(given) if isinstance(given, Iterable) else given
    check_refs("as_completed", refs)
    return AsCompleted(list(refs), timeout)
