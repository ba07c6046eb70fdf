"""Event files for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from skate.tune.logger._base import LoggerCallback, numbers, step_of
from skate.tune.search.space import flatten
from skate.tune.trial import Trial


class TBXLoggerCallback(LoggerCallback):
    """Writes what trials report as TensorBoard events into their folders.

    ``tensorboard --logdir`` of the run's folder shows all trials, and with the last result of each
    its configuration in the table of hyperparameters.  Metrics are called ``ray/tune/<name>``, as
    in Ray Tune, so that dashboards made for that go on to work.

    tensorboardX writes them: a few files on top of protobuf, where torch's writer needs torch.

    Raises:
        ImportError: tensorboardX is not installed; it comes with ``skate[tensorboard]``.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError(
                "TBXLoggerCallback needs tensorboardX: pip install 'skate[tensorboard]'"
            ) from error
        self._library = tensorboardX
        self._writers: dict[str, Any] = {}
        self._opened = 0

    def log_trial_start(self, trial: Trial) -> None:
        """Open the trial's file."""
        self._open(trial)

    def log_trial_restart(self, trial: Trial) -> None:
        """Open another file, which has TensorBoard forget what came after the checkpoint."""
        writer = self._writers.get(trial.trial_id)
        if writer is not None:
            writer.close()
        self._open(trial)

    def _open(self, trial: Trial) -> None:
        if trial.local_path is None:
            return
        self._opened += 1
        self._writers[trial.trial_id] = self._library.SummaryWriter(
            str(trial.local_path),
            purge_step=trial.iterations + 1 if trial.iterations else None,
            flush_secs=30,
            # Names have the time in seconds, which two files of a trial may share.
            filename_suffix=f".{self._opened}",
        )

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write the numbers."""
        writer = self._writers.get(trial.trial_id)
        if writer is None:
            return
        step = step_of(trial, result)
        for name, value in numbers(result).items():
            if name not in ("training_iteration", "timestamp"):
                writer.add_scalar(f"ray/tune/{name}", value, global_step=step)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the configuration and close the file."""
        writer = self._writers.pop(trial.trial_id, None)
        if writer is None:
            return
        if trial.iterations and not failed:
            known = (bool, str, int, float)
            params = {
                name: value if isinstance(value, known) else repr(value)
                for name, value in flatten(trial.evaluated_params).items()
            }
            metrics = {
                f"ray/tune/{name}": value
                for name, value in numbers(trial.last_result).items()
                if math.isfinite(value)
            }
            summaries = self._library.summary.hparams(
                hparam_dict=params, metric_dict=dict.fromkeys(metrics, None)
            )
            for summary in summaries:
                writer.file_writer.add_summary(summary)
        writer.close()

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Close what is still open."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
