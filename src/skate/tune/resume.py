"""Going on with a run that was cut short."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import cloudpickle

from skate.tune.checkpoint import Checkpoint
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.claim import LOG_FILE, Claim
from skate.tune.config import RunConfig, TuneConfig
from skate.tune.error import TuneError, describe
from skate.tune.experiment_state import (
    STATE_FILE,
    SUMMARY_FILE,
    TUNER_FILE,
    SavedRun,
    SavedTrial,
    decode,
)
from skate.tune.files import read_lines
from skate.tune.orchestrator import Orchestrator
from skate.tune.resources import Resources
from skate.tune.storage import LocalStorage, Storage, is_url, local_folder, open_storage
from skate.tune.trial import Trial, TrialCheckpoint, flat_result


class ResumeType(enum.Enum):
    """What becomes of a trial when its run is resumed."""

    #: It goes on from its last checkpoint.
    RESUME = "resume"
    #: It begins anew.
    RESTART = "restart"
    #: It stays as it is; one that was cut short counts as ended.
    SKIP = "skip"


#: One of them, or its value.
Wish: TypeAlias = ResumeType | str


@dataclass(frozen=True)
class ResumeConfig:
    """Which trials of a run go on when it is resumed, and from where.

    Attributes:
        finished: those that had ended by themselves, or were stopped.  One that goes on is told to
            the scheduler as a new trial, and searchers do not learn from it again.
        unfinished: those that ran, were paused or had not started.
        errored: those that failed.

    Raises:
        ValueError: one is no ``ResumeType``, nor the value of one ("resume", "restart", "skip").
    """

    ResumeType: ClassVar[type[ResumeType]] = ResumeType

    finished: Wish = ResumeType.SKIP
    unfinished: Wish = ResumeType.RESUME
    errored: Wish = ResumeType.SKIP

    def __post_init__(self) -> None:
        for name in ("finished", "unfinished", "errored"):
            object.__setattr__(self, name, ResumeType(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Resume:
    """A wish to go on with a run.

    Attributes:
        config: which trials go on.
        required: whether it is an error that there is no such run.
    """

    config: ResumeConfig = ResumeConfig()
    required: bool = True


def parse_resume(resume: bool | str | None, config: ResumeConfig | None = None) -> Resume | None:
    """Return what ``tune.run(resume=..., resume_config=...)`` means; None for "do not".

    Raises:
        TypeError: it is no word, nor True, False or None.
        ValueError: it means nothing.
    """
    if resume is not None and not isinstance(resume, (bool, str)):
        raise TypeError(f"resume wants True, False, None or a word such as 'AUTO', got {resume!r}")
    if config is not None:
        if not isinstance(config, ResumeConfig):
            raise TypeError(f"resume_config wants a ResumeConfig, got {config!r:.100}")
        words = {None: True, True: True, "AUTO": False, "LOCAL": True}
        key = resume.upper() if isinstance(resume, str) else resume
        if key not in words:
            raise ValueError(
                "resume_config says which trials go on; resume wants True or 'AUTO' (go on if"
                f" there is something) beside it, got {resume!r}"
            )
        return Resume(config, words[key])
    if resume is None or resume is False:
        return None
    word = "LOCAL" if resume is True else str(resume).upper()
    place, *wishes = word.split("+")
    if place == "ERRORED_ONLY":
        place, wishes = "LOCAL", ["ERRORED_ONLY", *wishes]
    known = {"ERRORED", "ERRORED_ONLY", "RESTART_ERRORED", "RESTART_ERRORED_ONLY"}
    if place not in ("LOCAL", "REMOTE", "AUTO") or not known.issuperset(wishes):
        raise ValueError(
            f"resume wants True, 'AUTO' (go on if there is something), 'LOCAL' or 'ERRORED_ONLY',"
            f" perhaps followed by '+ERRORED' or '+RESTART_ERRORED', got {resume!r}"
        )
    config = resume_config(
        unfinished=not any(wish.endswith("_ONLY") for wish in wishes),
        errored=any(wish.startswith("ERRORED") for wish in wishes),
        restart_errored=any(wish.startswith("RESTART") for wish in wishes),
    )
    return Resume(config, required=place != "AUTO")


def resume_config(unfinished: bool, errored: bool, restart_errored: bool) -> ResumeConfig:
    """Return what the arguments of ``Tuner.restore`` mean."""
    failed = ResumeType.RESUME if errored else ResumeType.SKIP
    return ResumeConfig(
        unfinished=ResumeType.RESUME if unfinished else ResumeType.SKIP,
        errored=ResumeType.RESTART if restart_errored else failed,
    )


def wish_for(trial: Trial, config: ResumeConfig) -> ResumeType:
    """Return what becomes of a trial."""
    names = {Trial.TERMINATED: "finished", Trial.ERROR: "errored"}
    found: ResumeType = getattr(config, names.get(trial.status, "unfinished"))
    return found


def can_restore(storage: Storage) -> bool:
    """Say whether there is a run to go on with.

    Raises:
        StorageError: the storage cannot be read.
    """
    return storage.read(STATE_FILE) is not None


# -------------------------------------------------------------------- what it was started with


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was started with, beside its trainable.

    Attributes:
        space: the search space.
        tune_config: how to search.
        run_config: where results go; it names a run that is resumed.
        resources: what each trial needs.
        restore: what trials start from; one that has a checkpoint of its own goes on from that.
        export_formats: in which formats classes export what they have trained.
    """

    space: Mapping[str, Any]
    tune_config: TuneConfig
    run_config: RunConfig
    resources: Resources | None = None
    restore: str | os.PathLike[str] | Checkpoint | None = None
    export_formats: Sequence[str] = ()


