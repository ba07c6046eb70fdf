"""Shows how far a training is: data that is loaded, rounds, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

#: Seconds between two lines.
PERIOD_S = 5.0


class ProgressLines:
    """Prints a line now and then, for trainings that last.

    Args:
        verbose: whether at all; None: if standard output is a terminal.
        num_actors: how many there are.
        rounds: how many rounds are to be trained.
        clock: seconds.
    """

    def __init__(
        self,
        verbose: bool | None,
        num_actors: int,
        rounds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown = sys.stdout.isatty() if verbose is None else verbose
        self._num_actors = num_actors
        self._rounds = rounds
        self._clock = clock
        self._last = clock()
        self._began: tuple[float, int] | None = None

    def loading(self, loaded: int) -> None:
        """Tell how many actors have loaded."""
        self._began = None
        if self._is_due():
            print(f"xgboost: {loaded} of {self._num_actors} actors have loaded", flush=True)

    def training(self, done: int, actors: int) -> None:
        """Tell how many rounds are done, and by how many actors."""
        if self._began is None:
            self._began = (self._clock(), done)
        if not self._is_due():
            return
        began, first = self._began
        line = f"xgboost: {done} of {self._rounds} rounds"
        if done > first:
            each = (self._clock() - began) / (done - first)
            line += f", {each:.2g} s each, about {each * (self._rounds - done):.0f} s to go"
        if actors < self._num_actors:
            line += f", {actors} of {self._num_actors} actors"
        print(line, flush=True)

    def _is_due(self) -> bool:
        now = self._clock()
        if not self._shown or now - self._last < PERIOD_S:
            return False
        self._last = now
        return True
