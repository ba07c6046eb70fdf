"""Tune: hyperparameter search on tasks and actors.

    from skate import tune

    def train(config):
        for step in range(10):
            tune.report(loss=(config["x"] - 3) ** 2 / (step + 1))

    analysis = tune.run(train, config={"x": tune.uniform(0, 10)}, num_samples=20)
    print(analysis.best_config)

It stands on the public API of Skate alone, so it runs on every engine.  The names are those of
Ray Tune, both the ones of 2022 (``tune.run``, ``tune.suggest``) and today's (``Tuner``,
``tune.search``).
"""

from typing import TYPE_CHECKING, Any

from skate.tune import schedulers, search, suggest
from skate.tune.callback import Callback
from skate.tune.config import FailureConfig, RunConfig, TuneConfig
from skate.tune.error import MetricError, TuneError
from skate.tune.experiment_analysis import ExperimentAnalysis
from skate.tune.resources import PlacementGroupFactory
from skate.tune.result_grid import Result, ResultGrid
from skate.tune.schedulers import create_scheduler
from skate.tune.search import create_searcher
from skate.tune.search.sample import (
    choice,
    grid_search,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)
from skate.tune.session import (
    TrialContext,
    get_context,
    get_trial_dir,
    get_trial_id,
    get_trial_name,
    is_session_enabled,
    report,
)
from skate.tune.stopper import Stopper
from skate.tune.trainable import with_parameters, with_resources
from skate.tune.trial import Trial
from skate.tune.tune_run import run
from skate.tune.tuner import Tuner

if TYPE_CHECKING:
    from skate.tune.html_report import save_report
    from skate.tune.plots import save_learning_curves

__all__ = [
    "Callback",
    "ExperimentAnalysis",
    "FailureConfig",
    "MetricError",
    "PlacementGroupFactory",
    "Result",
    "ResultGrid",
    "RunConfig",
    "Stopper",
    "Trial",
    "TrialContext",
    "TuneConfig",
    "TuneError",
    "Tuner",
    "choice",
    "create_scheduler",
    "create_searcher",
    "get_context",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "grid_search",
    "is_session_enabled",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "report",
    "run",
    "sample_from",
    "save_learning_curves",
    "save_report",
    "schedulers",
    "search",
    "suggest",
    "uniform",
    "with_parameters",
    "with_resources",
]


def __getattr__(name: str) -> Any:
    # Pictures are asked for once, at the end, and every worker imports this module.
    if name == "save_learning_curves":
        from skate.tune.plots import save_learning_curves

        return save_learning_curves
    if name == "save_report":
        from skate.tune.html_report import save_report

        return save_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
