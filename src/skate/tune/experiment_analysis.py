"""What ``tune.run`` returns."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from skate.tune.analysis import best_trial, reports_table, resolve_objective, results_table
from skate.tune.experiment import Experiment
from skate.tune.trial import Trial

if TYPE_CHECKING:
    import pandas


class ExperimentAnalysis:
    """The trials of a run and what they reached.

    Methods that compare trials take ``metric`` and ``mode``; they default to those of the run.
    ``scope`` says which reports of a trial count: "last", "all" (its best), "avg", "last-5-avg" or
    "last-10-avg".
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order of their creation."""
        return self.experiment.trials

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The last result of each trial, by trial id."""
        return {trial.trial_id: trial.last_result for trial in self.trials}

    @property
    def experiment_path(self) -> str:
        """The folder of the run."""
        return str(self.experiment.path)

    @property
    def default_metric(self) -> str | None:
        """The metric of the run."""
        return self.experiment.objective.metric

    @property
    def default_mode(self) -> str | None:
        """The mode of the run."""
        return self.experiment.objective.mode

    @property
    def best_trial(self) -> Trial | None:
        """The best trial by its last report."""
        return self.get_best_trial()

    @property
    def best_config(self) -> dict[str, Any] | None:
        """The configuration of the best trial."""
        return self.get_best_config()

    @property
    def best_result(self) -> dict[str, Any] | None:
        """The last result of the best trial."""
        trial = self.get_best_trial()
        return None if trial is None else trial.last_result

    @property
    def best_logdir(self) -> str | None:
        """The folder of the best trial."""
        return self.get_best_logdir()

    @property
    def best_result_df(self) -> pandas.DataFrame:
        """The last result of the best trial, as a table of one row."""
        trial = self.get_best_trial()
        return results_table([] if trial is None else [trial])

    @property
    def results_df(self) -> pandas.DataFrame:
        """The last result of each trial."""
        return self.dataframe()

    def get_best_trial(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Trial | None:
        """Return the best trial; None if no trial reported a finite number."""
        metric, mode = resolve_objective(self.experiment.objective, metric, mode)
        return best_trial(self.trials, metric, mode, scope, filter_nan_and_inf)

    def get_best_config(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> dict[str, Any] | None:
        """Return the configuration of the best trial."""
        trial = self.get_best_trial(metric, mode, scope)
        return None if trial is None else trial.config

    def get_best_logdir(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> str | None:
        """Return the folder of the best trial."""
        trial = self.get_best_trial(metric, mode, scope)
        return None if trial is None else trial.path

    def get_all_configs(self) -> dict[str, dict[str, Any]]:
        """Return the configuration of each trial, by trial id."""
        return {trial.trial_id: trial.config for trial in self.trials}

    def dataframe(self, metric: str | None = None, mode: str | None = None) -> pandas.DataFrame:
        """Return one row per trial: its last report, or with ``metric`` its best one."""
        return results_table(self.trials, metric, mode)

    @property
    def trial_dataframes(self) -> dict[str, pandas.DataFrame]:
        """All reports of each trial, by trial id."""
        return {trial.trial_id: reports_table(trial) for trial in self.trials}

    def save_learning_curves(self, path: str | os.PathLike[str], metric: str | None = None) -> None:
        """Draw the learning curves of all trials as a PNG."""
        from skate.tune.plots import save_learning_curves

        save_learning_curves(self, path, metric)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page about the run."""
        from skate.tune.html_report import save_report

        save_report(self, path)

    def __repr__(self) -> str:
        return f"ExperimentAnalysis({self.experiment.name!r}, {len(self.trials)} trials)"
