"""``await`` of refs: values for event loops, which do not stop while a value is brought here.

Completions happen in whichever thread pumps.  What has completed in one turn of the pump goes to
each event loop in one batch, with one wake-up, instead of one per ref.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from skate.exceptions import ObjectLostError
from skate.runtime.store.client import NotHereError
from skate.runtime.wire.messages import LocateObject
from skate.runtime.worker.cells import PENDING, STORED
from skate.runtime.worker.core import Answer
from skate.runtime.worker.objects import follow
from skate.serialization import deserialize

if TYPE_CHECKING:
    from skate.runtime.worker.cells import Cell, StoredObject
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
        #: What was asked about a stored value that is not here.
        self._located: _Located | None = None

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
            view = self._open(source)
            if self.listens:
                return
            value = (
                self._deliveries.core.objects.load(source) if view is None else deserialize(view)
            )
        except StopIteration as error:
            # A future refuses it, since it would end the coroutine that awaits.
            failure = RuntimeError(f"the task raised {error!r}")
            failure.__cause__ = error
            self.set_exception(failure)
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(value)

    def _open(self, cell: Cell) -> memoryview | None:
        """Return a view of a stored value, which keeps it where it is; None for other values.

        A value that has to be brought here first, or made again, is listened to: the loop does not
        stop for that.

        Raises:
            ObjectStoreFullError: there is no room for it on this node.
            SessionError: the session has ended.
        """
        core = self._deliveries.core
        located, self._located = self._located, None
        handle = cell.handle if cell.status == STORED else None
        if handle is not None:
            try:
                if located is not None and located.handle is handle:
                    located.follow(core, cell.object_id)
                return core.objects.store.open(handle.location, cell.object_id, (cell, handle))
            except ObjectLostError as error:
                core.objects.report_lost(cell, handle.location, str(error))
            except NotHereError:
                self._bring(cell, handle)
                return None
        with core.lock:
            if cell.status == PENDING:
                cell.listen(self)
                self.listen()
                core.objects.request_if_borrowed(cell)
                core.pump.expect()
        return None

    def _bring(self, cell: Cell, handle: StoredObject) -> None:
        core = self._deliveries.core
        location = handle.location
        self._located = _Located(self, handle)
        with core.lock:
            self.listen()
        core.ask_soon(lambda number: LocateObject(number, cell.object_id, location), self._located)


class _Located(Answer):
    """The daemon's answer to the question where a stored value is."""

    __slots__ = ("_future", "handle")

    def __init__(self, future: _Awaited, handle: StoredObject) -> None:
        super().__init__()
        self._future = future
        self.handle = handle

    def on_ready(self, _cell: object = None) -> None:
        """Locked.  The answer is there, or never will be."""
        self._future.on_ready(self)

    def follow(self, core: Core, object_id: bytes) -> None:
        """Look where it says; see ``objects.follow``."""
        if self.message is None:
            raise core.ended
        follow(object_id, self.handle, self.message)


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
