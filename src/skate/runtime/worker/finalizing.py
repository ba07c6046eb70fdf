"""Signals that meet a finalizer, of Skate's or of Python's import system.

What is raised in a finalizer Python prints and drops, and the rest of the finalizer with it: Ctrl-C
would do nothing, and an object would never be freed.  Where modules are imported there are
finalizers too, and more: raised between taking and releasing the interpreter's import lock, an
exception leaves it taken for ever.  Such a signal is sent again a little later.
"""

from __future__ import annotations

import _thread
import signal
import time
from types import FrameType

from skate.runtime.worker import importing
from skate.runtime.worker.own_code import PACKAGE

#: Seconds after which the signal comes again.
AGAIN_SECONDS = 0.001
#: Frames below which no finalizer of ours begins.
MOST_FRAMES = 16


def is_inside(frame: FrameType | None) -> bool:
    """Whether a finalizer of ours is among the innermost frames, or the innermost one imports."""
    if frame is not None and importing.is_part(frame.f_code):
        return True
    for _ in range(MOST_FRAMES):
        if frame is None:
            return False
        code = frame.f_code
        if code.co_name == "__del__" and code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def signal_again(thread: int | None, signum: int, seconds: float = AGAIN_SECONDS) -> None:
    """Send a signal to a thread, by its identifier, when what it met has had time to end."""

    def send() -> None:
        time.sleep(seconds)
        if thread is not None:
            signal.pthread_kill(thread, signum)

    # Not with ``threading``, whose locks the finalizer may have found held.
    _thread.start_new_thread(send, ())
