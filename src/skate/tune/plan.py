"""A run before it begins: everything that can be wrong about its settings is found here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import skate
from skate.tune.callback import CallbackList
from skate.tune.checkpoint import Checkpoint
from skate.tune.config import TuneConfig, results_place
from skate.tune.mode import check_mode
from skate.tune.objective import Objective
from skate.tune.resources import as_factory
from skate.tune.resume import Resume, Settings, can_restore, encode_tuner, nothing_there
from skate.tune.schedulers import FIFOScheduler, TrialScheduler, create_scheduler
from skate.tune.schedulers.compatibility import check_together
from skate.tune.search import BasicVariantGenerator, Searcher, create_searcher
from skate.tune.search import space as spaces
from skate.tune.search.searcher import leading_objective
from skate.tune.stopper import Stopper, as_stopper
from skate.tune.storage import open_storage
from skate.tune.trainable import Function, Request, check, is_class, unwrap
from skate.tune.trainable_class import ExportFormat, Trainable


@dataclass(slots=True)
class Plan:
    """What ``carry_out`` (``execute.py``) needs to know about a run.

    Attributes:
        trainable: what trials run.
        settings: what the user says about the run.
        request: what trials need.
        objective: what the run goes by, as far as it is known.
        budget_s: the run ends after so many seconds; None for no limit.
        start: what trials start from that have no checkpoint of their own.
        exports: in which formats what they have trained is exported.
        encoded: the settings as they are saved; None if they cannot be.
        resume: the wish to go on with a run that was cut short.
    """

    trainable: Function
    settings: Settings
    request: Request
    objective: Objective
    scheduler: TrialScheduler
    searcher: Searcher
    stopper: Stopper
    num_samples: int
    max_concurrent: int | None
    budget_s: float | None
    start: Checkpoint | None
    exports: list[str]
    encoded: bytes | None
    resume: Resume | None


def plan(trainable: Function, settings: Settings, resume: Resume | None = None) -> Plan:
    """Check everything about a run.  There is a session afterwards, if there was none.

    Raises:
        TypeError, ValueError: a setting makes no sense.
        ImportError: the storage needs a package that is not installed.
        StorageError: the run to be resumed, or the checkpoint to start from, cannot be read.
        TuneError: there is no run to resume.
    """
    check(trainable)
    space, tune_config, run_config = settings.space, settings.tune_config, settings.run_config
    spaces.validate(space)
    # Now: searcher and scheduler will have learned something later.
    encoded = encode_tuner(settings)
    function, request = unwrap(trainable)
    if settings.resources is not None:
        request = as_factory(settings.resources)
    budget = _seconds(tune_config.time_budget_s)
    objective, scheduler, searcher = _strategy(tune_config)
    stopper = as_stopper(run_config.stop)
    ends = budget is not None or stopper.may_stop_all or not searcher.is_endless
    num_samples = _num_samples(tune_config.num_samples, ends)
    max_concurrent = tune_config.max_concurrent_trials
    if max_concurrent is not None:
        max_concurrent = _positive("max_concurrent_trials", max_concurrent)
    for name in ("trial_name_creator", "trial_dirname_creator"):
        creator = getattr(tune_config, name)
        if creator is not None and not callable(creator):
            raise TypeError(f"{name} wants a function of a trial, got {creator!r:.100}")
    CallbackList(run_config.callbacks)
    storage = open_storage(
        f"{results_place(run_config.storage_path).rstrip('/')}/{run_config.name or ''}"
    )
    if resume is not None and resume.required and not can_restore(storage):
        raise nothing_there(storage)
    if not searcher.set_search_properties(objective.metric, objective.mode, space):
        raise ValueError(
            f"{type(searcher).__name__} has a search space of its own; give it there or in the run,"
            " not in both"
        )
    made = Plan(
        function,
        settings,
        request if callable(request) else as_factory(request),
        objective,
        scheduler,
        searcher,
        stopper,
        num_samples,
        max_concurrent,
        budget,
        _start(settings.restore),
        _exports(function, settings.export_formats),
        encoded,
        resume,
    )
    _ensure_session()
    _check_values(space)
    return made


def _start(checkpoint: object) -> Checkpoint | None:
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if not isinstance(checkpoint, (str, os.PathLike)) or not os.fspath(checkpoint):
        raise TypeError(f"restore wants a checkpoint, its path or its URL, got {checkpoint!r}")
    return Checkpoint.from_directory(checkpoint)


def _exports(function: Function, formats: Sequence[str] | None) -> list[str]:
    if formats is not None and not isinstance(formats, Sequence):
        raise TypeError(f"export_formats wants a list of formats, got {formats!r:.100}")
    exports = ExportFormat.check(formats or ())
    if not exports:
        return []
    base = Trainable
    if not is_class(function) or (
        function._export_model is base._export_model and function.export_model is base.export_model
    ):
        raise ValueError(
            "export_formats is for Trainable classes that have a method _export_model; functions"
            " write their models into a checkpoint, or the trial's folder"
        )
    return exports


def _strategy(config: TuneConfig) -> tuple[Objective, TrialScheduler, Searcher]:
    """Return objective, scheduler and searcher; what one of them knows goes for all."""
    scheduler = _scheduler(config.scheduler)
    searcher = _searcher(config.search_alg, config.seed)
    check_together(scheduler, searcher)
    check_mode(config.mode)
    if isinstance(config.metric, (list, tuple)):
        raise TypeError(
            f"the run goes by one metric, got {list(config.metric)!r}; several objectives are for"
            " the searcher: OptunaSearch(metric=[...], mode=[...])"
        )
    own_metric, own_mode = leading_objective(searcher, config.metric or scheduler.metric)
    metric = _agree("metric", config.metric, scheduler.metric, own_metric)
    mode = _agree("mode", config.mode, scheduler.mode, own_mode)
    return Objective(metric, mode), scheduler, searcher


def _agree(what: str, *values: str | None) -> str | None:
    given = {value for value in values if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"the run, its scheduler and its searcher do not agree on the {what}: {sorted(given)}"
        )
    return given.pop() if given else None


def _scheduler(scheduler: object) -> TrialScheduler:
    if scheduler is None:
        return FIFOScheduler()
    if isinstance(scheduler, str):
        return create_scheduler(scheduler)
    if isinstance(scheduler, TrialScheduler):
        return scheduler
    raise TypeError(f"scheduler wants a name or a TrialScheduler, got {scheduler!r}")


def _searcher(searcher: object, seed: int | None) -> Searcher:
    if searcher is None:
        return BasicVariantGenerator(random_state=seed)
    if isinstance(searcher, str):
        return create_searcher(searcher, seed)
    if isinstance(searcher, Searcher):
        return searcher
    raise TypeError(f"search_alg wants a name or a Searcher, got {searcher!r}")


def _num_samples(number: object, ends: bool) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"num_samples wants an integer, got {number!r}")
    if number < -1 or number == 0:
        raise ValueError(f"num_samples has to be at least 1, or -1 for no limit, got {number}")
    if number == -1 and not ends:
        raise ValueError(
            "num_samples=-1 runs for ever; say when to end: time_budget_s=..., or stop= with a"
            " Stopper that ends the run, such as ExperimentPlateauStopper"
        )
    return number


def _positive(what: str, number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} has to be an integer above 0, got {number!r}")
    return number


def _seconds(budget: object) -> float | None:
    if isinstance(budget, timedelta):
        budget = budget.total_seconds()
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget > 0:
        raise ValueError(f"time_budget_s has to be a number of seconds above 0, got {budget!r}")
    return float(budget)


def _ensure_session() -> None:
    if not skate.is_initialized():
        skate.init(ignore_reinit_error=True)  # another thread may have begun one meanwhile


def _check_values(space: Mapping[str, Any]) -> None:
    """Find out now whether the values of the space can travel, not once per trial.

    Raises:
        SerializationError: one cannot; the message names it.
    """
    if space:
        skate.put(spaces.written_values(space))