def encode_tuner(settings: Settings) -> bytes | None:
    """Return the settings of a run, without what watches it; None if they cannot be pickled."""
    run_config = dataclasses.replace(settings.run_config, callbacks=(), progress_reporter=None)
    try:
        settings = dataclasses.replace(settings, run_config=run_config)
        content: bytes = cloudpickle.dumps(settings, protocol=5)
    except Exception:  # whatever pickling the user's objects raises
        return None
    return content


def _decode_tuner(content: bytes) -> Settings:
    settings: Settings = pickle.loads(content)
    # Those of earlier versions lack what has been added since.
    return Settings(
        settings.space,
        settings.tune_config,
        settings.run_config,
        settings.resources,
        getattr(settings, "restore", None),
        getattr(settings, "export_formats", ()),
    )


def load_tuner(place: str | os.PathLike[str]) -> Settings:
    """Return the settings of the run at a path or URL.

    Raises:
        TuneError: there is no run that could be resumed, or its settings cannot be read.
        StorageError: the storage cannot be read.
    """
    text = os.fspath(place).rstrip("/") if is_url(place) else str(local_folder(place))
    storage = open_storage(text)
    content = storage.read(TUNER_FILE)
    if content is None:
        if can_restore(storage):
            raise TuneError(
                f"{storage.where('')} has no {TUNER_FILE}: what the run was started with could not"
                " be pickled; use tune.run(..., resume=True) with the same arguments"
            )
        raise nothing_there(storage)
    with _explained(storage, TUNER_FILE):
        settings = _decode_tuner(content)
    # Where it is now, should it have been moved.
    settings.run_config.storage_path, _, settings.run_config.name = text.rpartition("/")
    return settings


@contextlib.contextmanager
def _explained(storage: Storage, name: str) -> Iterator[None]:
    """Have errors of unpickling name the file: it is damaged, or needs what is not there."""
    try:
        yield
    except TuneError:
        raise
    except Exception as error:  # whatever unpickling raises
        raise TuneError(
            f"the run cannot be resumed, {storage.where(name)} cannot be read: {describe(error)}"
        ) from error


def nothing_there(storage: Storage) -> TuneError:
    """Return the error that says that there is no run to resume."""
    return TuneError(
        f"there is no run to resume at {storage.where('')}: it has no {STATE_FILE}."
        " Is it the folder of a run, not that of all runs?"
    )


# -------------------------------------------------------------------- its state


