"""What a user says about a run, beside the trainable and the space."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.exceptions import NotSupportedError
from skate.tune.callback import Callback
from skate.tune.file_names import trouble_with
from skate.tune.schedulers import TrialScheduler
from skate.tune.search import Searcher
from skate.tune.storage import is_url, local_folder
from skate.tune.trial import Trial

if TYPE_CHECKING:
    from skate.tune.progress_reporter import ProgressReporter

#: What the run itself writes into the folder of each trial.
TRIAL_FILES = frozenset({"params.json", "result.json", "progress.csv", "error.txt"})


@dataclass
class FailureConfig:
    """What to do about trials that fail.

    Attributes:
        max_failures: how often a failed trial is started again, in a fresh process; -1 for always.
        fail_fast: end the run with the first trial that fails for good; "raise": and raise its
            error.

    Raises:
        TypeError, ValueError: one of them makes no sense.
    """

    max_failures: int = 0
    fail_fast: bool | str = False

    def __post_init__(self) -> None:
        check_integer("max_failures", self.max_failures, least=-1)
        if not isinstance(self.fail_fast, bool) and self.fail_fast != "raise":
            raise ValueError(f"fail_fast wants True, False or 'raise', got {self.fail_fast!r}")


@dataclass
class CheckpointConfig:
    """Which checkpoints are made and kept.

    Attributes:
        num_to_keep: how many stay of each trial; None for all.  The newest always stays.
        checkpoint_score_attribute: the metric by which those to keep are chosen; the newest if
            None.
        checkpoint_score_order: "max" or "min": which values of it are good.
        checkpoint_frequency: ``Trainable`` classes save one every so many iterations; 0 for only
            when one is wanted.  Functions report them when they like.
        checkpoint_at_end: whether ``Trainable`` classes save one when their trial ends.

    Raises:
        TypeError, ValueError: one of them makes no sense.
    """

    num_to_keep: int | None = None
    checkpoint_score_attribute: str | None = None
    checkpoint_score_order: str = "max"
    checkpoint_frequency: int | None = 0
    checkpoint_at_end: bool | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_frequency is None:  # as Ray's scripts may say
            self.checkpoint_frequency = 0
        if self.num_to_keep is not None:
            check_integer("num_to_keep", self.num_to_keep, least=1)
        attribute = self.checkpoint_score_attribute
        if attribute is not None and not isinstance(attribute, str):
            raise TypeError(
                f"checkpoint_score_attribute wants the name of a metric, got {attribute!r}"
            )
        if self.checkpoint_score_order not in ("max", "min"):
            raise ValueError(
                f"checkpoint_score_order has to be 'max' or 'min', got"
                f" {self.checkpoint_score_order!r}"
            )
        check_integer("checkpoint_frequency", self.checkpoint_frequency, least=0)


@dataclass
class SyncConfig:
    """How Ray Tune brings the files of a run to its storage.

    Skate does that by itself: checkpoints and the state go there directly, and all that is in the
    folders of the trials on the driver's machine is sent every ten seconds, if it has changed.  So
    most of this is there for scripts that say it, and means nothing.

    Attributes:
        sync_period: means nothing.
        sync_timeout: means nothing.
        sync_artifacts: whether files that trials write into their folders are wanted on the
            storage.  Those on the driver's machine are sent in any case, those on other machines
            are not: then there is a warning.
        sync_artifacts_on_checkpoint: means nothing.
        upload_dir: what ``storage_path`` was called in 2022.
        syncer: "auto" or None.
        sync_on_checkpoint: means nothing.

    Raises:
        NotSupportedError: a ``syncer`` of one's own, which Skate would not call.
    """

    sync_period: float = 300
    sync_timeout: float = 1800
    sync_artifacts: bool = False
    sync_artifacts_on_checkpoint: bool = True
    upload_dir: str | None = None
    syncer: object = "auto"
    sync_on_checkpoint: bool = True

    def __post_init__(self) -> None:
        if self.syncer not in ("auto", None):
            raise NotSupportedError(
                f"SyncConfig(syncer={self.syncer!r}): Skate itself writes to the storage, through"
                " fsspec; give storage_path a URL that fsspec understands"
            )


@dataclass
class TuneConfig:
    """How to search.

    Attributes:
        metric: what to optimize; if None, the first number of the first report.
        mode: "min" or "max"; if None, what the name of the metric suggests.
        search_alg: a ``Searcher``, "random" or "optuna"; random and grid search if None.
        scheduler: a ``TrialScheduler``, "fifo" or "asha"; "fifo" if None.
        num_samples: how many trials (passes over the grid, if there is one); -1 for no limit.
        max_concurrent_trials: how many trials run at a time, at most; None for as many as fit.
        time_budget_s: the run ends after so many seconds.
        reuse_actors: whether a process runs one trial after another.
        seed: for searchers given by name, and the default one.
        trial_name_creator: gets a new trial and returns what it is called where it is shown; its
            id if None.
        trial_dirname_creator: gets it too and returns the name of its folder.
    """

    metric: str | None = None
    mode: str | None = None
    search_alg: Searcher | str | None = None
    scheduler: TrialScheduler | str | None = None
    num_samples: int = 1
    max_concurrent_trials: int | None = None
    time_budget_s: float | timedelta | None = None
    reuse_actors: bool = True
    seed: int | None = None
    trial_name_creator: Callable[[Trial], str] | None = None
    trial_dirname_creator: Callable[[Trial], str] | None = None


@dataclass
class RunConfig:
    """Where results go and what is shown.

    Attributes:
        name: name of the run and its folder; made from the trainable's name and the time if None.
        storage_path: the folder of all runs: a path, or a URL that fsspec understands, such as
            ``s3://bucket/runs``; ``~/skate_results`` if None, or what the environment variable
            ``SKATE_RESULTS_DIR`` says.
        stop: what ends a trial: thresholds (``{"training_iteration": 10}``), a function of trial id
            and result, or a ``Stopper``.
        failure_config: what to do about trials that fail.
        checkpoint_config: which checkpoints are made and kept.
        callbacks: hooks into the run.
        verbose: 0 for silence; anything else for a table (in a terminal) or lines.
        progress_reporter: shows the run instead, such as a ``CLIReporter``.
        log_to_file: whether what trials print is copied into their folders: True for the files
            "stdout" and "stderr", the name of a file for both, or two names.  What other programs
            and libraries in C write past Python is not in them.  A thread that a trial starts and
            leaves behind writes into the file of the trial that its process runs next, as the
            threads of a pool do that both use; ``reuse_actors=False`` gives each trial a process of
            its own.
        sync_config: for scripts of Ray Tune; see there.
        storage_filesystem: for scripts of Ray Tune; the storage is found by its URL.

    Raises:
        NotSupportedError: there is a ``storage_filesystem``.
        TypeError: ``name`` is no text, or a part of it is of another kind.
        ValueError: ``name`` is that of no folder below ``storage_path``; ``log_to_file`` is none of
            these; or ``sync_config`` names another place than
            ``storage_path``.
    """

    name: str | None = None
    storage_path: str | os.PathLike[str] | None = None
    stop: Any = None
    failure_config: FailureConfig = field(default_factory=FailureConfig)
    checkpoint_config: CheckpointConfig = field(default_factory=CheckpointConfig)
    callbacks: Sequence[Callback] = ()
    verbose: int = 1
    progress_reporter: ProgressReporter | None = None
    log_to_file: bool | str | Sequence[str] = False
    sync_config: SyncConfig | None = None
    storage_filesystem: object = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        refuse_filesystem(self.storage_filesystem)
        output_files(self.log_to_file)
        sync = self.sync_config
        if sync is not None:
            _check_kind("sync_config", vars(self), SyncConfig)
        if sync is not None and sync.upload_dir is not None:
            if self.storage_path is not None:
                raise ValueError(
                    "SyncConfig(upload_dir=...) is the older name of storage_path (local_dir is,"
                    " too); give one of them.  Where the files of trials are written on this"
                    " machine before they are sent says the environment variable SKATE_RESULTS_DIR"
                )
            self.storage_path = sync.upload_dir
            self.sync_config = replace(sync, upload_dir=None)
        # Ray's scripts say None for what they leave alone.
        given: dict[str, Any] = vars(self)
        if given["failure_config"] is None:
            self.failure_config = FailureConfig()
        if given["checkpoint_config"] is None:
            self.checkpoint_config = CheckpointConfig()
        if given["callbacks"] is None:
            self.callbacks = ()
        if given["verbose"] is None:
            self.verbose = 1
        _check_kind("failure_config", given, FailureConfig)
        _check_kind("checkpoint_config", given, CheckpointConfig)
        callbacks = given["callbacks"]
        if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
            raise TypeError(f"callbacks wants a list of them, got {callbacks!r:.100}")


def refuse_filesystem(filesystem: object) -> None:
    """Refuse what scripts of Ray Tune may give beside a path.

    Raises:
        NotSupportedError: it is something.
    """
    if filesystem is not None:
        raise NotSupportedError(
            f"storage_filesystem={type(filesystem).__name__}: trials on all machines open the"
            " storage by its URL; give storage_path one that fsspec understands (s3://bucket/runs),"
            " and what its file system needs in fsspec's own configuration, such as"
            " FSSPEC_S3_ENDPOINT_URL in the environment"
        )


def _check_kind(name: str, given: Mapping[str, Any], kind: type) -> None:
    if not isinstance(given[name], kind):
        raise TypeError(f"{name} wants a {kind.__name__}, got {given[name]!r:.100}")


def check_integer(name: str, number: object, least: int) -> None:
    """Check a setting that counts something.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less than ``least``.
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"{name} wants an integer, got {number!r:.100}")
    if number < least:
        raise ValueError(f"{name} has to be at least {least}, got {number}")


