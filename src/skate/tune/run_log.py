"""The log of a run, ``run.jsonl`` in its folder: what began and ended, one line each.

The files of the trials say what was reported, but not what has become of a trial, nor whether the
run goes on.  Lines are only ever appended, so whoever reads the log during the run sees whole ones.
The driver holds a lock on the log as long as the run goes on (``claim.py``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from skate.tune.callback import Callback
from skate.tune.claim import LOG_FILE, Claim
from skate.tune.error import StorageError
from skate.tune.orchestrator import Orchestrator
from skate.tune.storage import append_to
from skate.tune.trial import Trial
from skate.tune.troubles import Troubles


class RunLog(Callback):
    """Writes the log.

    Args:
        claim: the folder of the run, with the log in it.
        troubles: where errors go while the run goes on.
    """

    def __init__(self, claim: Claim, troubles: Troubles | None = None) -> None:
        self._claim = claim
        self._troubles = Troubles() if troubles is None else troubles
        self._orchestrator: Orchestrator | None = None
        self._paused: set[str] = set()

    def setup(self, **info: Any) -> None:
        """Begin the log, or go on with that of the run which is resumed."""
        self._orchestrator = info["orchestrator"]
        self._write({"event": "begin", "name": info["name"], "pid": os.getpid()})

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note which parameters of the trial vary."""
        self._paused.discard(trial.trial_id)
        params = list(trial.evaluated_params)
        self._write({"event": "start", "trial": trial.trial_id, "params": params})

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Note that the trial is paused, if that has become of it with this result."""
        if trial.status == Trial.PAUSED and trial.trial_id not in self._paused:
            self._paused.add(trial.trial_id)
            self._write({"event": "trial", "trial": trial.trial_id, "status": trial.status})

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note how the trial ended."""
        self._note(trial)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note that the trial failed."""
        self._note(trial)

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Note that the trial failed, and waits for another try."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Note the end."""
        reason = info.get("end_reason", "")
        self._write({"event": "end", "reason": reason, **self._objective()})

    def _note(self, trial: Trial) -> None:
        line = {
            "event": "trial",
            "trial": trial.trial_id,
            "status": trial.status,
            "stop_reason": trial.stop_reason,
            **self._objective(),
        }
        metric, mode = line["metric"], line["mode"]
        if metric is not None and mode is not None and trial.iterations:
            line["value"] = trial.metric(metric, mode)
        self._write(line)

    def _objective(self) -> dict[str, Any]:
        assert self._orchestrator is not None
        objective = self._orchestrator.objective
        return {"metric": objective.metric, "mode": objective.mode}

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps({**line, "time": time.time()})
        try:
            append_to(self._claim.descriptor, f"{text}\n".encode())
        except OSError as error:
            path = self._claim.path / LOG_FILE
            self._troubles.note([StorageError(f"cannot write {path}: {error.strerror}", str(path))])
