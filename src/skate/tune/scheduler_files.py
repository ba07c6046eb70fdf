"""What schedulers write into the folder of the run: the policies of a population, for example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skate.tune.callback import Callback
from skate.tune.error import StorageError
from skate.tune.schedulers.trial_scheduler import TrialScheduler
from skate.tune.storage import append
from skate.tune.trial import Trial
from skate.tune.troubles import Troubles


class SchedulerFiles(Callback):
    """Writes the lines that the scheduler of the run wants written.

    What cannot be written is noted in ``troubles``, and lost.
    """

    def __init__(
        self, path: Path, scheduler: TrialScheduler, troubles: Troubles | None = None
    ) -> None:
        self._path = path
        self._scheduler = scheduler
        self._troubles = Troubles() if troubles is None else troubles

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write what there is."""
        for lines in self._scheduler.take_lines():
            path = self._path / lines.name
            try:
                if lines.anew:
                    path.unlink(missing_ok=True)
                append(path, lines.text.encode())
            except OSError as error:
                named = StorageError(f"cannot write {path}: {error}", str(path))
                self._troubles.note([error if isinstance(error, StorageError) else named])

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the rest."""
        self.on_step_end(0, trials)
