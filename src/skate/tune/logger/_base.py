"""What loggers have in common: one method for each thing that happens to a trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skate.tune.callback import Callback
from skate.tune.trial import Trial, as_float, flat_result

#: Steps have eight bytes, here and there.
_MOST_STEPS = 2**63


class LoggerCallback(Callback):
    """Base of callbacks that log trials somewhere; every method is optional.

    All are called in the driver, in the order of events.  ``log_trial_start`` is called once per
    trial, ``log_trial_restart`` each time it goes on afterwards.
    """

    def __init__(self) -> None:
        self._started: set[str] = set()

    def log_trial_start(self, trial: Trial) -> None:
        """A trial starts."""

    def log_trial_restart(self, trial: Trial) -> None:
        """A trial goes on from its checkpoint: after a failure or a pause, or with a new config."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """A trial reported; ``iteration`` counts the turns of the run's loop."""

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """A trial ended for good."""

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        if trial.trial_id in self._started:
            self.log_trial_restart(trial)
        else:
            self._started.add(trial.trial_id)
            self.log_trial_start(trial)

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Pass on."""
        self.log_trial_result(iteration, trial, result)

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        if trial.trial_id in self._started:
            self._started.discard(trial.trial_id)
            self.log_trial_end(trial)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        if trial.trial_id in self._started:
            self._started.discard(trial.trial_id)
            self.log_trial_end(trial, failed=True)


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a result, nested ones by path."""
    return {
        name: value if type(value) is float else as_float(value)
        for name, value in flat_result(result).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "pid"
    }


def step_of(trial: Trial, result: dict[str, Any]) -> int:
    """Return where a result stands on the axis of steps."""
    step = result.get("training_iteration")
    # Functions may report one of their own, of any kind.
    if isinstance(step, (int, float)) and -_MOST_STEPS <= step < _MOST_STEPS:
        return int(step)
    return trial.iterations
