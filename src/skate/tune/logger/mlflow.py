"""Runs of MLflow, one for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from skate.tune.logger._base import LoggerCallback, numbers, step_of
from skate.tune.readable import printable, text_of
from skate.tune.search.space import flatten
from skate.tune.trial import Trial


class MLflowLoggerCallback(LoggerCallback):
    """Logs each trial as a run of MLflow: its configuration, what it reports and how it ended.

    Args:
        tracking_uri: of the server or folder; what MLflow is set to, if None.
        registry_uri: of the model registry, if it is elsewhere.
        experiment_name: the experiment, which is made if it is not there; the run's name if None.
        tags: for each run of MLflow.
        save_artifact: whether the trial's folder is uploaded when it ends.

    Raises:
        ImportError: MLflow is not installed; its client comes with ``skate[mlflow]``.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        registry_uri: str | None = None,
        experiment_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        save_artifact: bool = False,
    ) -> None:
        super().__init__()
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ImportError(
                "MLflowLoggerCallback needs MLflow: pip install 'skate[mlflow]'"
            ) from error
        self._client = MlflowClient(tracking_uri, registry_uri)
        self._experiment_name = experiment_name
        self._experiment_id = ""
        self._tags = dict(tags or {})
        self._save_artifact = save_artifact
        self._runs: dict[str, str] = {}

    def setup(self, **info: Any) -> None:
        """Find the experiment or make it.

        Raises:
            mlflow.exceptions.MlflowException: the server does not answer, or does not allow it.
        """
        name = self._experiment_name or info["name"]
        found = self._client.get_experiment_by_name(name)
        self._experiment_id = (
            self._client.create_experiment(name) if found is None else found.experiment_id
        )

    def log_trial_start(self, trial: Trial) -> None:
        """Begin a run."""
        from mlflow.entities import Param

        tags = {**self._tags, "trial_name": trial.trial_id, "mlflow.runName": trial.trial_id}
        run_id = self._client.create_run(self._experiment_id, tags=tags).info.run_id
        self._runs[trial.trial_id] = run_id
        params = [Param(name, value) for name, value in params_of(trial.config).items()]
        self._client.log_batch(run_id, params=params)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log the numbers, all in one request."""
        from mlflow.entities import Metric

        now = int(result.get("timestamp", time.time()) * 1000)
        step = step_of(trial, result)
        metrics = [Metric(_name(n), value, now, step) for n, value in numbers(result).items()]
        self._client.log_batch(self._runs[trial.trial_id], metrics=metrics)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run."""
        run_id = self._runs.pop(trial.trial_id, None)
        if run_id is None:
            return
        if self._save_artifact and trial.path is not None:
            self._client.log_artifacts(run_id, trial.path)
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """End the runs of trials that were cut short."""
        for run_id in self._runs.values():
            self._client.set_terminated(run_id, "KILLED")
        self._runs.clear()


def params_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as MLflow takes it, nested parts by path."""
    # It refuses longer ones.
    return {
        _name(name): printable(text_of(value))[:6000] for name, value in flatten(config).items()
    }


def _name(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
