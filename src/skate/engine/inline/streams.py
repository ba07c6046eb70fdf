"""Generators: each item is made when its consumer asks for it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from skate.engine.inline.records import Cell, Running
from skate.engine.inline.running import (
    actor_died,
    dump_error,
    exit_code,
    failure_of,
    may_retry,
    store_value,
    timed_out,
)
from skate.exceptions import TaskCancelledError, WorkerCrashedError
from skate.generators import DynamicObjectRefGenerator
from skate.refs import ObjectRef

if TYPE_CHECKING:
    from skate.engine.inline.engine import InlineEngine


class InlineStream:
    """The items of one call; see ``skate.generators.Stream``."""

    #: ``take`` never waits for others.
    status = 1

    def __init__(
        self,
        engine: InlineEngine,
        completed: Cell,
        start: Callable[[int], tuple[Running, Callable[[], Any]]],
        retries: int,
        retry_exceptions: bool | tuple[str, ...],
        timeout_s: float,
    ) -> None:
        self._engine = engine
        self._completed = completed
        #: Returns what runs and the function whose call returns the generator, per attempt.
        self._start = start
        self._retries = retries
        self._retry_exceptions = retry_exceptions
        self._timeout_s = timeout_s
        #: How long the steps of this attempt took.
        self._seconds = 0.0
        self._attempt = 0
        self._running: Running | None = None
        self._iterator: Iterator[Any] | None = None
        self._made = 0
        self._skip = 0
        self._items: deque[Cell] = deque()
        self._ended = False

    @property
    def object_id(self) -> bytes:
        """The id of the call."""
        return self._completed.object_id

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Make the next item."""
        while not self._items and not self._ended:
            self._advance()
        return ObjectRef(self._items.popleft()) if self._items else None

    async def take_soon(self) -> ObjectRef[Any] | None:
        """Make the next item."""
        return self.take(None)

    def completed(self) -> ObjectRef[None]:
        """Make all items."""
        while not self._ended:
            self._advance()
        return ObjectRef(self._completed)

    def is_finished(self) -> bool:
        """Whether all items have been taken and no more will come."""
        return self._ended and not self._items

    def drop(self) -> None:
        """End the generator at its ``yield``."""
        iterator, self._iterator = self._iterator, None
        self._ended = True
        if iterator is not None and hasattr(iterator, "close"):
            iterator.close()

    def cancel(self) -> None:
        """End the generator; the last ref says so."""
        if not self._ended:
            name = self._running.name if self._running is not None else "the generator"
            self.drop()
            self.fail(dump_error(TaskCancelledError(f"{name}() was cancelled")))

    def dynamic(self) -> None:
        """Make all items, and the list of their refs the value of the call's only ref."""
        while not self._ended:
            self._advance()
        self._completed.failed = False
        store_value(self._completed, DynamicObjectRefGenerator([ObjectRef(x) for x in self._items]))
        self._items.clear()

    def _advance(self) -> None:
        """Run the generator to its next item or to its end."""
        made: list[Cell] = []
        engine = self._engine
        if self._running is None:
            self._running, function = self._start(self._attempt)
        else:
            function = None

        def step() -> None:
            if function is not None:
                self._iterator = _as_iterator(function(), self._running)
            assert self._iterator is not None
            for item in self._iterator:
                self._made += 1
                if self._made > self._skip:
                    cell = engine.new_cells(1)[0]
                    store_value(cell, item)
                    made.append(cell)
                    return

        started = time.perf_counter()
        actor = self._running.actor
        with actor.lock if actor is not None else contextlib.nullcontext():
            error = engine.run(self._running, step)
        self._seconds += time.perf_counter() - started
        overdue = timed_out(self._running.name, self._timeout_s, self._seconds)
        if overdue is not None:
            made.clear()
            error = overdue
        if made:
            self._items += made
        elif error is None:
            self._ended = True
            store_value(self._completed, None)
        elif self._retries != 0 and may_retry(error, self._retry_exceptions):
            self._retries -= 1
            self._attempt += 1
            self._skip = max(self._skip, self._made)
            self._made = 0
            self._seconds = 0.0
            self._running = None
        else:
            self.fail(dump_error(self._failure(self._running, error)))

    def _failure(self, running: Running, error: BaseException) -> Exception:
        """Return what the last ref raises; code that exits takes its process, or actor, along."""
        if not isinstance(error, SystemExit):
            return failure_of(running.name, error, self._engine.node)
        actor = running.actor
        if actor is None:
            return WorkerCrashedError(
                f"{running.name}() ended its process: exited with code {exit_code(error)}"
            )
        cause = f"{running.name}() has ended it (exit_actor or SystemExit)"
        self._engine.end_actor(actor.actor_id, cause)
        return actor_died(actor.actor_id, cause)

    def fail(self, data: bytes) -> None:
        """End with a serialized exception."""
        self._ended = True
        cell = self._engine.new_cells(1)[0]
        self._engine.fail([cell, self._completed], data)
        self._items.append(cell)


def _as_iterator(result: Any, running: Running | None) -> Iterator[Any]:
    if not hasattr(result, "__next__"):
        name = running.name if running is not None else "the task"
        raise ValueError(
            f"{name} was called for its items (num_returns='streaming' or 'dynamic') but returned"
            f" {type(result).__name__}, not a generator"
        )
    iterator: Iterator[Any] = result
    return iterator
