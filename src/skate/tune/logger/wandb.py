"""Runs of Weights & Biases, one for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skate.tune.logger._base import LoggerCallback, numbers
from skate.tune.trial import Trial


class WandbLoggerCallback(LoggerCallback):
    """Logs each trial as a run of Weights & Biases, grouped by the run of Tune.

    All runs are written by the driver.  Without a network ``mode="offline"`` (or the environment
    variable ``WANDB_MODE=offline``) keeps them in a folder, to be sent with ``wandb sync``.

    Args:
        project: the project.
        group: the group; the name of the run of Tune if None.
        excludes: metrics that are not logged.
        log_config: whether the configuration is logged with each result.
        dir: where runs are kept; the trial's folder if None.
        kwargs: for ``wandb.init``: ``mode``, ``entity``, ``tags``, ...

    Raises:
        ImportError: wandb is not installed; it comes with ``skate[wandb]``.
    """

    def __init__(
        self,
        project: str | None = None,
        group: str | None = None,
        excludes: Sequence[str] = (),
        log_config: bool = False,
        dir: str | None = None,  # noqa: A002  # what wandb.init calls it
        **kwargs: Any,
    ) -> None:
        super().__init__()
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                "WandbLoggerCallback needs wandb: pip install 'skate[wandb]'"
            ) from error
        self._library = wandb
        self._project = project
        self._group = group
        self._excludes = frozenset(excludes)
        self._log_config = log_config
        self._dir = dir
        self._options = kwargs
        self._runs: dict[str, Any] = {}

    def setup(self, **info: Any) -> None:
        """Learn the name of the run."""
        self._group = self._group or info["name"]
        self._project = self._project or info["name"]

    def log_trial_start(self, trial: Trial) -> None:
        """Begin a run."""
        self._runs[trial.trial_id] = self._library.init(
            project=self._project,
            group=self._group,
            id=trial.trial_id,
            name=trial.trial_id,
            dir=self._dir or trial.path,
            config=trial.config,
            reinit="create_new",
            **self._options,
        )

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log the numbers."""
        line: dict[str, Any] = {
            name: value for name, value in numbers(result).items() if name not in self._excludes
        }
        if self._log_config:
            line["config"] = trial.config
        self._runs[trial.trial_id].log(line)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run."""
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            run.finish(exit_code=1 if failed else 0)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """End the runs of trials that were cut short."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()
