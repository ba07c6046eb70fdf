"""What to do when training actors die.  Decisions only."""

from __future__ import annotations

from dataclasses import dataclass, field

from skate.xgboost.errors import ActorFailure, TrainingFailedError
from skate.xgboost.messages import Checkpoint


@dataclass(slots=True)
class RestartPolicy:
    """Counts failures and says when it is enough.

    Attributes:
        allowed: how many restarts; -1 for any number.
        failures: what has happened, oldest first.
        checkpoint: from where the next attempt goes on; None: from the start.
    """

    allowed: int
    failures: list[ActorFailure] = field(default_factory=list)
    checkpoint: Checkpoint | None = None

    @property
    def resumed_from(self) -> int:
        """How many rounds the next attempt begins with."""
        return 0 if self.checkpoint is None else self.checkpoint.rounds_done

    def on_death(self, rank: int, rounds_done: int, cause: str) -> ActorFailure:
        """Take note of a death and return it; the training is to be started again.

        Raises:
            TrainingFailedError: no further restart is allowed.
        """
        failure = ActorFailure(len(self.failures), rank, rounds_done, self.resumed_from, cause)
        self.failures.append(failure)
        if 0 <= self.allowed < len(self.failures):
            raise TrainingFailedError.of(self.failures, self.allowed)
        return failure
