"""Hooks into a run.  The files of the trials and the live table are callbacks themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from skate.tune.checkpoint import Checkpoint
from skate.tune.trial import Trial


class Callback:
    """Base of callbacks; every method is optional.

    All are called in the driver, between messages of the trials: what takes long here delays them.
    ``iteration`` counts the turns of the run's loop.
    """

    def setup(self, **info: Any) -> None:
        """The run begins.  ``info`` has ``name``, ``path`` and ``orchestrator``."""

    def on_step_begin(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """A turn of the loop begins: trials are started, then the run waits for one to report."""

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """A turn of the loop is over: something happened, or about a second has gone by."""

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial starts, or starts again after a failure."""

    def on_trial_restore(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial that starts was given a checkpoint to go on from.

        That is after a failure or a pause, as a clone of another trial, or in a resumed run;
        ``on_trial_start`` comes before it.
        """

    def on_checkpoint(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        checkpoint: Checkpoint,
        **info: Any,
    ) -> None:
        """A checkpoint of a trial has come: with its newest result, at a pause or at its end.

        It is in memory, its files are being written meanwhile.  One that is lost with its node
        before it could be fetched is not told of.
        """

    def on_trial_save(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A checkpoint of a trial has come, as with ``on_checkpoint``, which comes after it.

        The checkpoint itself is not fetched: ``trial.checkpoint`` says when it was made.
        """

    @property
    def wants_checkpoints(self) -> bool:
        """Whether ``on_checkpoint`` does anything: only then checkpoints are fetched for it."""
        return type(self).on_checkpoint is not Callback.on_checkpoint

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """A trial reported."""

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial ended without an error."""

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial failed for good."""

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial failed, and will be started again; ``trial.error`` says why."""

    def on_experiment_ending(self, trials: Sequence[Trial], **info: Any) -> None:
        """The run is about to end before its time: trials that run will be ended."""

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """The run is over, however it ended."""

    def get_state(self) -> dict[str, Any] | None:
        """Return what is to be saved with the state of the run; None for nothing.

        It is called every second or so and has to be picklable.
        """
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what ``get_state`` returned before the run was cut short; ``setup`` comes after."""


class CallbackList(Callback):
    """Passes everything on to several callbacks, in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks wants objects derived from tune.Callback, got {callback!r}"
                )
        self.callbacks = list(callbacks)

    def setup(self, **info: Any) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.setup(**info)

    def on_step_begin(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_step_begin(iteration, trials, **info)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_step_end(iteration, trials, **info)

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_start(iteration, trials, trial, **info)

    def on_trial_restore(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_restore(iteration, trials, trial, **info)

    def on_checkpoint(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        checkpoint: Checkpoint,
        **info: Any,
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_checkpoint(iteration, trials, trial, checkpoint, **info)

    def on_trial_save(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_save(iteration, trials, trial, **info)

    @property
    def wants_checkpoints(self) -> bool:
        """Whether one of them does."""
        return any(callback.wants_checkpoints for callback in self.callbacks)

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_complete(iteration, trials, trial, **info)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_error(iteration, trials, trial, **info)

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_trial_recover(iteration, trials, trial, **info)

    def on_experiment_ending(self, trials: Sequence[Trial], **info: Any) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_experiment_ending(trials, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Pass on."""
        for callback in self.callbacks:
            callback.on_experiment_end(trials, **info)


#: The states of callbacks, in their order, each with the name of the class that it belongs to.
States: TypeAlias = list[tuple[str, dict[str, Any]]]


def states_of(callbacks: Sequence[Callback]) -> States:
    """Return what callbacks want to have saved."""
    states = [(_class_name(callback), callback.get_state()) for callback in callbacks]
    return [(name, state) for name, state in states if state is not None]


def restore_states(callbacks: Sequence[Callback], states: States) -> None:
    """Give callbacks what those of the same classes had saved, in their order."""
    rest = list(states)
    for callback in callbacks:
        for position, (name, state) in enumerate(rest):
            if name == _class_name(callback):
                del rest[position]
                callback.set_state(state)
                break


def _class_name(callback: Callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"