def load_run(storage: Storage, claim: Claim, config: ResumeConfig) -> SavedRun:
    """Return the state of a run, with what its trials reported and where its checkpoints are.

    Args:
        storage: the folder of the run.
        claim: where the files of its trials are on this machine; they are brought there.
        config: which of its trials will go on.

    Raises:
        TuneError: there is none, or its state cannot be read.
        StorageError: the storage cannot be read.
    """
    content = storage.read(STATE_FILE)
    if content is None:
        raise nothing_there(storage)
    with _explained(storage, STATE_FILE):
        saved = decode(content)
    folder = claim.path
    _fetch(storage, folder)
    claim.fetch_log(storage)
    named: set[str] = set()
    for each in saved.trials:
        stays = each.trial.is_finished and wish_for(each.trial, config) == ResumeType.SKIP
        _find_checkpoints(each, storage, stays)
        trial = each.trial
        trial.local_path = folder / trial.folder
        for line in read_lines(trial.local_path)[: each.reports]:
            trial.history.append(flat_result(line))
        named.update(checkpoint.name for checkpoint in each.kept)
        if trial.checkpoint is not None:
            named.add(trial.checkpoint.name)
    for key, (exploit, held) in saved.exploits.items():
        if held is not None and storage.has_folder(held.name):
            held.path = storage.where(held.name)
            named.add(held.name)
        else:
            saved.exploits[key] = exploit, None
    folders = {each.trial.folder for each in saved.trials}
    saved.unclaimed = _delete_strays(storage, saved.id_prefix, folders, named)
    return saved


#: The state is read from the storage; the log is locked, so it cannot be replaced.
_NOT_FETCHED = frozenset({STATE_FILE, SUMMARY_FILE, TUNER_FILE, LOG_FILE})


def _fetch(storage: Storage, folder: Path) -> None:
    """Bring the files of the trials, checkpoints aside, to this machine."""
    if isinstance(storage, LocalStorage):
        return
    local = LocalStorage(folder)
    for name in storage.files():
        if _checkpoint_of(name) is None and name not in _NOT_FETCHED:
            content = storage.read(name)
            if content is not None:
                local.write(name, content)


def _find_checkpoints(saved: SavedTrial, storage: Storage, stays: bool) -> None:
    """Fill the paths of a trial's checkpoints in; forget those that are not there."""
    trial = saved.trial

    def is_there(checkpoint: TrialCheckpoint) -> bool:
        # Of a trial that has ended and stays nobody goes on from one: it need not be looked for.
        if not stays and not storage.has_folder(checkpoint.name):
            return False
        checkpoint.path = storage.where(checkpoint.name)
        return True

    saved.kept = [each for each in saved.kept if is_there(each)]
    newest = trial.checkpoint
    if newest is not None and newest not in saved.kept and not is_there(newest):
        trial.checkpoint = saved.kept[-1] if saved.kept else None


def _delete_strays(
    storage: Storage, id_prefix: str, folders: set[str], named: set[str]
) -> dict[str, set[str]]:
    """Delete checkpoints that are newer than the state: their numbers will be used again.

    Returns:
        Those of folders that the state does not know, by folder.  They may belong to another run,
        and are none of this one's business then, or to a trial that began after the state and had
        a folder name of its own: they are to go when there is such a trial again.
    """
    unclaimed: dict[str, set[str]] = {}
    for name in {_checkpoint_of(name) for name in storage.files()} - named:
        if name is None:
            continue
        folder = name.partition("/")[0]
        if folder in folders or folder.startswith(f"{id_prefix}_"):
            storage.delete(name)
        else:
            unclaimed.setdefault(folder, set()).add(name)
    return unclaimed


#: What ``checkpoint_name`` makes.  Trials may write other files that begin in this way.
_CHECKPOINT = re.compile(r"([^/]+/checkpoint_\d{6,})/.")


def _checkpoint_of(name: str) -> str | None:
    """Return the name of the checkpoint that a file belongs to, None if it belongs to none."""
    found = _CHECKPOINT.match(name)
    return None if found is None else found[1]


def apply(
    saved: SavedRun, orchestrator: Orchestrator, keeper: CheckpointKeeper, wish: Resume
) -> None:
    """Have an orchestrator and a keeper that know nothing yet go on with a run."""
    trials = [each.trial for each in saved.trials]
    wishes = {trial.trial_id: wish_for(trial, wish.config) for trial in trials}
    for each in saved.trials:
        keeper.recall(each.trial.trial_id, each.kept)
        if wishes[each.trial.trial_id] == ResumeType.RESTART:
            each.trial.checkpoint = None
            saved.exploits.pop(each.trial.trial_id, None)
    orchestrator.resume(trials, saved.exploits, saved.informed)
    for trial in trials:
        skipped = wishes[trial.trial_id] == ResumeType.SKIP
        if trial.is_finished and not skipped:
            orchestrator.revive(trial)
        elif not trial.is_finished and skipped:
            orchestrator.abandon(trial)
