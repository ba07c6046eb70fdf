"""What ends a trial that no scheduler minds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from skate.tune.error import MetricError
from skate.tune.schedulers.trial_scheduler import Gate


class Stopper(ABC):
    """Decides after each result whether a trial has reached its end."""

    @abstractmethod
    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Say whether the trial stops."""

    def stop_all(self) -> bool:
        """Say whether the whole run stops."""
        return False

    def gate(self) -> Gate:
        """Return when a trial has to wait for the decision, as in ``TrialScheduler``."""
        return None


class NoStopper(Stopper):
    """Leaves trials alone."""

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Go on."""
        return False

    def gate(self) -> Gate:
        """Never."""
        return {}


class ThresholdStopper(Stopper):
    """Stops a trial when a metric is at least as large as its threshold: ``stop={"acc": 0.9}``."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        for name, bound in thresholds.items():
            if isinstance(bound, bool) or not isinstance(bound, (int, float)):
                raise TypeError(
                    f"stop: the threshold of {name!r} has to be a number, got {bound!r}"
                )
        self.thresholds = dict(thresholds)

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Compare with the thresholds.

        Raises:
            MetricError: a metric of the thresholds is not reported.
        """
        for name, bound in self.thresholds.items():
            value = result.get(name)
            if value is None:
                raise MetricError(
                    f"stop={self.thresholds!r} looks at {name!r}, which the trials do not report;"
                    f" reported: {', '.join(sorted(result))}"
                )
            if value >= bound:
                return True
        return False

    def gate(self) -> Gate:
        """The thresholds."""
        return self.thresholds


class FunctionStopper(Stopper):
    """Stops a trial when ``function(trial_id, result)`` returns something true."""

    def __init__(self, function: Callable[[str, Mapping[str, Any]], Any]) -> None:
        self.function = function

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Ask the function."""
        return bool(self.function(trial_id, result))


def as_stopper(stop: object) -> Stopper:
    """Return what ``stop=`` stands for: None, a dict of thresholds, a function or a ``Stopper``.

    Raises:
        TypeError: it is none of these.
    """
    if stop is None:
        return NoStopper()
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        return ThresholdStopper(stop)
    if callable(stop):
        return FunctionStopper(stop)
    raise TypeError(f"stop wants a dict, a function or a Stopper, got {stop!r}")


def merge(first: Gate, second: Gate) -> Gate:
    """Return the gate at which either of two would have a trial wait."""
    if first is None or second is None:
        return None
    merged = dict(first)
    for name, bound in second.items():
        merged[name] = min(bound, merged.get(name, bound))
    return merged
