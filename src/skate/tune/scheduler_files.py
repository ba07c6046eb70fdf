"""What schedulers write into the folder of the run: the policies of a population, for example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skate.tune.callback import Callback
from skate.tune.schedulers.trial_scheduler import TrialScheduler
from skate.tune.trial import Trial


class SchedulerFiles(Callback):
    """Writes the lines that the scheduler of the run wants written."""

    def __init__(self, path: Path, scheduler: TrialScheduler) -> None:
        self._path = path
        self._scheduler = scheduler

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write what there is."""
        for lines in self._scheduler.take_lines():
            with (self._path / lines.name).open("w" if lines.anew else "a") as file:
                file.write(lines.text)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the rest."""
        self.on_step_end(0, trials)
