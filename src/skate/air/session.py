"""What functions of trials called in Ray 2.0: ``session.report(...)``; see ``skate.tune``."""

from skate.tune import (
    get_checkpoint,
    get_context,
    get_trial_dir,
    get_trial_id,
    get_trial_name,
    report,
)
from skate.tune.resources import PlacementGroupFactory

__all__ = [
    "get_checkpoint",
    "get_experiment_name",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "get_trial_resources",
    "report",
]


def get_experiment_name() -> str:
    """Return the name of the run.

    Raises:
        RuntimeError: not inside a trial.
    """
    return get_context().get_experiment_name()


def get_trial_resources() -> PlacementGroupFactory | None:
    """Return what the trial was given to run with.

    Raises:
        RuntimeError: not inside a trial.
    """
    return get_context().get_trial_resources()
