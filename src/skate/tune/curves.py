"""Learning curves as data: what the pictures of a run are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from skate.tune.analysis import best_trial, resolve_objective
from skate.tune.finished_run import FinishedRun
from skate.tune.trial import Trial

if TYPE_CHECKING:
    from skate.tune.experiment_analysis import ExperimentAnalysis
    from skate.tune.result_grid import ResultGrid

#: What pictures and pages can be made of.
Results: TypeAlias = "ExperimentAnalysis | ResultGrid"


@dataclass(slots=True)
class Curve:
    """The metric of one trial over its iterations; reports without a finite number are left out."""

    trial: Trial
    iterations: list[float]
    values: list[float]
    #: "best", "completed", "stopped" (early), "failed" or "running" (or paused).
    kind: str

    @property
    def end(self) -> str:
        """The same, but also the best trial ended in one of the other ways."""
        if self.kind != "best":
            return self.kind
        return _end(self.trial)


@dataclass(slots=True)
class Curves:
    """All curves of a run, and what they show."""

    metric: str
    mode: str
    curves: list[Curve]

    def of(self, kind: str) -> list[Curve]:
        """Return the curves of one kind."""
        return [curve for curve in self.curves if curve.kind == kind]

    @property
    def longest(self) -> int:
        """The largest number of points of any curve."""
        return max((len(curve.values) for curve in self.curves), default=0)


def learning_curves(experiment: FinishedRun, metric: str | None = None) -> Curves:
    """Return the curves of all trials that reported.

    Raises:
        ValueError: there is no metric to draw.
        MetricError: no trial reported this metric.
    """
    name, mode = resolve_objective(experiment.objective, metric, None)
    best = best_trial(experiment.trials, name, mode)
    curves = [_curve(trial, name, trial is best) for trial in experiment.trials]
    return Curves(name, mode, [curve for curve in curves if curve.values])


def _curve(trial: Trial, metric: str, is_best: bool) -> Curve:
    iterations = trial.history.column("training_iteration")
    values = trial.history.column(metric)
    pairs = [
        (iteration, value)
        for iteration, value in zip(iterations, values, strict=True)
        if math.isfinite(value)
    ]
    kind = "best" if is_best else _end(trial)
    return Curve(trial, [p[0] for p in pairs], [p[1] for p in pairs], kind)


def _end(trial: Trial) -> str:
    if trial.early_stopped:
        return "stopped"
    if trial.status == Trial.ERROR:
        return "failed"
    return "completed" if trial.status == Trial.TERMINATED else "running"


def value_limits(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Return an interval of values worth drawing.

    A few trials that diverge would otherwise flatten all others: the interval ends where it is
    several times as wide as the middle four fifths of the values.  None if nothing is cut off.
    """
    return worth_drawing([value for curve in curves for value in curve.values])


def worth_drawing(values: Sequence[float]) -> tuple[float, float] | None:
    """Return an interval of numbers as ``value_limits`` does."""
    values = sorted(values)
    if len(values) < 20:
        return None
    low, high = values[len(values) // 10], values[-1 - len(values) // 10]
    reach = 2 * (high - low)
    if reach <= 0:
        return None
    bottom, top = max(values[0], low - reach), min(values[-1], high + reach)
    if bottom == values[0] and top == values[-1]:
        return None
    margin = 0.03 * (top - bottom)
    return bottom - margin, top + margin
