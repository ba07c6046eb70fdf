"""What Ray 2.0 to 2.9 had in ``ray.air`` for Tune; it lives in ``skate.tune``."""

from skate.air import session
from skate.tune import Checkpoint, CheckpointConfig, FailureConfig, Result, RunConfig

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "FailureConfig",
    "Result",
    "RunConfig",
    "session",
]
