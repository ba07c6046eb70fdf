"""One run from its plan to its trials: everything ``tune.run`` and ``Tuner`` have in common."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import skate
from skate.tune.callback import Callback, CallbackList, restore_states
from skate.tune.checkpoint import Checkpoint
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.claim import Claim, claim, claim_new
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
from skate.tune.orchestrator import Orchestrator
from skate.tune.plan import Plan
from skate.tune.resources import UNBOUNDED_CONCURRENCY, PlacementGroupFactory, concurrency
from skate.tune.resume import apply, can_restore, load_run
from skate.tune.run_log import RunLog
from skate.tune.runner import Runner
from skate.tune.scheduler_files import SchedulerFiles
from skate.tune.state_writer import StateWriter
from skate.tune.storage import LocalStorage, Storage, is_url, open_storage
from skate.tune.trainable import is_class, trainable_name
from skate.tune.trial import Trial, TrialCheckpoint
from skate.tune.trial_folder import FolderUse
from skate.tune.troubles import Troubles


def carry_out(plan: Plan) -> FinishedRun:
    """Run all trials of a run that has been planned.

    Raises:
        MetricError: trials do not report what the run is about.
        StorageError: the storage cannot be written; no trial has started.
        TuneError: another run goes on in its folder; no trial has started.
        Exception: a trial failed, and ``fail_fast`` is "raise".
    """
    run_config = plan.settings.run_config
    place = results_place(run_config.storage_path).rstrip("/")
    folder = results_folder(run_config.storage_path)
    if run_config.name:
        claimed = claim(folder, run_config.name)
    else:
        name = f"{trainable_name(plan.trainable)}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        if is_url(place):
            # A folder made on this machine keeps no other away from the URL.
            name += f"_{os.urandom(3).hex()}"
        claimed = claim_new(folder, name)
    with claimed:
        name = claimed.path.relative_to(folder).as_posix()
        return _carry_out(plan, claimed, name, open_storage(f"{place}/{name}"))


def _carry_out(plan: Plan, claimed: Claim, name: str, storage: Storage) -> FinishedRun:
    settings, path = plan.settings, claimed.path
    tune_config, run_config = settings.tune_config, settings.run_config
    objective, searcher, scheduler, stopper = (
        plan.objective,
        plan.searcher,
        plan.scheduler,
        plan.stopper,
    )
    saved = None
    resume = plan.resume
    if resume is not None and (resume.required or can_restore(storage)):
        saved = load_run(storage, claimed, resume.config)
        if objective.metric is None:
            objective = saved.objective
            searcher.set_search_properties(objective.metric, objective.mode, {})
        if saved.informed and objective.metric is not None and objective.mode is not None:
            scheduler.set_search_properties(objective.metric, objective.mode)
        searcher.set_state(saved.searcher)
        scheduler.set_state(saved.scheduler)
        stopper.set_state(saved.stopper)
        restore_states(run_config.callbacks, saved.callbacks)
    if run_config.sync_config is not None and run_config.sync_config.sync_artifacts:
        _warn_of_other_machines(storage)
    total = skate.cluster_resources()
    request = plan.request
    slots = UNBOUNDED_CONCURRENCY
    if isinstance(request, PlacementGroupFactory):
        slots = max(slots, concurrency(request.required_resources, total))
    if plan.max_concurrent is not None:
        slots = min(slots, plan.max_concurrent)
    checkpoints = run_config.checkpoint_config
    keeper = CheckpointKeeper(checkpoints, storage)
    orchestrator = Orchestrator(
        searcher,
        scheduler,
        stopper,
        objective,
        Limits(
            slots,
            plan.num_samples,
            run_config.failure_config.max_failures,
            bool(run_config.failure_config.fail_fast),
            total,
        ),
        settings.space,
        id_prefix=os.urandom(3).hex() if saved is None else saved.id_prefix,
        resources_of=request if callable(request) else _always(request),
        christen=_Names(trainable_name(plan.trainable), tune_config, saved, keeper),
    )
    troubles = Troubles()
    files = ResultFiles(path, troubles)
    callback = CallbackList(
        [
            files,
            *_event_loggers(run_config.callbacks, keeper),
            RunLog(claimed, troubles),
            SchedulerFiles(path, scheduler, troubles),
            StateWriter(
                name,
                storage,
                path,
                keeper,
                files,
                troubles,
                plan.encoded,
                run_config.callbacks,
            ),
            *_displays(run_config),
            *(each for each in run_config.callbacks if not isinstance(each, TBXLoggerCallback)),
        ]
    )
    saving = None
    if is_class(plan.trainable):
        saving = Saving(
            checkpoints.checkpoint_frequency or 0,
            bool(checkpoints.checkpoint_at_end),
            scheduler.needs_checkpoints,
            plan.exports,
        )
    # The trainable is stored once; every actor reads it from there.
    homes = Homes(
        skate.put(plan.trainable),
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
            orchestrator,
            homes,
            keeper,
            callback,
            ctrl_c,
            name,
            saving is not None,
            plan.budget_s,
            None if plan.start is None else _origin(plan.start),
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


def _origin(checkpoint: Checkpoint) -> TrialCheckpoint:
    """Return a checkpoint as trials are given one, on whatever machine they run."""
    done = checkpoint.get_metadata()  # what classes write there
    iteration, seconds = done.get("iteration"), done.get("time_total_s")
    return TrialCheckpoint(
        skate.put(checkpoint.pack()),
        iteration=iteration if isinstance(iteration, int) else 0,
        time_total_s=seconds if isinstance(seconds, (int, float)) else 0.0,
    )


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
