"""A number of results as a criterion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper


class MaximumIterationStopper(Stopper):
    """Stops each trial with its ``max_iter``-th result.

    Raises:
        ValueError: ``max_iter`` is below 1.
    """

    def __init__(self, max_iter: int) -> None:
        if max_iter < 1:
            raise ValueError(f"max_iter has to be at least 1, got {max_iter}")
        self.max_iter = max_iter
        self._results: dict[str, int] = {}

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Count."""
        count = self._results[trial_id] = self._results.get(trial_id, 0) + 1
        return count >= self.max_iter

    def gate(self) -> Gate:
        """The last result, by the count that every result has."""
        # Trials that count in their own way, in larger steps, wait earlier than they would have to;
        # where they count in smaller ones, what they report too much is dropped.
        return {"training_iteration": self.max_iter}

    def on_trial_restore(self, trial_id: str, results: int) -> None:
        """Count on from there."""
        self._results[trial_id] = results
