"""``await`` of refs: values for event loops, which do not stop while a value is brought here.

Completions happen in whichever thread pumps.  What has completed in one turn of the pump goes to
each event loop in one batch, with one wake-up, instead of one per ref.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.runtime.worker.bringing import NOT_YET, value_soon
from skate.runtime.worker.pump import Answer

if TYPE_CHECKING:
    from skate.runtime.worker.bringing import Located
    from skate.runtime.worker.cells import Cell
    from skate.runtime.worker.completions import Completions
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.streams import Stream


class _Awaited(asyncio.Future[Any]):
    """A future of an event loop that listens to a cell, or to a stream."""

    def __init__(self, deliveries: _Deliveries, source: Any) -> None:
        super().__init__(loop=deliveries.loop)
        self._deliveries = deliveries
        self._source = source
        self.listens = False
        self.located: Located | None = None

    def listen(self) -> None:
        """Locked.  It will be told."""
        self.listens = True
        self._deliveries.awaiting.pending += 1

    def on_ready(self, _source: Any) -> None:
        """Locked.  What it listens to is ready."""
        self._deliveries.add(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Stop listening: a timeout must leave nothing behind."""
        source = self._source
        with self._deliveries.core.lock:
            listeners = source.listeners
            if listeners is not None and self in listeners:
                listeners.remove(self)
        if not self.done():
            self._forget()
        return super().cancel(msg)

    def _forget(self) -> None:
        if self.listens:
            self.listens = False
            self._deliveries.awaiting.pending -= 1

    def deliver(self) -> None:
        """In the loop: take the value."""
        if self.done():
            return
        self._forget()
        source = self._source
        if not hasattr(source, "data"):
            self.set_result(None)
            return
        try:
            value = value_soon(self._deliveries.core, source, self)
        except StopIteration as error:
            # A future refuses it, since it would end the coroutine that awaits.
            failure = RuntimeError(f"the task raised {error!r}")
            failure.__cause__ = error
            self.set_exception(failure)
        except BaseException as error:
            self.set_exception(error)
        else:
            if value is not NOT_YET:
                self.set_result(value)


def source_of(future: object) -> Any:
    """Return the cell or stream that a future listens to; None if it is another future."""
    return future._source if isinstance(future, _Awaited) else None


class _Told(Answer):
    """An answer of the daemon that a future waits for."""

    __slots__ = ("future",)

    #: As of a cell: nobody else listens.
    listeners = None
    future: _Awaited

    def on_ready(self, _source: object = None) -> None:
        """Locked.  It is there, or never will be."""
        self.future.on_ready(self)


class _Deliveries:
    """What has completed for one event loop."""

    def __init__(self, awaiting: Awaiting, loop: asyncio.AbstractEventLoop) -> None:
        self.awaiting = awaiting
        self.core = awaiting.core
        self.loop = loop
        self._ready: deque[_Awaited] = deque()
        self._scheduled = False

    def add(self, future: _Awaited) -> None:
        """Locked.  A future can be completed."""
        self._ready.append(future)
        if not self._scheduled:
            self._scheduled = True
            # The pump calls it at the end of its turn.
            self.core.pump.callbacks.append(self._schedule)

    def _schedule(self) -> None:
        # The loop is closed: nobody awaits any more.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        ready = self._ready
        while ready:
            ready.popleft().deliver()


class Awaiting:
    """The event loops of this process in which somebody awaits refs."""

    def __init__(self, core: Core) -> None:
        self.core = core
        #: Futures that are not complete.
        self.pending = 0
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Deliveries] = (
            weakref.WeakKeyDictionary()
        )

    def _deliveries(self) -> _Deliveries:
        loop = asyncio.get_running_loop()
        deliveries = self._by_loop.get(loop)
        if deliveries is None:
            deliveries = self._by_loop[loop] = _Deliveries(self, loop)
        return deliveries

    def future(self, cell: Cell) -> asyncio.Future[Any]:
        """Return a future of the running event loop for the value of a cell."""
        future = _Awaited(self._deliveries(), cell)
        core = self.core
        with core.lock:
            if not cell.status:
                cell.listen(future)
                future.listen()
                core.objects.request_if_borrowed(cell)
                if core.links.dirty:
                    core.pump.expect()
                return future
        future.deliver()
        return future

    def stream(self, stream: Stream | Completions) -> asyncio.Future[Any]:
        """Return a future that completes when ``take`` of a stream would not wait."""
        future = _Awaited(self._deliveries(), stream)
        with self.core.lock:
            if not stream.status:
                stream.listeners.append(future)
                future.listen()
                return future
        future.deliver()
        return future

    async def ask(self, make: Callable[[int], object]) -> Any:
        """Send a request to the daemon and return its answer; the loop goes on meanwhile.

        Raises:
            SessionError: the daemon is gone.
        """
        answer = _Told()
        future = answer.future = _Awaited(self._deliveries(), answer)
        core = self.core
        with core.lock:
            future.listen()
        core.ask_soon(make, answer)
        await future
        if answer.message is None:
            raise core.ended
        return answer.message
