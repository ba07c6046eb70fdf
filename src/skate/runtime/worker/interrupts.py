"""Interrupting calls that run in threads.

Signals reach the main thread alone.  For others Python has ``PyThreadState_SetAsyncExc``: the
thread raises the exception at the next bytecode that looks for one (calls, jumps back), wherever it
is by then.  Raised inside Skate it would leave locks held and messages half handled, and raised
after the call's end it would hit the next call.  So

- it is only set while the innermost frame of the thread is the user's own (``_raise_in``).  Then
  the thread raises there, or where that frame next calls something: at its first instruction;
- a thread that waits inside Skate is woken and raises at the end of its wait; one that is in Skate
  for other reasons is looked at again a little later;
- a call is interrupted once, and what has not been raised when it ends is taken back
  (``ThreadedCall.shield``).
"""

from __future__ import annotations

import ctypes
import itertools
import operator
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, TypeVar

from skate.runtime.worker import importing
from skate.runtime.worker.invoke import Invoker, Running
from skate.runtime.worker.own_code import PACKAGE
from skate.runtime.worker.producer import Producers

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer
    from skate.runtime.worker.pump import Waiter

T = TypeVar("T")

#: Seconds until a thread that could not be interrupted is looked at again, at first and at most.
FIRST_DELAY = 0.001
LONGEST_DELAY = 0.02

#: Prototypes of our own: those of ``ctypes.pythonapi`` belong to everybody in the process.  They
#: keep the interpreter, as functions of its own have to.
_SET = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_set_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_SET)
_clear_exception = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_SET)
#: No thread has this identifier; threads that are about to start may have 0.
_NOBODY = ctypes.c_ulong(-1).value

#: Code of ours that must not be torn; the libraries are like user code.
_CORE_PARTS = frozenset(("api", "engine", "runtime"))
#: Who calls the user's code.
_CALLERS = frozenset((Invoker.call.__code__, Producers.run.__code__))


def _is_core(code: CodeType) -> bool:
    path = code.co_filename
    if not path.startswith(PACKAGE):
        return False
    part, separator, _ = path[len(PACKAGE) :].partition(os.sep)
    return not separator or part in _CORE_PARTS


def _runs_user_code(frame: FrameType) -> bool:
    """Whether the innermost frame of a thread is the user's, and so is all below it in the call.

    Not while it imports: see ``importing``.
    """
    outer: FrameType | None = frame
    while outer is not None and not _is_core(outer.f_code):
        if importing.is_part(outer.f_code):
            return False
        outer = outer.f_back
    return outer is not None and outer is not frame and outer.f_code in _CALLERS


def _raise_in(ident: int, frame: FrameType) -> bool:
    """Have a thread raise ``KeyboardInterrupt`` if its innermost frame is still ``frame``.

    Between the look and the deed no other thread may run, so both are one call of C functions,
    without a bytecode of ours in between.
    """
    innermost = map(operator.itemgetter(ident), iter(sys._current_frames, None))
    target = map({frame: ident}.get, innermost, itertools.repeat(_NOBODY))
    return bool(next(map(_set_exception, target, itertools.repeat(KeyboardInterrupt))))


class ThreadedCall(Running):
    """A call in a thread of its own, and what it takes to interrupt it.

    ``want`` is called by any thread, with the core's lock held; all else by the call's own.  Each
    side writes its flag before it reads the other's (``_open``, ``wanted``), so that one of them
    sees that they have met, and the usual call takes no lock.
    """

    __slots__ = ("_core", "_open", "_sent", "_waiter", "wanted")

    def __init__(self, core: Core, task: Task, peer: Peer) -> None:
        Running.__init__(self, task, peer, ())
        self._core = core
        #: Whether it runs.
        self._open = False
        #: Somebody wants it to end.
        self.wanted = False
        #: The exception is on its way, or was raised.
        self._sent = False
        #: What it waits for inside Skate.
        self._waiter: Waiter | None = None

    def want(self) -> None:
        """Locked.  Interrupt the call as soon as that is possible, or have it not start."""
        if not self.wanted:
            self.wanted = True
            self._attempt(FIRST_DELAY)

    def _attempt(self, delay: float) -> None:
        """Locked.  Try, and again after ``delay`` seconds if it was not possible."""
        if not self._open or self._sent:
            return
        if self._waiter is not None:
            self._waiter.wake()
            self._core.pump.wake()
        else:
            frame = sys._current_frames().get(self.thread)
            if frame is not None and _runs_user_code(frame):
                self._sent = _raise_in(self.thread, frame)
        if not self._sent:
            later = min(2 * delay, LONGEST_DELAY)
            self._core.pump.call_later(delay, lambda: self._attempt(later))

    # ------------------------------------------------------------------ the call's thread

    def begin(self) -> bool:
        """The call is about to start; False: it must not, because it was cancelled before."""
        self.thread = threading.get_ident()
        self._open = True
        if self.wanted:
            self._open = False
        return self._open

    def shield(self, call: Callable[[ThreadedCall, Peer], T], peer: Peer) -> T:
        """Return ``call(self, peer)``; after that no interruption comes any more.

        It may come at any bytecode before, even in here, but only once: if it tears the first
        ``_close`` the second is not torn.
        """
        try:
            result = call(self, peer)
            self._close()
            return result
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self._open = False
        if self.wanted:
            with self._core.lock:
                _clear_exception(self.thread, None)

    def begin_wait(self, waiter: Waiter) -> Waiter | None:
        """The thread is about to wait; return what it waits for already, in an outer frame."""
        outer, self._waiter = self._waiter, waiter
        return outer

    def watched(self, step: Callable[[], bool] | None) -> Callable[[], bool]:
        """Return a ``step`` for ``Pump.block`` that ends the wait when the call has to end."""
        return lambda: self.wanted or (step is not None and step())

    def end_wait(self, outer: Waiter | None) -> None:
        """It goes on."""
        self._waiter = outer

    def raise_if_wanted(self) -> None:
        """Raise it here, where that breaks nothing."""
        if self.wanted and not self._sent:
            self._sent = True
            raise KeyboardInterrupt
