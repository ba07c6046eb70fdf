"""What goes wrong in distributed training, as types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skate.exceptions import SkateError


class XGBoostNotInstalledError(SkateError, ImportError):
    """XGBoost cannot be imported; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class ActorFailure:
    """The death of one training actor."""

    #: Counts starts of the training: 0 is the first.
    attempt: int
    rank: int
    #: How many rounds of the training were known to be done when the actor died.
    rounds_done: int
    #: From which round the training went on, or would have.
    resumed_from: int
    cause: str

    def __str__(self) -> str:
        return (
            f"the training actor of rank {self.rank} died after {self.rounds_done} rounds,"
            f" {self.resumed_from} of them in a checkpoint: {self.cause}"
        )


class TrainingFailedError(SkateError, RuntimeError):
    """Training actors died more often than ``RayParams.max_actor_restarts`` allows.

    Attributes:
        failures: what happened, oldest first.
    """

    def __init__(self, message: str, failures: Sequence[ActorFailure] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)

    @classmethod
    def of(cls, failures: Sequence[ActorFailure], allowed: int) -> TrainingFailedError:
        """Return the error that tells the history of a training that is given up."""
        history = "\n".join(
            f"  attempt {number}: {failure}" for number, failure in enumerate(failures, start=1)
        )
        return cls(
            f"the training was given up: actors died {len(failures)} times, and"
            f" RayParams(max_actor_restarts={allowed}) allows {allowed} restarts.\n{history}",
            failures,
        )


#: The name in ``xgboost_ray``.
RayXGBoostTrainingError = TrainingFailedError
