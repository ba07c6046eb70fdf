"""What ``Tuner.fit`` returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skate.tune.analysis import best_trial, reports_table, resolve_objective, results_table
from skate.tune.experiment import Experiment
from skate.tune.trial import Trial

if TYPE_CHECKING:
    import pandas


class Result:
    """What became of one trial.

    Attributes:
        metrics: its last result; None if it has none.
        error: the exception it failed with.
        path: the folder with its files.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.metrics: dict[str, Any] | None = trial.last_result if trial.iterations else None
        self.error = trial.error
        self.path = trial.path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        return self._trial.config

    @property
    def metrics_dataframe(self) -> pandas.DataFrame:
        """The numbers of all reports, one row each."""
        return reports_table(self._trial)

    def __repr__(self) -> str:
        shown = {k: v for k, v in (self.metrics or {}).items() if k != "config"}
        return f"Result(config={self.config}, metrics={shown}, error={self.error!r})"


class ResultGrid:
    """The results of all trials of a run; a sequence of ``Result``."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @property
    def experiment_path(self) -> str:
        """The folder of the run."""
        return str(self.experiment.path)

    @property
    def errors(self) -> list[BaseException]:
        """The exceptions of the trials that failed."""
        return [trial.error for trial in self.experiment.failed if trial.error is not None]

    @property
    def num_errors(self) -> int:
        """How many trials failed."""
        return len(self.experiment.failed)

    @property
    def num_terminated(self) -> int:
        """How many trials ended without an error."""
        return sum(t.status == Trial.TERMINATED for t in self.experiment.trials)

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """Return the result of the best trial.

        Args:
            metric: what to compare; defaults to the run's.
            mode: "min" or "max"; defaults to the run's.
            scope: which reports count: "last", "all" (the best), "avg", "last-5-avg" or
                "last-10-avg".
            filter_nan_and_inf: leave trials without a finite number out.

        Raises:
            RuntimeError: no trial has a number to compare.
        """
        metric, mode = resolve_objective(self.experiment.objective, metric, mode)
        trial = best_trial(self.experiment.trials, metric, mode, scope, filter_nan_and_inf)
        if trial is None:
            first = f"; the first error: {self.errors[0]}" if self.errors else ""
            raise RuntimeError(f"no trial reported a finite {metric!r}{first}")
        return Result(trial)

    def get_dataframe(
        self, filter_metric: str | None = None, filter_mode: str | None = None
    ) -> pandas.DataFrame:
        """Return one row per trial: its last report, or the best one by ``filter_metric``."""
        return results_table(self.experiment.trials, filter_metric, filter_mode)

    def save_learning_curves(self, path: str | os.PathLike[str], metric: str | None = None) -> None:
        """Draw the learning curves of all trials as a PNG."""
        from skate.tune.plots import save_learning_curves

        save_learning_curves(self, path, metric)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page about the run."""
        from skate.tune.html_report import save_report

        save_report(self, path)

    def __len__(self) -> int:
        return len(self.experiment.trials)

    def __getitem__(self, index: int) -> Result:
        return Result(self.experiment.trials[index])

    def __iter__(self) -> Iterator[Result]:
        return (Result(trial) for trial in self.experiment.trials)

    def __repr__(self) -> str:
        return f"ResultGrid({self.experiment.name!r}, {len(self)} trials, {self.num_errors} errors)"
