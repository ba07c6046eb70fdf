"""Refs in the order in which their values come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from skate.refs import ObjectRef
from skate.runtime.worker.arrivals import wait_for_next

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


class Completions:
    """Listens to many cells at once; see ``engine.base.Completions``."""

    __slots__ = ("_core", "_ready", "_waiting", "listeners", "status")

    def __init__(self, core: Core, refs: Sequence[ObjectRef[Any]]) -> None:
        self._core = core
        self._ready: deque[ObjectRef[Any]] = deque()
        self._waiting: dict[Any, ObjectRef[Any]] = {}
        #: Who waits for the next one; as in streams.
        self.listeners: list[Any] = []
        with core.lock:
            for ref in refs:
                cell = ref._cell
                if cell.status:
                    self._ready.append(ref)
                else:
                    self._waiting[cell] = ref
                    cell.listen(self)
                    core.objects.request_if_borrowed(cell)
            core.pump.nudge()
        self.status = 1 if self._ready else 0

    @property
    def waiting(self) -> Collection[Any]:
        """The cells that are not ready."""
        return self._waiting.keys()

    def on_ready(self, cell: Any) -> None:
        """Locked.  One more has its value."""
        ref = self._waiting.pop(cell, None)
        if ref is None:
            return
        self._ready.append(ref)
        self.status = 1
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener.on_ready(self)

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Wait for the next ref and return it; None if ``timeout`` seconds have passed."""
        core = self._core
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with core.lock:
                if self._ready:
                    return self._next()
            if not wait_for_next(core, self, deadline):
                return None

    async def take_soon(self) -> ObjectRef[Any]:
        """Do the same in an event loop, without a limit."""
        while True:
            with self._core.lock:
                if self._ready:
                    return self._next()
            await self._core.awaiting.stream(self)

    def _next(self) -> ObjectRef[Any]:
        ref = self._ready.popleft()
        self.status = 1 if self._ready else 0
        return ref

    def close(self) -> None:
        """Stop listening."""
        with self._core.lock:
            for cell in self._waiting:
                if cell.listeners is not None and self in cell.listeners:
                    cell.listeners.remove(self)
            self._waiting.clear()
            self._ready.clear()
