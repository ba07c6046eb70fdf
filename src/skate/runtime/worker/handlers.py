"""Handlers of signals: the user's own, which tend to raise.

Python calls them between any two bytecodes of the main thread: a time limit on SIGALRM, or
``sys.exit`` on SIGTERM, would be raised where that thread holds the lock, and a request for a
worker that is noted but not sent is never answered.  Blocking the signals in that thread would not
help: the kernel then gives them to another one, and Python calls the handler in the main thread all
the same.  So a handler is replaced by one that calls it where that breaks nothing.

SIGINT has its own way: asyncio and others compare its handler with theirs before they put it back.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stubs for it
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from skate.runtime.worker.pump import Pump

#: Without the conversions to and from enumerations, which take 25 times as long.
getsignal: Callable[[int], object] = _signal.getsignal
#: Its handler is looked at before each request; those of the others when it has changed, or when
#: the main thread waits.
SIGALRM = int(signal.SIGALRM)
WATCHED = (
    SIGALRM,
    int(signal.SIGVTALRM),
    int(signal.SIGPROF),
    int(signal.SIGUSR1),
    int(signal.SIGUSR2),
    int(signal.SIGTERM),
    int(signal.SIGHUP),
)


def raise_keyboard_interrupt() -> NoReturn:
    """What Ctrl-C and a cancellation do."""
    raise KeyboardInterrupt


class DeferredHandler:
    """Calls the user's handler of a signal where what it raises breaks nothing."""

    __slots__ = ("handler", "pump")

    def __init__(self, pump: Pump, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.pump = pump
        self.handler = handler

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle the signal, now or at the next safe point."""
        if self.pump.closed:
            self.handler(signum, frame)
        else:
            self.pump.interrupt(signum, frame, partial(self.handler, signum, frame))


class UserHandlers:
    """Replaces the user's handlers as they appear."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        #: Of SIGALRM, when last looked at.
        self.alarm: object = None

    def adopt(self) -> None:
        """Look at all of them; only the main thread can replace any."""
        if threading.get_ident() != self._pump.main or self._pump.closed:
            return
        for signum in WATCHED:
            handler = getsignal(signum)
            if isinstance(handler, DeferredHandler):
                if handler.pump is self._pump:
                    continue
                # Of an earlier session, put back by whoever had replaced it.
                handler = handler.handler
            if callable(handler):
                signal.signal(signum, DeferredHandler(self._pump, handler))
        self.alarm = getsignal(SIGALRM)

    def give_back(self) -> None:
        """The session ends: the handlers are the user's again."""
        if threading.get_ident() != self._pump.main:
            return
        for signum in WATCHED:
            handler = getsignal(signum)
            if isinstance(handler, DeferredHandler) and handler.pump is self._pump:
                signal.signal(signum, handler.handler)
