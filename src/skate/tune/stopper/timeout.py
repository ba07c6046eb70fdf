"""Time as a criterion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper


class TimeoutStopper(Stopper):
    """Stops the run after a while.

    The time counts from the first look at the run, not from its preparation, and only while it
    runs: a run that is resumed has what was left.

    Args:
        timeout: seconds, or a ``timedelta``.
        clock: what tells the time in seconds, for tests.

    Raises:
        TypeError: the timeout is neither.
        ValueError: it is below 0.
    """

    def __init__(
        self, timeout: float | timedelta, clock: Callable[[], float] = time.monotonic
    ) -> None:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"timeout wants seconds or a timedelta, got {timeout!r}")
        if seconds < 0:
            raise ValueError(f"timeout has to be at least 0 seconds, got {timeout!r}")
        self.left_s = float(seconds)
        self._clock = clock
        self._last_look: float | None = None

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Go on: the run as a whole is stopped, if at all."""
        return False

    def stop_all(self) -> bool:
        """Say whether the time is over."""
        now = self._clock()
        if self._last_look is not None:
            self.left_s -= now - self._last_look
        self._last_look = now
        return self.left_s <= 0

    def gate(self) -> Gate:
        """Never."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """Return how much time is left."""
        return {"left_s": self.left_s}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on with what was left; the time in between does not count."""
        self.left_s = state["left_s"]
        self._last_look = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last_look": None}
