"""Standstill of a run as a criterion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper, reported
from skate.tune.trial import as_float


class ExperimentPlateauStopper(Stopper):
    """Stops the run when the best values of all trials hardly differ any more.

    Args:
        metric: what to look at.
        std: they hardly differ if their standard deviation is at most this.
        top: how many of the best values are looked at.
        mode: "min" or "max": which are the best.
        patience: for how many results in a row that has to be so, beyond the first.

    Raises:
        ValueError: the arguments make no sense.
    """

    def __init__(
        self,
        metric: str,
        std: float = 0.001,
        top: int = 10,
        mode: str = "min",
        patience: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode has to be 'min' or 'max', got {mode!r}")
        if top < 2:
            raise ValueError(f"top has to be at least 2, got {top}")
        if patience < 0:
            raise ValueError(f"patience has to be at least 0, got {patience}")
        if std <= 0:
            raise ValueError(f"std has to be above 0, got {std}")
        self.metric = metric
        self.std = std
        self.top = top
        self.mode = mode
        self.patience = patience
        #: Best first.
        self._best: list[float] = []
        #: For how many results in a row nothing has moved.
        self._still = 0

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Look at the best values.

        Raises:
            MetricError: the metric is not reported.
        """
        value = as_float(reported("ExperimentPlateauStopper", self.metric, result))
        if math.isfinite(value):  # what a diverged trial reports is none of the best
            self._best = sorted([*self._best, value], reverse=self.mode == "max")[: self.top]
        self._still = self._still + 1 if self.has_plateaued() else 0
        return self.stop_all()

    def has_plateaued(self) -> bool:
        """Say whether the best values hardly differ."""
        return len(self._best) == self.top and statistics.pstdev(self._best) <= self.std

    def stop_all(self) -> bool:
        """Say whether that has been so for long enough."""
        return self.has_plateaued() and self._still >= self.patience

    def gate(self) -> Gate:
        """Never: the end of the run takes trials wherever they are."""
        return {}
