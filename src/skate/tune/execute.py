"""One run from its settings to its trials: everything ``tune.run`` and ``Tuner`` have in common."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import skate
from skate.tune.callback import Callback, CallbackList
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.class_runs import Saving
from skate.tune.config import (
    RunConfig,
    TuneConfig,
    logs_by_itself,
    output_files,
    results_folder,
    results_place,
    works_in_trial_folders,
)
from skate.tune.ctrl_c import CtrlC
from skate.tune.experiment_state import SavedRun
from skate.tune.file_names import trouble_with
from skate.tune.files import ResultFiles
from skate.tune.finished_run import FinishedRun
from skate.tune.homes import Homes
from skate.tune.limits import Limits
from skate.tune.logger.tensorboardx import TBXLoggerCallback
from skate.tune.mode import check_mode
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
from skate.tune.resources import (
    UNBOUNDED_CONCURRENCY,
    PlacementGroupFactory,
    Resources,
    as_factory,
    concurrency,
)
from skate.tune.resume import Resume, apply, can_restore, encode_tuner, load_run
from skate.tune.run_log import RunLog
from skate.tune.runner import Runner
from skate.tune.scheduler_files import SchedulerFiles
from skate.tune.schedulers import FIFOScheduler, TrialScheduler, create_scheduler
from skate.tune.schedulers.compatibility import check_together
from skate.tune.search import BasicVariantGenerator, Searcher, create_searcher
from skate.tune.search import space as spaces
from skate.tune.search.searcher import leading_objective
from skate.tune.state_writer import StateWriter
from skate.tune.stopper import as_stopper
from skate.tune.storage import LocalStorage, Storage, open_storage
from skate.tune.trainable import Function, check, is_class, trainable_name, unwrap
from skate.tune.trial import Trial
from skate.tune.trial_folder import FolderUse
from skate.tune.troubles import Troubles


def execute(
    trainable: Function,
    space: Mapping[str, Any] | None,
    tune_config: TuneConfig,
    run_config: RunConfig,
    resources: Resources | None = None,
    resume: Resume | None = None,
) -> FinishedRun:
    """Check everything, then run all trials.

    Args:
        trainable: what to run.
        space: the search space.
        tune_config: how to search.
        run_config: where results go; with ``resume`` it names the run.
        resources: what each trial needs.
        resume: go on with a run that was cut short.

    Raises:
        TypeError, ValueError: a setting makes no sense; no trial has started.
        MetricError: trials do not report what the run is about.
        StorageError: the storage cannot be written; no trial has started.
        TuneError: there is no run to resume.
        Exception: a trial failed, and ``fail_fast`` is "raise".
    """
    check(trainable)
    space = {} if space is None else space
    spaces.validate(space)
    # Now: searcher and scheduler will have learned something later.
    tuner = encode_tuner(space, tune_config, run_config, resources)
    function, request = unwrap(trainable)
    if resources is not None:
        request = as_factory(resources)
    budget = _seconds(tune_config.time_budget_s)
    objective, scheduler, searcher = _strategy(tune_config)
    stopper = as_stopper(run_config.stop)
    ends = budget is not None or stopper.may_stop_all or not searcher.is_endless
    num_samples = _num_samples(tune_config.num_samples, ends)
    label = trainable_name(function)
    name = run_config.name or f"{label}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    path = results_folder(run_config.storage_path) / name
    storage = open_storage(f"{results_place(run_config.storage_path).rstrip('/')}/{name}")
    saved = None
    if resume is not None and (resume.required or can_restore(storage)):
        saved = load_run(storage, path, resume.config)
        if objective.metric is None:
            objective = saved.objective
    if not searcher.set_search_properties(objective.metric, objective.mode, space):
        raise ValueError(
            f"{type(searcher).__name__} has a search space of its own; give it there or in the run,"
            " not in both"
        )
    if saved is not None:
        if saved.informed and objective.metric is not None and objective.mode is not None:
            scheduler.set_search_properties(objective.metric, objective.mode)
        searcher.set_state(saved.searcher)
        scheduler.set_state(saved.scheduler)
        stopper.set_state(saved.stopper)

    _ensure_session()
    _check_values(space)
    if run_config.sync_config is not None and run_config.sync_config.sync_artifacts:
        _warn_of_other_machines(storage)
    total = skate.cluster_resources()
    slots = UNBOUNDED_CONCURRENCY
    if not callable(request):
        request = as_factory(request)
        slots = max(slots, concurrency(request.required_resources, total))
    if tune_config.max_concurrent_trials is not None:
        slots = min(slots, _positive("max_concurrent_trials", tune_config.max_concurrent_trials))
    checkpoints = run_config.checkpoint_config
    keeper = CheckpointKeeper(checkpoints, storage)
    orchestrator = Orchestrator(
        searcher,
        scheduler,
        stopper,
        objective,
        Limits(
            slots,
            num_samples,
            run_config.failure_config.max_failures,
            bool(run_config.failure_config.fail_fast),
            total,
        ),
        space,
        id_prefix=os.urandom(3).hex() if saved is None else saved.id_prefix,
        resources_of=request if callable(request) else _always(request),
        christen=_Names(label, tune_config, saved, keeper),
    )
    troubles = Troubles()
    files = ResultFiles(path, troubles)
    callback = CallbackList(
        [
            files,
            *_event_loggers(run_config.callbacks, keeper),
            RunLog(path, troubles),
            SchedulerFiles(path, scheduler, troubles),
            StateWriter(name, storage, path, keeper, files, troubles, tuner),
            *_displays(run_config),
            *(each for each in run_config.callbacks if not isinstance(each, TBXLoggerCallback)),
        ]
    )
    saving = None
    if is_class(function):
        saving = Saving(
            checkpoints.checkpoint_frequency or 0,
            bool(checkpoints.checkpoint_at_end),
            scheduler.needs_checkpoints,
        )
    # The trainable is stored once; every actor reads it from there.
    homes = Homes(
        skate.put(function),
        saving,
        tune_config.reuse_actors,
        FolderUse(
            skate.get_runtime_context().get_worker_id(),
            works_in_trial_folders(),
            *output_files(run_config.log_to_file),
        ),
    )
    if saved is not None and resume is not None:
        apply(saved, orchestrator, keeper, resume)
    start = time.monotonic()
    with CtrlC() as ctrl_c:
        runner = Runner(
            orchestrator, homes, keeper, callback, ctrl_c, name, saving is not None, budget
        )
        callback.setup(name=name, path=path, orchestrator=orchestrator)
        try:
            runner.run()
        finally:
            try:
                callback.on_experiment_end(
                    orchestrator.trials, end_reason=orchestrator.end_reason, cpu_s=runner.cpu_s
                )
            finally:
                keeper.close()
                troubles.note(keeper.take_errors())
    elapsed = time.monotonic() - start
    finished = FinishedRun(
        name,
        path,
        orchestrator.trials,
        objective,
        elapsed,
        orchestrator.end_reason,
        runner.cpu_s,
        {trial.trial_id: keeper.kept(trial.trial_id) for trial in orchestrator.trials},
        storage.where(""),
        troubles.errors,
    )
    if run_config.failure_config.fail_fast == "raise" and finished.failed:
        error = finished.failed[0].error
        assert error is not None
        raise error
    return finished


class _Names:
    """Gives trials their names, and folders of their own.

    Args:
        trainable: what they run.
        config: says how.
        before: an earlier part of the run.
        keeper: deletes what trials of it left in folders that are taken again.
    """

    def __init__(
        self,
        trainable: str,
        config: TuneConfig,
        before: SavedRun | None,
        keeper: CheckpointKeeper,
    ) -> None:
        self._trainable = trainable
        self._config = config
        self._keeper = keeper
        self._folders = set() if before is None else {each.trial.folder for each in before.trials}
        self._unclaimed = {} if before is None else before.unclaimed

    def __call__(self, trial: Trial) -> None:
        """Name a new trial.

        Raises:
            TypeError: what the user's function returns is no text.
            ValueError: it is no name of a folder, or that of another trial.
        """
        trial.trainable_name = self._trainable
        if self._config.trial_name_creator is not None:
            trial.name = _text("trial_name_creator", self._config.trial_name_creator(trial))
        if self._config.trial_dirname_creator is None:
            return
        folder = _text("trial_dirname_creator", self._config.trial_dirname_creator(trial))
        trouble = "has a / in it" if "/" in folder else trouble_with(folder)
        if trouble:
            raise ValueError(
                f"trial_dirname_creator returned {folder!r}, no name of a folder: it {trouble}"
            )
        if folder in self._folders:
            raise ValueError(
                f"trial_dirname_creator returned {folder!r} for two trials; put trial.trial_id in"
            )
        self._folders.add(folder)
        trial.folder = folder
        for name in self._unclaimed.pop(folder, ()):
            self._keeper.delete(name)


def _text(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} has to return text, got {name!r}")
    if not name:
        raise ValueError(f"{what} returned an empty name")
    return name


def _always(resources: PlacementGroupFactory) -> Callable[[dict[str, Any]], PlacementGroupFactory]:
    return lambda config: resources


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
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or budget <= 0:
        raise ValueError(f"time_budget_s has to be a number of seconds above 0, got {budget!r}")
    return float(budget)


def _warn_of_other_machines(storage: Storage) -> None:
    """Say what sync_artifacts cannot do here."""
    hosts = {node["NodeManagerHostname"] for node in skate.nodes() if node["Alive"]}
    if len(hosts) > 1 and not isinstance(storage, LocalStorage):
        warnings.warn(
            f"sync_artifacts: files that trials write into their folders on other machines than"
            f" this stay there; only checkpoints go to {storage.where('')} from everywhere",
            RuntimeWarning,
            stacklevel=2,
        )


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


def _event_loggers(callbacks: Sequence[Callback], keeper: CheckpointKeeper) -> list[Callback]:
    """Return what writes for TensorBoard: before the state, which is written with all files."""
    loggers = [each for each in callbacks if isinstance(each, TBXLoggerCallback)]
    if not loggers and logs_by_itself():
        loggers = [TBXLoggerCallback()]
    for logger in loggers:
        logger.do_later = keeper.do_later
    return [*loggers]


def _displays(config: RunConfig) -> list[Callback]:
    if config.progress_reporter is not None:
        from skate.tune.progress_reporter import ReporterCallback

        shown = ReporterCallback(config.progress_reporter)
        return [shown] if config.verbose else []
    if not config.verbose:
        return []
    from skate.tune.display import display

    return [display()]
