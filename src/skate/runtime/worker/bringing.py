"""Values for those who must not wait: event loops, and whoever asks for a future.

A value that is on disk or on another node is asked for, and comes later; one that is lost is made
again meanwhile.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any, Protocol

from skate.exceptions import ObjectLostError
from skate.runtime.store.client import NotHereError
from skate.runtime.wire.messages import LocateObject
from skate.runtime.worker.cells import PENDING, STORED
from skate.runtime.worker.objects import follow
from skate.runtime.worker.pump import Answer
from skate.serialization import deserialize

if TYPE_CHECKING:
    from skate.runtime.worker.cells import Cell, StoredObject
    from skate.runtime.worker.core import Core

#: What ``value_soon`` returns when it has to be called again.
NOT_YET: Any = object()


class Asker(Protocol):
    """Who wants a value."""

    #: What was asked about a stored value that is not here.
    located: Located | None

    def listen(self) -> None:
        """Locked.  It will be told."""

    def on_ready(self, source: Any) -> None:
        """Locked.  Call ``value_soon`` again, but not from here."""


class Located(Answer):
    """The daemon's answer to the question where a stored value is."""

    __slots__ = ("_asker", "handle")

    def __init__(self, asker: Asker, handle: StoredObject) -> None:
        super().__init__()
        self._asker = asker
        self.handle = handle

    def on_ready(self, _cell: object = None) -> None:
        """Locked.  The answer is there, or never will be."""
        self._asker.on_ready(self)

    def follow(self, core: Core, object_id: bytes) -> None:
        """Look where it says; see ``objects.follow``."""
        if self.message is None:
            raise core.ended
        follow(object_id, self.handle, self.message)


def value_soon(core: Core, cell: Cell, asker: Asker) -> Any:
    """Return the value of a cell, or raise its exception; ``NOT_YET`` if the asker will be told.

    Raises:
        ObjectStoreFullError: there is no room for it on this node.
        SessionError: the session has ended.
    """
    while True:
        status = cell.status
        if status == STORED:
            handle = cell.handle
            if handle is None:
                continue  # another thread has just found that it is lost
            located, asker.located = asker.located, None
            try:
                if located is not None and located.handle is handle:
                    located.follow(core, cell.object_id)
                view = core.objects.store.open(handle.location, cell.object_id, (cell, handle))
            except ObjectLostError as error:
                core.objects.report_lost(cell, handle.location, str(error))
                continue
            except NotHereError:
                _bring(core, cell, handle, asker)
                return NOT_YET
            return deserialize(view)
        if status != PENDING:
            return core.objects.load(cell)
        with core.lock:
            if cell.status == PENDING:
                cell.listen(asker)
                asker.listen()
                core.objects.request_if_borrowed(cell)
                core.pump.expect()
                return NOT_YET


def _bring(core: Core, cell: Cell, handle: StoredObject, asker: Asker) -> None:
    location = handle.location
    located = asker.located = Located(asker, handle)
    with core.lock:
        asker.listen()
    core.ask_soon(lambda number: LocateObject(number, cell.object_id, location), located)


class _Promise:
    """Completes a ``concurrent.futures.Future``, outside of the lock."""

    __slots__ = ("_cell", "_core", "future", "located")

    def __init__(self, core: Core, cell: Cell) -> None:
        self._core = core
        self._cell = cell
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.located: Located | None = None

    def listen(self) -> None:
        """Nothing to count."""

    def on_ready(self, _source: Any) -> None:
        self._core.pump.callbacks.append(self.deliver)

    def deliver(self) -> None:
        """Complete the future if the value is here; otherwise have it brought."""
        future = self.future
        if future.cancelled():
            return
        try:
            value = value_soon(self._core, self._cell, self)
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        if value is not NOT_YET and future.set_running_or_notify_cancel():
            future.set_result(value)


def future_of(core: Core, cell: Cell) -> concurrent.futures.Future[Any]:
    """Return a future of a cell's value, without waiting for it."""
    promise = _Promise(core, cell)
    promise.deliver()
    return promise.future
