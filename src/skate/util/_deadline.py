"""How long is left of a timeout."""

from __future__ import annotations

import time


class Deadline:
    """The end of a wait that has several parts."""

    def __init__(self, timeout: float | None) -> None:
        #: None: the wait has no end.
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return how many seconds are left, at least 0; None: any number."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())
