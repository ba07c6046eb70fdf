"""A queue between tasks, actors and drivers."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Mapping
from typing import Any

import skate
from skate.exceptions import ActorDiedError

__all__ = ["Empty", "Full", "Queue"]

#: Calls that may wait in the queue's actor at the same time.  They cost a little memory each and
#: no thread; what they wait for must get in as well.
MOST_WAITING = 1_000_000


class Empty(queue.Empty):
    """There is nothing in the queue."""


class Full(queue.Full):
    """There is no room in the queue."""


class Queue:
    """A first-in, first-out queue with the methods of ``queue.Queue``, and some for batches.

    It lives in an actor of its own.  A ``Queue`` may be passed to tasks and actors: all of them use
    the same one.  It ends with its last ``Queue`` object, or with ``shutdown``.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        """Make a queue.

        Args:
            maxsize: Most items that it holds; 0 (or less): any number.
            actor_options: Options of its actor, such as ``name`` or ``num_cpus``.
        """
        self.maxsize = maxsize
        options = {"max_concurrency": MOST_WAITING, **(actor_options or {})}
        self.actor: Any = skate.remote(_QueueActor).options(**options).remote(maxsize)

    # ------------------------------------------------------------------ how full it is

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Return the number of items; it may have changed meanwhile."""
        size: int = skate.get(self._actor().size.remote())
        return size

    def qsize(self) -> int:
        """Return the number of items; it may have changed meanwhile."""
        return self.size()

    def empty(self) -> bool:
        """Return whether there are no items."""
        return self.size() == 0

    def full(self) -> bool:
        """Return whether there is no room."""
        return 0 < self.maxsize <= self.size()

    # ------------------------------------------------------------------ in

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, as soon as there is room.

        Args:
            item: Anything that tasks take; refs stay refs.
            block: False: as ``put_nowait``.
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            Full: There was no room in time.
            ValueError: ``timeout`` is negative.
        """
        if block:
            self._call("put", [item], _checked(timeout))
        else:
            self.put_nowait(item)

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Like ``put``, for coroutines."""
        if block:
            await self._call_async("put", [item], _checked(timeout))
        else:
            await self._call_async("put_batch", [item])

    def put_nowait(self, item: Any) -> None:
        """Add an item.

        Raises:
            Full: There is no room.
        """
        self._call("put_batch", [item])

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add several items, all or none.

        Raises:
            Full: There is no room for all of them.
            TypeError: ``items`` is not iterable.
        """
        self._call("put_batch", list(items))

    # ------------------------------------------------------------------ out

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove the first item and return it, as soon as there is one.

        Args:
            block: False: as ``get_nowait``.
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            Empty: There was none in time.
            ValueError: ``timeout`` is negative.
        """
        if block:
            return self._call("get", _checked(timeout))[0]
        return self.get_nowait()

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Like ``get``, for coroutines."""
        if block:
            return (await self._call_async("get", _checked(timeout)))[0]
        return (await self._call_async("get_batch", 1))[0]

    def get_nowait(self) -> Any:
        """Remove the first item and return it.

        Raises:
            Empty: There is none.
        """
        return self._call("get_batch", 1)[0]

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Remove the first items and return them.

        Raises:
            Empty: There are fewer; they stay.
            TypeError, ValueError: ``num_items`` is no whole number, or negative.
        """
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be a whole number, not {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must not be negative, but is {num_items}")
        items: list[Any] = self._call("get_batch", num_items)
        return items

    # ------------------------------------------------------------------ the end

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue's actor; whoever waits gets ``ActorDiedError``, and what is in it is lost.

        Args:
            force: Do not wait for calls that were made before.
            grace_period_s: How long to wait for them, in seconds.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            # Calls of this process arrive in their order.
            skate.wait([actor.size.remote()], timeout=grace_period_s)
        skate.kill(actor)

    def _actor(self) -> Any:
        if self.actor is None:
            raise ActorDiedError("the queue was shut down")
        return self.actor

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return skate.get(getattr(self._actor(), method).remote(*args))
        except (Empty, Full) as error:
            # The traceback of the actor tells the user nothing.
            raise _plain(error) from None

    async def _call_async(self, method: str, *args: Any) -> Any:
        try:
            return await getattr(self._actor(), method).remote(*args)
        except (Empty, Full) as error:
            raise _plain(error) from None


def _plain(error: BaseException) -> BaseException:
    return (Empty if isinstance(error, Empty) else Full)(*error.args)


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"'timeout' must be a non-negative number, but is {timeout!r}")
    return timeout


class _QueueActor:
    """An async actor: calls that wait cost no thread.  Items come and go in lists, so that refs
    among them stay refs."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(max(0, maxsize))

    async def size(self) -> int:
        return self._queue.qsize()

    async def put(self, items: list[Any], timeout: float | None) -> None:
        try:
            await asyncio.wait_for(self._queue.put(items[0]), timeout)
        except TimeoutError:
            raise Full(
                f"the queue has held {self._queue.maxsize} items, as many as it may, for"
                f" {timeout} s"
            ) from None

    async def put_batch(self, items: list[Any]) -> None:
        waiting = self._queue
        if waiting.maxsize and waiting.qsize() + len(items) > waiting.maxsize:
            raise Full(
                f"the queue has no room for {len(items)} more: it holds {waiting.qsize()} items,"
                f" and at most {waiting.maxsize}"
            )
        for item in items:
            waiting.put_nowait(item)

    async def get(self, timeout: float | None) -> list[Any]:
        try:
            return [await asyncio.wait_for(self._queue.get(), timeout)]
        except TimeoutError:
            raise Empty(f"nothing has come into the queue for {timeout} s") from None

    async def get_batch(self, count: int) -> list[Any]:
        if self._queue.qsize() < count:
            raise Empty(f"the queue holds {self._queue.qsize()} items, fewer than {count}")
        return [self._queue.get_nowait() for _ in range(count)]
