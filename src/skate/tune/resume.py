"""Going on with a run that was cut short."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.config import RunConfig, TuneConfig
from skate.tune.error import TuneError
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


@dataclass(frozen=True, slots=True)
class Resume:
    """Which trials of a run go on.

    Attributes:
        unfinished: whether those do that ran, were paused or had not started.
        errored: whether those do that failed, from their last checkpoint.
        restart_errored: whether those that failed start anew.
        required: whether it is an error that there is no such run.
    """

    unfinished: bool = True
    errored: bool = False
    restart_errored: bool = False
    required: bool = True


def parse_resume(resume: bool | str | None) -> Resume | None:
    """Return what ``tune.run(resume=...)`` means; None for "do not".

    Raises:
        ValueError: it means nothing.
    """
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
    return Resume(
        unfinished=not any(wish.endswith("_ONLY") for wish in wishes),
        errored=any(wish.startswith("ERRORED") for wish in wishes),
        restart_errored=any(wish.startswith("RESTART") for wish in wishes),
        required=place != "AUTO",
    )


def can_restore(storage: Storage) -> bool:
    """Say whether there is a run to go on with.

    Raises:
        StorageError: the storage cannot be read.
    """
    return storage.read(STATE_FILE) is not None


# -------------------------------------------------------------------- what it was started with


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was started with, beside its trainable."""

    space: dict[str, Any]
    tune_config: TuneConfig
    run_config: RunConfig
    resources: Resources | None


def encode_tuner(
    space: Mapping[str, Any],
    tune_config: TuneConfig,
    run_config: RunConfig,
    resources: Resources | None,
) -> bytes | None:
    """Return the settings of a run, without what watches it; None if they cannot be pickled."""
    run_config = dataclasses.replace(run_config, callbacks=(), progress_reporter=None)
    try:
        settings = Settings(dict(space), tune_config, run_config, resources)
        content: bytes = cloudpickle.dumps(settings, protocol=5)
    except Exception:  # whatever pickling the user's objects raises
        return None
    return content


def load_tuner(place: str | os.PathLike[str]) -> Settings:
    """Return the settings of the run at a path or URL.

    Raises:
        TuneError: there is no run that could be resumed.
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
    settings: Settings = pickle.loads(content)
    # Where it is now, should it have been moved.
    settings.run_config.storage_path, _, settings.run_config.name = text.rpartition("/")
    return settings


def nothing_there(storage: Storage) -> TuneError:
    """Return the error that says that there is no run to resume."""
    return TuneError(
        f"there is no run to resume at {storage.where('')}: it has no {STATE_FILE}."
        " Is it the folder of a run, not that of all runs?"
    )


# -------------------------------------------------------------------- its state


def load_run(storage: Storage, folder: Path) -> SavedRun:
    """Return the state of a run, with what its trials reported and where its checkpoints are.

    Args:
        storage: the folder of the run.
        folder: where the files of its trials are on this machine; they are brought there.

    Raises:
        TuneError: there is none.
        StorageError: it cannot be read.
    """
    content = storage.read(STATE_FILE)
    if content is None:
        raise nothing_there(storage)
    saved = decode(content)
    _fetch(storage, folder)
    named: set[str] = set()
    for each in saved.trials:
        _find_checkpoints(each, storage)
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
    _delete_strays(storage, saved.id_prefix, {each.trial.folder for each in saved.trials}, named)
    return saved


def _fetch(storage: Storage, folder: Path) -> None:
    """Bring the files of the trials, checkpoints aside, to this machine."""
    if isinstance(storage, LocalStorage):
        return
    local = LocalStorage(folder)
    for name in storage.files():
        if _checkpoint_of(name) is None and name not in (STATE_FILE, SUMMARY_FILE, TUNER_FILE):
            content = storage.read(name)
            if content is not None:
                local.write(name, content)


def _find_checkpoints(saved: SavedTrial, storage: Storage) -> None:
    """Fill the paths of a trial's checkpoints in; forget those that are not there."""
    trial = saved.trial

    def is_there(checkpoint: TrialCheckpoint) -> bool:
        # Of a trial that has ended nobody goes on from one: it need not be looked for.
        if not trial.is_finished and not storage.has_folder(checkpoint.name):
            return False
        checkpoint.path = storage.where(checkpoint.name)
        return True

    saved.kept = [each for each in saved.kept if is_there(each)]
    newest = trial.checkpoint
    if newest is not None and newest not in saved.kept and not is_there(newest):
        trial.checkpoint = saved.kept[-1] if saved.kept else None


def _delete_strays(storage: Storage, id_prefix: str, folders: set[str], named: set[str]) -> None:
    """Delete checkpoints that are newer than the state: their numbers will be used again.

    Those of another run in the same folder are none of this one's business.
    """
    found = {
        _checkpoint_of(name)
        for name in storage.files()
        if name.startswith(f"{id_prefix}_") or name.partition("/")[0] in folders
    }
    for name in found - named:
        if name is not None:
            storage.delete(name)


def _checkpoint_of(name: str) -> str | None:
    """Return the name of the checkpoint that a file belongs to, None if it belongs to none."""
    parts = name.split("/")
    if len(parts) > 2 and parts[1].startswith("checkpoint_"):
        return "/".join(parts[:2])
    return None


def apply(
    saved: SavedRun, orchestrator: Orchestrator, keeper: CheckpointKeeper, wish: Resume
) -> None:
    """Have an orchestrator and a keeper that know nothing yet go on with a run."""
    trials = [each.trial for each in saved.trials]
    for each in saved.trials:
        keeper.recall(each.trial.trial_id, each.kept)
    orchestrator.resume(trials, saved.exploits, saved.informed)
    for trial in trials:
        if trial.status == Trial.ERROR:
            if wish.restart_errored:
                trial.checkpoint = None
            if wish.errored or wish.restart_errored:
                orchestrator.revive(trial)
        elif not trial.is_finished and not wish.unfinished:
            orchestrator.abandon(trial)
