"""A fixed set of actors that share the work which is given to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import skate
from skate.actor import ActorHandle
from skate.exceptions import GetTimeoutError
from skate.util._deadline import Deadline

V = TypeVar("V")

#: Calls a method of an actor with a value and returns the ref (or refs) of the result.
Call = Callable[[Any, V], Any]


class ActorPool(Generic[V]):
    """Runs calls on whichever of its actors is free, one call at a time on each.

    What no actor is free for waits in the pool and starts when somebody asks for results: that is
    when the pool looks which actors have become free.  Not safe to use from several threads.
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        for actor in self._idle:
            _check_handle(actor)
        #: The actor that works on each unfinished call.  Keys are the first (or only) ref of a
        #: call: all results of one call become ready together.
        self._busy: dict[Any, ActorHandle] = {}
        #: What each call returned, until the result has been fetched; in the order of submission.
        self._unread: dict[Any, Any] = {}
        self._waiting: deque[tuple[Call[Any], Any]] = deque()

    def map(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Apply ``fn(actor, value)`` to all values and yield the results in their order.

        Results of earlier submissions that nobody has fetched are dropped.  The calls are submitted
        at once, also if nobody iterates.
        """
        self._submit_all(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Like ``map``, but yield results as they come."""
        self._submit_all(fn, values)
        return self._results(self.get_next_unordered)

    def _submit_all(self, fn: Call[V], values: Iterable[V]) -> None:
        self._waiting.clear()
        for key in list(self._unread):
            self._ignore(key)
        for value in values:
            self.submit(fn, value)

    def _results(self, get: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get()

    def submit(self, fn: Call[V], value: V) -> None:
        """Call ``fn(actor, value)`` with a free actor, now or as soon as there is one.

        Args:
            fn: Calls a method of the actor: ``lambda actor, value: actor.work.remote(value)``.
            value: Passed on to ``fn``.

        Raises:
            TypeError: ``fn`` returned no ref.
        """
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        try:
            returned = fn(actor, value)
            key = returned[0] if isinstance(returned, list) and returned else returned
            if not isinstance(key, skate.ObjectRef):
                raise TypeError(
                    "the function given to an ActorPool must return what actor.method.remote(...)"
                    f" returns, a ref, but it returned {type(returned).__name__}"
                )
        except BaseException:
            self._idle.append(actor)
            raise
        self._busy[key] = actor
        self._unread[key] = returned

    def has_next(self) -> bool:
        """Return whether there are results that have not been fetched."""
        return bool(self._unread or self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the result of the earliest submission whose result was not fetched yet.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.
            ignore_if_timedout: When the time is over, drop that result and free its actor.

        Raises:
            StopIteration: All results have been fetched.
            TimeoutError: The result was not there in time; without ``ignore_if_timedout`` the
                next call waits for the same one.
            ValueError: There are submissions, but not a single actor.
            TaskError, ActorDiedError: The call failed; its actor goes back into the pool.
        """
        self._check_next()
        key = next(iter(self._unread))
        deadline = Deadline(timeout)
        # Whoever finishes meanwhile gets the next value: the one waited for may be the slowest.
        while key in self._busy and self._free_finished(deadline.left()):
            pass
        if key in self._busy and not skate.wait([key], timeout=0)[0]:
            if ignore_if_timedout:
                self._ignore(key)
            raise GetTimeoutError(
                f"the next result of the pool was not ready after {timeout} s"
                + ("; it will be ignored" if ignore_if_timedout else "")
            )
        return self._fetch(key)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return the result of any call that has finished, waiting for the first if none has.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.
            ignore_if_timedout: When the time is over, drop the result of the earliest submission
                and free its actor.

        Raises:
            StopIteration: All results have been fetched.
            TimeoutError: No result was there in time.
            ValueError: There are submissions, but not a single actor.
            TaskError, ActorDiedError: The call failed; its actor goes back into the pool.
        """
        self._check_next()
        ready, _ = skate.wait(list(self._unread), timeout=timeout)
        if ready:
            return self._fetch(ready[0])
        if ignore_if_timedout:
            self._ignore(next(iter(self._unread)))
        raise GetTimeoutError(
            f"none of the {len(self._unread)} calls of the pool has finished within {timeout} s"
        )

    def _check_next(self) -> None:
        if not self.has_next():
            raise StopIteration("there are no more results to get: all have been fetched")
        if not self._unread:
            raise ValueError(
                f"{len(self._waiting)} submission(s) wait for an actor and the pool has none:"
                " push() one first"
            )

    def _free_finished(self, timeout: float | None) -> bool:
        """Wait until some call has ended; return whether one has in time."""
        ready, _ = skate.wait(list(self._busy), timeout=timeout)
        for key in ready:
            self._free(key)
        return bool(ready)

    def _free(self, key: Any) -> None:
        """A call needs its actor no more."""
        actor = self._busy.pop(key, None)
        if actor is not None:
            self._return_actor(actor)

    def _fetch(self, key: Any) -> Any:
        self._free(key)
        return skate.get(self._unread.pop(key))

    def _ignore(self, key: Any) -> None:
        del self._unread[key]
        # What it still does goes first: the actor's next call waits for that.
        self._free(key)

    def _return_actor(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Return whether there is an idle actor, and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool; None if there is none."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor.

        Raises:
            ValueError: It is in the pool already.
            TypeError: It is no handle.
        """
        _check_handle(actor)
        if actor in self._idle or actor in self._busy.values():
            raise ValueError(f"{actor!r} belongs to this pool already")
        self._return_actor(actor)


def _check_handle(actor: object) -> None:
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"an ActorPool consists of actor handles, not of {type(actor).__name__}")
