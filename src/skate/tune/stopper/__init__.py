"""Stoppers: what ends a trial that no scheduler minds, and what ends a run."""

from __future__ import annotations

from collections.abc import Mapping

from skate.tune.stopper.experiment_plateau import ExperimentPlateauStopper
from skate.tune.stopper.function_stopper import FunctionStopper
from skate.tune.stopper.maximum_iteration import MaximumIterationStopper
from skate.tune.stopper.noop import NoopStopper
from skate.tune.stopper.stopper import CombinedStopper, Stopper, merge
from skate.tune.stopper.threshold import ThresholdStopper
from skate.tune.stopper.timeout import TimeoutStopper
from skate.tune.stopper.trial_plateau import TrialPlateauStopper

__all__ = [
    "CombinedStopper",
    "ExperimentPlateauStopper",
    "FunctionStopper",
    "MaximumIterationStopper",
    "NoopStopper",
    "Stopper",
    "ThresholdStopper",
    "TimeoutStopper",
    "TrialPlateauStopper",
    "as_stopper",
    "merge",
]


def as_stopper(stop: object) -> Stopper:
    """Return what ``stop=`` stands for.

    Args:
        stop: None, a dict of thresholds, a function of trial id and result, a ``Stopper``, or a
            list of these, any of which ends a trial.

    Raises:
        TypeError: it is none of these.
        ValueError: it looks like a ``Stopper``, but is none.
    """
    if stop is None:
        return NoopStopper()
    if isinstance(stop, type) and issubclass(stop, Stopper):
        raise TypeError(f"stop: {stop.__name__} is a class; make one: {stop.__name__}(...)")
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        return ThresholdStopper(stop)
    if isinstance(stop, (list, tuple)):
        return CombinedStopper(*map(as_stopper, stop))
    if FunctionStopper.is_valid_function(stop):
        return FunctionStopper(stop)  # type: ignore[arg-type]  # callable, as was just found
    raise TypeError(f"stop wants a dict, a function or a Stopper, got {stop!r}")
