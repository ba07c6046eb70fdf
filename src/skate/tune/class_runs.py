"""How a ``Trainable`` class runs in a session: step, report, and again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skate.tune.checkpoint import PackedCheckpoint
from skate.tune.error import describe
from skate.tune.result import SHOULD_CHECKPOINT
from skate.tune.session import Session, StopTrial
from skate.tune.trainable_class import Trainable, make, reuse


@dataclass(frozen=True, slots=True)
class Saving:
    """When a class is asked for checkpoints that nobody waits for.

    Attributes:
        frequency: every so many iterations; 0 for never.
        at_end: when its trial ends.
        at_gates: wherever the scheduler looks at it.
        exports: in which formats what was trained is exported when its trial ends.
    """

    frequency: int = 0
    at_end: bool = False
    at_gates: bool = False
    exports: Sequence[str] = ()

    def wants(self, iteration: int, done: bool) -> bool:
        """Say whether a checkpoint goes with the result of an iteration."""
        now_and_then = self.frequency > 0 and iteration % self.frequency == 0
        return now_and_then or (done and self.at_end)


class ClassRuns:
    """Runs trials with objects of one class, with the same one as long as it can be reset."""

    def __init__(self, kind: type[Trainable], saving: Saving) -> None:
        self._kind = kind
        self._saving = saving
        self._trainable: Trainable | None = None
        #: Whether a checkpoint is wanted when the session is stopped, and what was taken then.
        self.save_at_stop = False
        #: Whether the trial is over when the session is stopped.
        self.export_at_stop = False
        self.saved: PackedCheckpoint | None = None

    def run(self, session: Session, config: dict[str, Any]) -> None:
        """Run one trial to its end, or until the session is stopped."""
        self.save_at_stop, self.export_at_stop, self.saved = False, False, None
        trainable = self._ready(session, config)
        saving = self._saving
        save = trainable.pack if saving.at_gates else None
        done = False
        try:
            while not done:
                result = trainable.train()
                done = bool(result.get("done"))
                wanted = saving.wants(trainable.iteration, done) or result.get(SHOULD_CHECKPOINT)
                session.report(result, trainable.pack() if wanted else None, save)
        except StopTrial:
            if self.save_at_stop:
                self.saved = trainable.pack()
            if self.export_at_stop:
                self._export(trainable)
            raise
        except BaseException:
            # Nobody knows what state it is in.
            self._trainable = None
            raise
        self._export(trainable)

    def _export(self, trainable: Trainable) -> None:
        """Export what was trained.  The trial has done its work, so an error is only told."""
        if not self._saving.exports:
            return
        try:
            trainable.export_model(self._saving.exports)
        except Exception as error:  # whatever the user's method raises
            warnings.warn(
                f"trial {trainable.trial_id} could not export its model: {describe(error)}",
                RuntimeWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Clean up."""
        trainable, self._trainable = self._trainable, None
        if trainable is not None:
            trainable.stop()

    def _ready(self, session: Session, config: Mapping[str, Any]) -> Trainable:
        """Return an object that has the configuration and the state of the session's trial."""
        trainable = self._trainable
        if trainable is None or not reuse(trainable, dict(config), session.context):
            self.close()
            trainable = make(self._kind, dict(config), session.context)
            self._trainable = trainable
        if session.checkpoint is not None:
            trainable.restore(session.checkpoint)
        return trainable
