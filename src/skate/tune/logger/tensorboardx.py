"""Event files for TensorBoard, in the folders of the trials."""

from __future__ import annotations

import functools
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skate.tune import event_files
from skate.tune.logger._base import LoggerCallback, numbers, step_of
from skate.tune.search.space import flatten
from skate.tune.storage import append
from skate.tune.trial import Trial

#: Events stay in memory for at most so many seconds, and so many bytes per trial.
FLUSH_S = 1.0
FLUSH_BYTES = 64_000

#: What is no curve: where a report stands on the axes, and what grows with them.
_LEFT_OUT = ("training_iteration", "timestamp", "time_total_s")


class TBXLoggerCallback(LoggerCallback):
    """Writes what trials report as TensorBoard events into their folders.

    Every run has one; scripts that pass one get what they would have anyway.
    ``SKATE_DISABLE_AUTO_CALLBACK_LOGGERS=1`` in the environment switches it off for all others.

    ``tensorboard --logdir`` of the run's folder shows all trials, and with the last result of each
    its configuration in the table of hyperparameters.  Metrics are called ``ray/tune/<name>``, as
    in Ray Tune, so that dashboards made for that go on to work.

    What cannot be written is noted, and lost: ``result.json`` has it, too.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Has things done that nobody waits for, in the order of the calls.
        self.do_later: Callable[[Callable[[], None]], None] = _do_now
        self._files: dict[str, _EventFile] = {}
        self._flushed = 0.0

    def log_trial_start(self, trial: Trial) -> None:
        """Begin the trial's file; what earlier ones have beyond its checkpoint is forgotten."""
        if trial.local_path is None:
            return
        self._files[trial.trial_id] = _EventFile(trial.local_path)
        if trial.iterations:
            self.log_trial_restart(trial)

    def log_trial_restart(self, trial: Trial) -> None:
        """Have TensorBoard forget what came after the checkpoint."""
        file = self._files.get(trial.trial_id)
        if file is not None:
            file.add(event_files.restart(time.time(), trial.iterations + 1))

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Take the numbers."""
        file = self._files.get(trial.trial_id)
        if file is None:
            return
        reported = numbers(result)
        values = {
            f"ray/tune/{name}": value for name, value in reported.items() if name not in _LEFT_OUT
        }
        if values:
            # Functions may report a "timestamp" of their own, which need not be one.
            wall_time = reported.get("timestamp", math.nan)
            if not math.isfinite(wall_time):
                wall_time = time.time()
            file.add(event_files.scalars(wall_time, step_of(trial, result), values))
            if file.nbytes >= FLUSH_BYTES:
                self._flush(file)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the rest and the configuration."""
        file = self._files.pop(trial.trial_id, None)
        if file is None:
            return
        parameters = flatten(trial.evaluated_params)
        if trial.iterations and parameters:
            file.add(event_files.session_start(file.began, parameters))
            file.add(event_files.session_end(time.time(), failed))
        self._flush(file)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write what has waited long enough."""
        now: float = info["now"]
        if now - self._flushed >= FLUSH_S:
            self._flushed = now
            self._flush_all()

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write what trials that were cut short have left."""
        self._flush_all()
        self._files.clear()

    def _flush_all(self) -> None:
        for file in self._files.values():
            self._flush(file)

    def _flush(self, file: _EventFile) -> None:
        records = file.take()
        if records:
            self.do_later(functools.partial(file.write, records))


class _EventFile:
    """The growing file of one trial.  It is there as soon as there is something to write."""

    def __init__(self, folder: Path) -> None:
        self.began = time.time()
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{int(self.began)}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._waiting: list[bytes] = []
        self._begun = False
        self.nbytes = 0

    def add(self, record: bytes) -> None:
        self._waiting.append(record)
        self.nbytes += len(record)

    def take(self) -> list[bytes]:
        """Return what is to be written."""
        records, self._waiting, self.nbytes = self._waiting, [], 0
        return records

    def write(self, records: Sequence[bytes]) -> None:
        """Write.

        Raises:
            StorageError: it cannot be written; then it is lost.
        """
        header = [] if self._begun else [event_files.file_header(self.began)]
        append(self._path, b"".join([*header, *records]))
        self._begun = True


def _do_now(job: Callable[[], None]) -> None:
    job()
