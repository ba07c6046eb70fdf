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

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skate.tune import logger, schedulers, search, stopper, suggest
    from skate.tune.callback import Callback
    from skate.tune.checkpoint import Checkpoint
    from skate.tune.checkpoint_folder import checkpoint_dir
    from skate.tune.config import (
        CheckpointConfig,
        FailureConfig,
        RunConfig,
        SyncConfig,
        TuneConfig,
    )
    from skate.tune.error import MetricError, StorageError, TuneError
    from skate.tune.experiment import Experiment
    from skate.tune.experiment_analysis import ExperimentAnalysis
    from skate.tune.html_report import save_report
    from skate.tune.plots import save_learning_curves, save_plots
    from skate.tune.progress_reporter import (
        CLIReporter,
        JupyterNotebookReporter,
        ProgressReporter,
    )
    from skate.tune.registry import register_trainable
    from skate.tune.resources import PlacementGroupFactory
    from skate.tune.result_grid import Result, ResultGrid
    from skate.tune.resume import ResumeConfig
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
        get_checkpoint,
        get_context,
        get_trial_dir,
        get_trial_id,
        get_trial_name,
        is_session_enabled,
        report,
    )
    from skate.tune.stopper import Stopper
    from skate.tune.trainable import with_parameters, with_resources
    from skate.tune.trainable_class import Trainable
    from skate.tune.trial import Trial
    from skate.tune.trial_context import TrialContext, TuneContext
    from skate.tune.tune_run import run, run_experiments
    from skate.tune.tuner import Tuner

#: Where each name lives.  They are imported at first use: a process that runs trials needs
#: ``report`` and little else, and starts in a tenth of the time.
_HOMES = {
    "callback": ["Callback"],
    "checkpoint": ["Checkpoint"],
    "checkpoint_folder": ["checkpoint_dir"],
    "config": ["CheckpointConfig", "FailureConfig", "RunConfig", "SyncConfig", "TuneConfig"],
    "error": ["MetricError", "StorageError", "TuneError"],
    "experiment": ["Experiment"],
    "experiment_analysis": ["ExperimentAnalysis"],
    "html_report": ["save_report"],
    "plots": ["save_learning_curves", "save_plots"],
    "progress_reporter": ["CLIReporter", "JupyterNotebookReporter", "ProgressReporter"],
    "registry": ["register_trainable"],
    "resources": ["PlacementGroupFactory"],
    "result_grid": ["Result", "ResultGrid"],
    "resume": ["ResumeConfig"],
    "schedulers": ["create_scheduler"],
    "search": ["create_searcher"],
    "search.sample": [
        "choice",
        "grid_search",
        "lograndint",
        "loguniform",
        "qlograndint",
        "qloguniform",
        "qrandint",
        "qrandn",
        "quniform",
        "randint",
        "randn",
        "sample_from",
        "uniform",
    ],
    "session": [
        "get_checkpoint",
        "get_context",
        "get_trial_dir",
        "get_trial_id",
        "get_trial_name",
        "is_session_enabled",
        "report",
    ],
    "stopper": ["Stopper"],
    "trainable": ["with_parameters", "with_resources"],
    "trainable_class": ["Trainable"],
    "trial": ["Trial"],
    "trial_context": ["TrialContext", "TuneContext"],
    "tune_run": ["run", "run_experiments"],
    "tuner": ["Tuner"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("logger", "schedulers", "search", "stopper", "suggest")

__all__ = [
    "CLIReporter",
    "Callback",
    "Checkpoint",
    "CheckpointConfig",
    "Experiment",
    "ExperimentAnalysis",
    "FailureConfig",
    "JupyterNotebookReporter",
    "MetricError",
    "PlacementGroupFactory",
    "ProgressReporter",
    "Result",
    "ResultGrid",
    "ResumeConfig",
    "RunConfig",
    "Stopper",
    "StorageError",
    "SyncConfig",
    "Trainable",
    "Trial",
    "TrialContext",
    "TuneConfig",
    "TuneContext",
    "TuneError",
    "Tuner",
    "checkpoint_dir",
    "choice",
    "create_scheduler",
    "create_searcher",
    "get_checkpoint",
    "get_context",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "grid_search",
    "is_session_enabled",
    "logger",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "register_trainable",
    "report",
    "run",
    "run_experiments",
    "sample_from",
    "save_learning_curves",
    "save_plots",
    "save_report",
    "schedulers",
    "search",
    "stopper",
    "suggest",
    "uniform",
    "with_parameters",
    "with_resources",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
