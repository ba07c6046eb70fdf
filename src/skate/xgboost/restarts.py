"""What to do when training actors die.  Decisions only."""

from __future__ import annotations

from dataclasses import dataclass, field

from skate.xgboost.errors import ActorFailure, TrainingFailedError
from skate.xgboost.messages import Checkpoint


@dataclass(slots=True)
class RestartPolicy:
    """Counts failures, says when it is enough, and who has to be waited for.

    Attributes:
        allowed: how many restarts; -1 for any number.
        may_miss: how many actors a training goes on without; 0 if it is not elastic.
        failures: what has happened, oldest first.
        restarts: how often something was started again.  Actors that die together count once.
        checkpoint: from where the training goes on; None: from the start.
    """

    allowed: int
    may_miss: int = 0
    failures: list[ActorFailure] = field(default_factory=list)
    restarts: int = 0
    checkpoint: Checkpoint | None = None

    @property
    def resumed_from(self) -> int:
        """How many rounds the training begins with when it goes on."""
        return 0 if self.checkpoint is None else self.checkpoint.rounds_done

    def on_death(
        self, rank: int, rounds_done: int, cause: str, *, together: bool = False
    ) -> ActorFailure:
        """Take note of a death and return it; the actor is to be replaced.

        Args:
            rank: of the actor.
            rounds_done: how many rounds were done then.
            cause: what has killed it.
            together: whether it died with the one before.

        Raises:
            TrainingFailedError: no further restart is allowed.
        """
        attempt = self.restarts - 1 if together and self.failures else self.restarts
        failure = ActorFailure(attempt, rank, rounds_done, self.resumed_from, cause)
        self.failures.append(failure)
        self.restarts = attempt + 1
        if 0 <= self.allowed < self.restarts:
            raise TrainingFailedError.of(self.failures, self.allowed)
        return failure

    def goes_on_without(self, missing: int, *, started: bool) -> bool:
        """Say whether the others go on while so many actors are being replaced.

        Args:
            missing: how many.
            started: whether this training has trained before: it starts with all.
        """
        return started and 0 < missing <= self.may_miss
