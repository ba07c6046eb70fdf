"""Standstill of a trial as a criterion."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from skate.tune.mode import check_mode
from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper, reported
from skate.tune.trial import as_float


class TrialPlateauStopper(Stopper):
    """Stops a trial whose last ``num_results`` values hardly differ any more.

    Args:
        metric: what to look at.
        std: they hardly differ if their standard deviation is below this.
        num_results: how many results are looked at.
        grace_period: no trial is stopped before so many results.
        metric_threshold: a trial is stopped only if its last value is at least as good as this.
        mode: "min" or "max": what is good, for ``metric_threshold``.

    Raises:
        ValueError: the arguments make no sense.
    """

    def __init__(
        self,
        metric: str,
        std: float = 0.01,
        num_results: int = 4,
        grace_period: int = 4,
        metric_threshold: float | None = None,
        mode: str | None = None,
    ) -> None:
        check_mode(mode)
        if metric_threshold is not None and mode is None:
            raise ValueError(
                "metric_threshold wants to know what is better; give mode='min' or 'max'"
            )
        if num_results < 1:
            raise ValueError(f"num_results has to be at least 1, got {num_results}")
        self.metric = metric
        self.std = std
        self.num_results = num_results
        self.grace_period = grace_period
        self.metric_threshold = metric_threshold
        self.mode = mode
        self._results: dict[str, int] = {}
        self._values: dict[str, deque[float]] = {}

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Look at the last values.

        Raises:
            MetricError: the metric is not reported.
        """
        value = as_float(reported("TrialPlateauStopper", self.metric, result))
        count = self._results[trial_id] = self._results.get(trial_id, 0) + 1
        values = self._values.setdefault(trial_id, deque(maxlen=self.num_results))
        values.append(value)
        if count < self.grace_period or len(values) < self.num_results:
            return False
        if self.metric_threshold is not None and not self._is_good(value):
            return False
        return all(map(math.isfinite, values)) and statistics.pstdev(values) < self.std

    def gate(self) -> Gate:
        """The first result with which a trial may stop; from there on every one."""
        return {"training_iteration": max(self.grace_period, self.num_results)}

    def on_trial_restore(self, trial_id: str, results: int) -> None:
        """Forget the values that came later."""
        values = self._values.get(trial_id, deque())
        for _ in range(min(len(values), self._results.get(trial_id, 0) - results)):
            values.pop()
        self._results[trial_id] = results

    def _is_good(self, value: float) -> bool:
        assert self.metric_threshold is not None
        if self.mode == "min":
            return value <= self.metric_threshold
        return value >= self.metric_threshold
