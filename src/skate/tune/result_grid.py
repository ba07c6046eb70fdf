"""What ``Tuner.fit`` returns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.analysis import (
    as_checkpoint,
    best_record,
    best_trial,
    filesystem,
    reports_table,
    resolve_objective,
    results_table,
)
from skate.tune.checkpoint import Checkpoint
from skate.tune.finished_run import FinishedRun
from skate.tune.trial import Trial, TrialCheckpoint

if TYPE_CHECKING:
    import pandas

    from skate.tune.experiment_analysis import ExperimentAnalysis


class Result:
    """What became of one trial.

    Attributes:
        metrics: its last result; None if it has none.
        error: the exception it failed with.
        path: the folder with its files.
    """

    def __init__(self, trial: Trial, checkpoints: Sequence[TrialCheckpoint] = ()) -> None:
        self._trial = trial
        self._checkpoints = list(checkpoints)
        self.metrics: dict[str, Any] | None = trial.last_result if trial.iterations else None
        self.error = trial.error
        self.path = trial.path

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], storage_filesystem: object = None) -> Result:
        """Return what the folder of a trial says.

        Args:
            path: the folder, or its URL.
            storage_filesystem: for Ray's sake; only the local one is there.

        Raises:
            TuneError: no trial left its files there.
            StorageError: the URL cannot be read.
        """
        from skate.tune.run_places import load_trial

        return cls(*load_trial(path))

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that was kept; None if there is none."""
        return as_checkpoint(self._checkpoints[-1]) if self._checkpoints else None

    @property
    def best_checkpoints(self) -> list[tuple[Checkpoint, dict[str, Any]]]:
        """All checkpoints that were kept, oldest first, each with the result it came with."""
        return [(as_checkpoint(record), record.metrics) for record in self._checkpoints]

    def get_best_checkpoint(self, metric: str, mode: str) -> Checkpoint | None:
        """Return the checkpoint that came with the best ``metric``; None if none was kept.

        Args:
            metric: what to compare; nested ones by path ("valid/loss").
            mode: "min" or "max".

        Raises:
            ValueError: no such mode.
            RuntimeError: none of the checkpoints came with such a number.
        """
        best = best_record(self._checkpoints, metric, mode)
        if best is None and self._checkpoints:
            names = sorted({name for record in self._checkpoints for name in record.metrics})
            raise RuntimeError(f"no checkpoint came with {metric!r}; they have: {', '.join(names)}")
        return None if best is None else as_checkpoint(best)

    @property
    def filesystem(self) -> Any:
        """The file system that ``path`` is on, as one of pyarrow."""
        return filesystem()

    @property
    def log_dir(self) -> Path | None:
        """What older scripts call ``path``."""
        return self._trial.local_path

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

    def __init__(self, experiment: FinishedRun | ExperimentAnalysis) -> None:
        # Ray's is made from an ExperimentAnalysis.
        self.experiment = (
            experiment if isinstance(experiment, FinishedRun) else experiment.experiment
        )

    @property
    def filesystem(self) -> Any:
        """The file system that the results are on, as one of pyarrow."""
        return filesystem()

    @property
    def experiment_path(self) -> str:
        """The folder of the run, or its URL."""
        return self.experiment.place or str(self.experiment.path)

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
        return self._result(trial)

    def get_dataframe(
        self, filter_metric: str | None = None, filter_mode: str | None = None
    ) -> pandas.DataFrame:
        """Return one row per trial: its last report, or the best one by ``filter_metric``."""
        return results_table(self.experiment.trials, filter_metric, filter_mode)

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

    def __len__(self) -> int:
        return len(self.experiment.trials)

    def __getitem__(self, index: int) -> Result:
        return self._result(self.experiment.trials[index])

    def __iter__(self) -> Iterator[Result]:
        return (self._result(trial) for trial in self.experiment.trials)

    def _result(self, trial: Trial) -> Result:
        return Result(trial, self.experiment.checkpoints.get(trial.trial_id, ()))

    def __repr__(self) -> str:
        return f"ResultGrid({self.experiment.name!r}, {len(self)} trials, {self.num_errors} errors)"
