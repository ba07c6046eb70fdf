"""Schedulers: what decides whether a running trial goes on."""

from __future__ import annotations

import difflib
from typing import Any

from skate.tune.schedulers.async_hyperband import ASHAScheduler, AsyncHyperBandScheduler
from skate.tune.schedulers.hb_bohb import HyperBandForBOHB
from skate.tune.schedulers.hyperband import HyperBandScheduler
from skate.tune.schedulers.median_stopping_rule import MedianStoppingRule
from skate.tune.schedulers.pb2 import PB2
from skate.tune.schedulers.pbt import PopulationBasedTraining
from skate.tune.schedulers.pbt_replay import PopulationBasedTrainingReplay
from skate.tune.schedulers.resource_changing_scheduler import (
    DistributeResources,
    DistributeResourcesToTopJob,
    ResourceChangingScheduler,
)
from skate.tune.schedulers.trial_scheduler import FIFOScheduler, Gate, TrialScheduler

__all__ = [
    "PB2",
    "ASHAScheduler",
    "AsyncHyperBandScheduler",
    "DistributeResources",
    "DistributeResourcesToTopJob",
    "FIFOScheduler",
    "Gate",
    "HyperBandForBOHB",
    "HyperBandScheduler",
    "MedianStoppingRule",
    "PopulationBasedTraining",
    "PopulationBasedTrainingReplay",
    "ResourceChangingScheduler",
    "TrialScheduler",
    "create_scheduler",
]

_BY_NAME: dict[str, type[TrialScheduler]] = {
    "fifo": FIFOScheduler,
    "asha": AsyncHyperBandScheduler,
    "async_hyperband": AsyncHyperBandScheduler,
    "asynchyperband": AsyncHyperBandScheduler,
    "median_stopping_rule": MedianStoppingRule,
    "medianstopping": MedianStoppingRule,
    "hyperband": HyperBandScheduler,
    "hb_bohb": HyperBandForBOHB,
    "pbt": PopulationBasedTraining,
    "pbt_replay": PopulationBasedTrainingReplay,
    "pb2": PB2,
    "resource_changing": ResourceChangingScheduler,
}


def create_scheduler(scheduler: str, **kwargs: Any) -> TrialScheduler:
    """Return the scheduler of a name; ``kwargs`` are its arguments.

    Names: "fifo", "asha" (also "async_hyperband", "asynchyperband"), "median_stopping_rule" (also
    "medianstopping"), "hyperband", "hb_bohb", "pbt", "pbt_replay", "pb2" and "resource_changing".

    Raises:
        ValueError: there is none of that name.
    """
    made = _BY_NAME.get(scheduler.lower())
    if made is not None:
        return made(**kwargs)
    near = difflib.get_close_matches(scheduler.lower(), _BY_NAME, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {sorted(_BY_NAME)}"
    raise ValueError(f"there is no scheduler called {scheduler!r}; {hint}")
