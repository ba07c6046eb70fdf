"""``tune.run``: the entrance of 2022."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

from skate.tune.callback import Callback
from skate.tune.checkpoint import Checkpoint
from skate.tune.config import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    SyncConfig,
    TuneConfig,
)
from skate.tune.error import TuneError, describe
from skate.tune.execute import carry_out
from skate.tune.experiment import Experiment, as_experiments
from skate.tune.experiment_analysis import ExperimentAnalysis
from skate.tune.finished_run import FinishedRun
from skate.tune.plan import Plan, plan
from skate.tune.progress_reporter import ProgressReporter
from skate.tune.registry import resolve
from skate.tune.resources import Resources
from skate.tune.resume import ResumeConfig, Settings, parse_resume
from skate.tune.schedulers import TrialScheduler
from skate.tune.search import Searcher
from skate.tune.trainable import Function
from skate.tune.trial import Trial


def run(
    run_or_experiment: Function | str | Experiment,
    *,
    name: str | None = None,
    metric: str | None = None,
    mode: str | None = None,
    stop: Any = None,
    time_budget_s: float | timedelta | None = None,
    config: Mapping[str, Any] | None = None,
    resources_per_trial: Resources | None = None,
    num_samples: int = 1,
    storage_path: str | os.PathLike[str] | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    search_alg: Searcher | str | None = None,
    scheduler: TrialScheduler | str | None = None,
    verbose: int | None = None,
    progress_reporter: ProgressReporter | None = None,
    log_to_file: bool | str | Sequence[str] = False,
    sync_config: SyncConfig | None = None,
    callbacks: Sequence[Callback] | None = None,
    max_failures: int = 0,
    fail_fast: bool | str = False,
    checkpoint_config: CheckpointConfig | None = None,
    checkpoint_freq: int = 0,
    checkpoint_at_end: bool = False,
    keep_checkpoints_num: int | None = None,
    checkpoint_score_attr: str | None = None,
    raise_on_failed_trial: bool = True,
    reuse_actors: bool = True,
    max_concurrent_trials: int | None = None,
    seed: int | None = None,
    trial_name_creator: Callable[[Trial], str] | None = None,
    trial_dirname_creator: Callable[[Trial], str] | None = None,
    resume: bool | str | None = None,
    resume_config: ResumeConfig | None = None,
    restore: str | os.PathLike[str] | Checkpoint | None = None,
    export_formats: Sequence[str] | None = None,
    storage_filesystem: object = None,
) -> ExperimentAnalysis:
    """Evaluate a function on configurations from a search space.

    Args:
        run_or_experiment: a function of one configuration that calls ``tune.report``, or returns or
            yields results; a ``Trainable`` class; a name given to ``register_trainable``; or an
            ``Experiment``, which says itself what the arguments of the same names say otherwise.
        name: name of the run and its folder.
        metric: what to optimize; if None, the first number of the first report.
        mode: "min" or "max"; if None, what the name of the metric suggests.
        stop: what ends a trial: thresholds (``{"training_iteration": 10}``), a function of trial id
            and result, or a ``Stopper``.
        time_budget_s: the run ends after so many seconds.
        config: the search space: a dict, perhaps nested, with domains such as
            ``tune.uniform(0, 1)`` in it.
        resources_per_trial: such as ``{"cpu": 2, "gpu": 0.5}``, or a ``PlacementGroupFactory``; one
            CPU if None.
        num_samples: how many trials (passes over the grid, if there is one); -1 for no limit.
        storage_path: the folder of all runs, or a URL that fsspec understands;
            ``~/skate_results`` if None.
        local_dir: the older name of ``storage_path``.
        search_alg: a ``Searcher``, "random" or "optuna"; random and grid search if None.
        scheduler: a ``TrialScheduler``, "fifo" or "asha"; "fifo" if None.
        verbose: 0 for silence; None and anything else for a table (in a terminal) or lines.
        progress_reporter: shows the run instead, such as a ``CLIReporter``.
        log_to_file: whether what trials print is copied into their folders: True for the files
            "stdout" and "stderr", the name of a file for both, or two names.
        sync_config: for scripts of Ray Tune; see ``SyncConfig``.
        callbacks: hooks into the run.
        max_failures: how often a failed trial is started again; -1 for always.
        fail_fast: end the run with the first trial that fails for good; "raise": and raise its
            error.
        checkpoint_config: which checkpoints are made and kept; the four below are the older way to
            say so.
        checkpoint_freq: ``Trainable`` classes save one every so many iterations.
        checkpoint_at_end: whether they save one when their trial ends.
        keep_checkpoints_num: how many stay of each trial.
        checkpoint_score_attr: the metric by which those to keep are chosen; "min-loss" keeps those
            with small values.
        raise_on_failed_trial: whether failed trials make the call raise when all are done.
        reuse_actors: whether a process runs one trial after another.
        max_concurrent_trials: how many trials run at a time, at most; None for as many as fit.
        seed: for searchers given by name, and the default one.
        trial_name_creator: gets a new trial and returns what it is called where it is shown; its
            id if None.
        trial_dirname_creator: gets it too and returns the name of its folder.
        resume: go on with the run of this name that was cut short (see ``Tuner.restore``), with the
            arguments of this call.  True for a run that has to be there, "AUTO" for one that may;
            "ERRORED_ONLY" for the trials that failed, "AUTO+ERRORED" for those too,
            "AUTO+RESTART_ERRORED" to have them start anew.
        resume_config: says for each kind of trial what becomes of it; ``resume`` is True (also if
            left out) or "AUTO" beside it.
        restore: a checkpoint that each trial starts from, its path or its URL.
        export_formats: formats of ``ExportFormat``, in which a ``Trainable`` class exports what it
            has trained into the folder of its trial, when that ends: see its ``_export_model``.
        storage_filesystem: for scripts of Ray Tune; the storage is found by its URL.

    Raises:
        TypeError, ValueError: a setting makes no sense; no trial has started.
        NotSupportedError: there is a ``storage_filesystem``.
        MetricError: trials do not report what the run is about.
        StorageError: the storage cannot be written; no trial has started.
        TuneError: trials failed.
    """
    return _carried_out(_planned(dict(locals())), raise_on_failed_trial)


_DEFAULTS = {name: given.default for name, given in inspect.signature(run).parameters.items()}


def _planned(given: dict[str, Any]) -> Plan:
    """Return the plan of the run with these arguments of ``run``."""
    trainable = given.pop("run_or_experiment")
    if isinstance(trainable, Experiment):
        given = trainable.joined(given, _DEFAULTS)
        trainable = trainable.run
    place = given["storage_path"]
    if given["local_dir"] is not None:
        if place is not None:
            raise ValueError("local_dir is the older name of storage_path; give one of them")
        place = given["local_dir"]
    wish = parse_resume(given["resume"], given["resume_config"])
    if wish is not None and given["name"] is None:
        raise ValueError("resume goes on with a run by its name; say which: name=...")
    searching = {field.name: given[field.name] for field in fields(TuneConfig)}
    return plan(
        resolve(trainable),
        Settings(
            {} if given["config"] is None else given["config"],
            TuneConfig(**searching),
            RunConfig(
                name=given["name"],
                storage_path=place,
                stop=given["stop"],
                failure_config=FailureConfig(given["max_failures"], given["fail_fast"]),
                checkpoint_config=_checkpoints(
                    given["checkpoint_config"],
                    given["checkpoint_freq"],
                    given["checkpoint_at_end"],
                    given["keep_checkpoints_num"],
                    given["checkpoint_score_attr"],
                ),
                progress_reporter=given["progress_reporter"],
                log_to_file=given["log_to_file"],
                sync_config=given["sync_config"],
                storage_filesystem=given["storage_filesystem"],
                **_given(callbacks=given["callbacks"], verbose=given["verbose"]),
            ),
            given["resources_per_trial"],
            given["restore"],
            given["export_formats"] or (),
        ),
        wish,
    )


def _carried_out(plan: Plan, raise_on_failed_trial: bool) -> ExperimentAnalysis:
    experiment = carry_out(plan)
    if raise_on_failed_trial and experiment.failed:
        raise _failure(experiment) from experiment.failed[0].error
    return ExperimentAnalysis(experiment)


def run_experiments(
    experiments: Experiment | Mapping[str, Any] | Sequence[Experiment | Mapping[str, Any]],
    scheduler: TrialScheduler | str | None = None,
    verbose: int | None = None,
    progress_reporter: ProgressReporter | None = None,
    resume: bool | str | None = None,
    resume_config: ResumeConfig | None = None,
    reuse_actors: bool = True,
    raise_on_failed_trial: bool = True,
    concurrent: bool = True,
    callbacks: Sequence[Callback] | None = None,
) -> list[Trial]:
    """Run several experiments, and return the trials of all of them.

    All are checked before the first one begins.  Ctrl-C ends the one that runs; those after it do
    not begin.

    Args:
        experiments: one or several: an ``Experiment``, or a dict with names as keys and what
            ``Experiment.from_json`` takes as values.
        scheduler: for each of them, in the state in which it is given.
        verbose, progress_reporter, resume, resume_config, reuse_actors, callbacks: as for ``run``.
        raise_on_failed_trial: whether an experiment with failed trials makes the call raise when it
            is over; the others do not run then.
        concurrent: means nothing: they run one after the other, each with all resources.

    Raises:
        TypeError, ValueError: they are none, or a setting makes no sense.
        TuneError: trials failed.
    """
    common = {
        "verbose": verbose,
        "progress_reporter": progress_reporter,
        "resume": resume,
        "resume_config": resume_config,
        "reuse_actors": reuse_actors,
        "callbacks": callbacks,
    }
    plans = []
    for experiment in as_experiments(experiments):
        own = {"run_or_experiment": experiment, "scheduler": copy.deepcopy(scheduler)}
        plans.append(_planned({**_DEFAULTS, **common, **own}))
    trials: list[Trial] = []
    for each in plans:
        analysis = _carried_out(each, raise_on_failed_trial)
        trials += analysis.trials
        if analysis.experiment.end_reason == "interrupted":
            break
    return trials


def _given(**settings: Any) -> dict[str, Any]:
    """Return what is not left to the default of the configuration."""
    return {name: value for name, value in settings.items() if value is not None}


def _checkpoints(
    config: CheckpointConfig | None,
    frequency: int,
    at_end: bool,
    number: int | None,
    score: str | None,
) -> CheckpointConfig:
    old = (frequency, at_end, number, score)
    if config is not None:
        if old != (0, False, None, None):
            raise ValueError(
                "checkpoint_freq, checkpoint_at_end, keep_checkpoints_num and checkpoint_score_attr"
                " are the older way to say what is in checkpoint_config; give one of both"
            )
        return config
    smallest = isinstance(score, str) and score.startswith("min-")
    return CheckpointConfig(
        number,
        score[len("min-") :] if score is not None and smallest else score,
        "min" if smallest else "max",
        frequency,
        at_end,
    )


def _failure(experiment: FinishedRun) -> TuneError:
    failed = experiment.failed
    ids = ", ".join(trial.trial_id for trial in failed[:10])
    if len(failed) > 10:
        ids += f" and {len(failed) - 10} more"
    return TuneError(
        f"{len(failed)} of {len(experiment.trials)} trials failed: {ids}\n"
        f"Their errors are in error.txt under {experiment.path}. The first one:"
        f" {describe(failed[0].error)}"
    )