def _check_name(name: object) -> None:
    """Check that a run's folder is below that of all runs."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"the name of a run is text, got {name!r}")
    trouble = trouble_with(name) if name else ""
    if trouble:
        raise ValueError(
            f"{name!r} is no name of a run: it {trouble}; it names its folder below"
            " storage_path=..., which says where"
        )


def output_files(log_to_file: object) -> tuple[str | None, str | None]:
    """Return the names of the files that get what a trial prints, as ``RunConfig`` has them.

    Raises:
        ValueError: that means nothing, or one can be no name of a file.
    """
    if not log_to_file:
        return None, None
    if log_to_file is True:
        return "stdout", "stderr"
    if isinstance(log_to_file, str):
        return _output_file(log_to_file), _output_file(log_to_file)
    if isinstance(log_to_file, Sequence):
        names = [name for name in log_to_file if isinstance(name, str) and name]
        if len(names) == len(log_to_file) == 2:
            return _output_file(names[0]), _output_file(names[1])
    raise ValueError(
        "log_to_file wants True, the name of a file, or two names (stdout, stderr), got"
        f" {log_to_file!r}"
    )


def _output_file(name: str) -> str:
    trouble = trouble_with(name)
    if name in TRIAL_FILES:
        trouble = "is that of a file that every trial has"
    if trouble:
        raise ValueError(f"log_to_file: {name!r} {trouble}; it names a file in a trial's folder")
    return name


def results_place(storage_path: str | os.PathLike[str] | None) -> str:
    """Return the path or URL of the folder of all runs."""
    if storage_path is None:
        storage_path = os.environ.get("SKATE_RESULTS_DIR") or "~/skate_results"
    return os.fspath(storage_path) if is_url(storage_path) else str(local_folder(storage_path))


def results_folder(storage_path: str | os.PathLike[str] | None) -> Path:
    """Return the folder on this machine where the files of trials are written.

    It is the folder of all runs; if that is a URL, the one that would be without it.
    """
    for place in (storage_path, os.environ.get("SKATE_RESULTS_DIR")):
        if place and not is_url(place):
            return local_folder(place)
    return local_folder("~/skate_results")


def logs_by_itself() -> bool:
    """Say whether runs write for TensorBoard without being told to."""
    return os.environ.get("SKATE_DISABLE_AUTO_CALLBACK_LOGGERS", "0") != "1"


def works_in_trial_folders() -> bool:
    """Say whether the processes of trials change to the folders of these."""
    return os.environ.get("SKATE_CHDIR_TO_TRIAL_DIR", "1") != "0"
