"""What scripts for Tune import from ``ray.train``; it lives in ``skate.tune``.

There are no trainers here: ``skate.xgboost`` trains on several processes, and a trial is one.
"""

from skate.tune import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    SyncConfig,
    get_checkpoint,
    get_context,
    report,
)
from skate.tune import TrialContext as TrainContext

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "FailureConfig",
    "Result",
    "RunConfig",
    "SyncConfig",
    "TrainContext",
    "get_checkpoint",
    "get_context",
    "report",
]
