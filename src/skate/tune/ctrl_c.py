"""Ctrl-C during a run: it arrives where the run waits, so that nothing is left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class CtrlC:
    """A context in which the first SIGINT is kept until ``waiting``; the second is not.

    What the handler did that was installed before happens then: mostly it raises
    ``KeyboardInterrupt``.  In threads other than the main one this does nothing, as no signal gets
    there; nor does it where SIGINT is ignored.
    """

    def __init__(self) -> None:
        self._previous: Any = None
        self._is_first = True
        self._waits = False
        self._kept = False

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_exception: object) -> None:
        # Not if somebody has installed another one meanwhile.
        if self._previous is not None and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, self._previous)
            if self._kept:
                signal.raise_signal(signal.SIGINT)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let it in."""
        self._waits = True
        try:
            if self._kept:
                signal.raise_signal(signal.SIGINT)
            yield
        finally:
            self._waits = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_first and not self._waits:
            self._is_first = False
            self._kept = True
            return
        self._is_first = self._kept = False
        self._previous(number, frame)
