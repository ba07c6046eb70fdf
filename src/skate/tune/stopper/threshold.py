"""Thresholds of metrics as criteria."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper, reported


class ThresholdStopper(Stopper):
    """Stops a trial when a metric is at least as large as its threshold: ``stop={"acc": 0.9}``.

    Raises:
        TypeError: a threshold is no number.
    """

    def __init__(self, thresholds: Mapping[str, Any]) -> None:
        for name, bound in thresholds.items():
            if not isinstance(bound, Real):
                hint = ""
                if isinstance(bound, Mapping) and bound:
                    hint = f"; nested metrics are named by path: {name}/{next(iter(bound))}"
                raise TypeError(
                    f"stop: the threshold of {name!r} has to be a number, got {bound!r}{hint}"
                )
        self.thresholds = {name: float(bound) for name, bound in thresholds.items()}

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Compare with the thresholds.

        Raises:
            MetricError: a metric of the thresholds is not reported.
        """
        what = f"stop={self.thresholds!r}"
        values = {name: reported(what, name, result) for name in self.thresholds}
        return any(values[name] >= bound for name, bound in self.thresholds.items())

    def gate(self) -> Gate:
        """The thresholds."""
        return self.thresholds
