"""What ``tune.run`` returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.analysis import (
    as_checkpoint,
    best_record,
    best_trial,
    import_pandas,
    last_results_table,
    reports_table,
    resolve_objective,
    results_table,
)
from skate.tune.checkpoint import Checkpoint
from skate.tune.finished_run import FinishedRun
from skate.tune.objective import Objective
from skate.tune.search.space import flatten
from skate.tune.trial import Trial, TrialCheckpoint, flat_result

if TYPE_CHECKING:
    import pandas


class ExperimentAnalysis:
    """The trials of a run and what they reached.

    Methods that compare trials take ``metric`` and ``mode``; they default to those of the run.
    ``scope`` says which reports of a trial count: "last", "all" (its best), "avg", "last-5-avg" or
    "last-10-avg".

    Args:
        experiment: a run, or the folder or the URL of one.
        trials: only these of its trials.
        default_metric: what to compare; the run's if None.
        default_mode: "min" or "max"; the run's if None.
        storage_filesystem: for Ray's sake; only the local one is there.

    Raises:
        TuneError: there is no run in the folder.
        StorageError: the URL cannot be read.
        ValueError: no such mode.
    """

    def __init__(
        self,
        experiment: FinishedRun | str | os.PathLike[str],
        *,
        trials: Sequence[Trial] | None = None,
        default_metric: str | None = None,
        default_mode: str | None = None,
        storage_filesystem: object = None,
    ) -> None:
        if not isinstance(experiment, FinishedRun):
            from skate.tune.run_places import load

            experiment = load(experiment)
        if default_metric is not None or default_mode is not None:
            objective = resolve_objective(experiment.objective, default_metric, default_mode)
            experiment = replace(experiment, objective=Objective(*objective))
        if trials is not None:
            experiment = replace(experiment, trials=list(trials))
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
        """The folder of the run, or its URL."""
        return self.experiment.place or str(self.experiment.path)

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
        return last_results_table([] if trial is None else [trial])

    @property
    def best_dataframe(self) -> pandas.DataFrame:
        """All reports of the best trial."""
        trial = self.get_best_trial()
        return import_pandas().DataFrame() if trial is None else reports_table(trial)

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """The best checkpoint of the best trial."""
        trial = self.get_best_trial()
        return None if trial is None else self.get_best_checkpoint(trial)

    @property
    def results_df(self) -> pandas.DataFrame:
        """The last result of each trial, flat and with its configuration, by trial id."""
        return last_results_table(self.trials)

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

    def get_best_checkpoint(
        self, trial: Trial, metric: str | None = None, mode: str | None = None
    ) -> Checkpoint | None:
        """Return the checkpoint of a trial that came with the best ``metric``.

        None if the trial has none that came with such a number.
        """
        metric, mode = resolve_objective(self.experiment.objective, metric, mode)
        best = best_record(self._records(trial), metric, mode)
        return None if best is None else as_checkpoint(best)

    def get_last_checkpoint(
        self, trial: Trial | None = None, metric: str = "training_iteration", mode: str = "max"
    ) -> Checkpoint | None:
        """Return the newest checkpoint of a trial; None if it has none.

        Args:
            trial: which; if None, the best one by ``metric`` and ``mode``.
            metric: for choosing the trial.
            mode: "min" or "max".
        """
        trial = trial or self.get_best_trial(metric, mode)
        records = [] if trial is None else self._records(trial)
        return as_checkpoint(records[-1]) if records else None

    def get_trial_checkpoints_paths(
        self, trial: Trial, metric: str | None = None
    ) -> list[tuple[str, float | None]]:
        """Return the folder of each checkpoint of a trial, and the metric it came with."""
        metric = metric or self.experiment.objective.metric or "training_iteration"
        return [
            (record.path, flat_result(record.metrics).get(metric))
            for record in self._records(trial)
            if record.path is not None
        ]

    def get_all_configs(self, prefix: bool = False) -> dict[str, dict[str, Any]]:
        """Return the configuration of each trial, by trial id.

        Args:
            prefix: whether they are flat, with names that begin with ``config/``.
        """
        return {
            trial.trial_id: flatten(trial.config, "config") if prefix else trial.config
            for trial in self.trials
        }

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

    def save_plots(self, folder: str | os.PathLike[str], metric: str | None = None) -> list[Path]:
        """Draw all there is to draw, each picture as a PNG in ``folder``; return the files."""
        from skate.tune.plots import save_plots

        return save_plots(self, folder, metric)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page about the run."""
        from skate.tune.html_report import save_report

        save_report(self, path)

    def _records(self, trial: Trial) -> Sequence[TrialCheckpoint]:
        return self.experiment.checkpoints.get(trial.trial_id, ())

    def __repr__(self) -> str:
        return f"ExperimentAnalysis({self.experiment.name!r}, {len(self.trials)} trials)"
