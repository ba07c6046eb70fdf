"""A run that is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from skate.tune.error import StorageError
from skate.tune.objective import Objective
from skate.tune.trial import Trial, TrialCheckpoint


@dataclass
class FinishedRun:
    """Everything that is known of a run that is over, or was read from its folder.

    Attributes:
        path: its folder on this machine.
        elapsed_s: how long it took, in seconds.
        end_reason: why it ended before its time: "time budget", "interrupted", "fail_fast",
            "stopper"; empty if it did not.
        cpu_s: seconds of CPU that the orchestration took in the driver.
        checkpoints: those that are kept of each trial, oldest first.
        place: path or URL of its folder, which has everything.
        storage_errors: what could not be written, in order.
    """

    name: str
    path: Path
    trials: list[Trial]
    objective: Objective
    elapsed_s: float
    end_reason: str
    cpu_s: float = 0.0
    checkpoints: dict[str, list[TrialCheckpoint]] = field(default_factory=dict)
    place: str = ""
    storage_errors: list[StorageError] = field(default_factory=list)

    @property
    def failed(self) -> list[Trial]:
        """Trials that failed for good."""
        return [trial for trial in self.trials if trial.status == Trial.ERROR]
