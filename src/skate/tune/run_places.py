"""Runs, read from wherever they are kept: a folder of this machine, or a URL.

What there is at a URL to be read, small files all of them, is copied to a temporary folder, and
that is read as any other (``run_folder.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from skate.tune import run_folder
from skate.tune.claim import LOG_FILE
from skate.tune.config import results_folder
from skate.tune.error import TuneError
from skate.tune.experiment_state import SUMMARY_FILE
from skate.tune.finished_run import FinishedRun
from skate.tune.run_folder import CUT_OFF, Log, read_log, read_summary
from skate.tune.storage import MANIFEST, is_url, local_folder, open_storage
from skate.tune.trial import Trial, TrialCheckpoint

#: A lock does not reach as far as a URL: a run is said to go on if its state there, which is
#: written every ten seconds or so, is not older than this, in seconds.
ALIVE_S = 60.0

_OF_TRIALS = frozenset({"params.json", "result.json", "error.txt"})


def load(place: str | os.PathLike[str]) -> FinishedRun:
    """Return the run whose folder, or a file in it, is ``place``; or the one at that URL.

    Raises:
        TuneError: there is no run.
        StorageError: the URL cannot be read.
        OSError: a file cannot be read.
    """
    return load_with_log(place)[0]


def load_with_log(place: str | os.PathLike[str]) -> tuple[FinishedRun, Log]:
    """Return the same, and what the log of the run says; raise the same."""
    if not is_url(place):
        return run_folder.load_with_log(local_folder(place))
    url = os.fspath(place).rstrip("/")
    with run_copied(url) as folder:
        if not run_folder.is_run(folder):
            raise TuneError(
                f"there is no run of Tune at {url}: no {LOG_FILE}, no folder of a trial"
            )
        experiment, log = run_folder.load_with_log(folder)
    experiment.path, experiment.place = results_folder(None) / folder.name, url
    for trial in experiment.trials:
        _move(trial, experiment.checkpoints[trial.trial_id], url)
    return experiment, log


def load_trial(place: str | os.PathLike[str]) -> tuple[Trial, list[TrialCheckpoint]]:
    """Return the trial whose folder, or URL, is ``place``, and its checkpoints, oldest first.

    Raises:
        TuneError: no trial left its files there.
        StorageError: the URL cannot be read.
        OSError: a file cannot be read.
    """
    if not is_url(place):
        return run_folder.load_trial(local_folder(place))
    url, _, name = os.fspath(place).rstrip("/").rpartition("/")
    with run_copied(url, name) as folder:
        if not (folder / name / "params.json").is_file():
            raise TuneError(f"there is no trial of Tune at {url}/{name}: no params.json")
        trial, checkpoints = run_folder.load_trial(folder / name)
    _move(trial, checkpoints, url)
    return trial, checkpoints


@contextlib.contextmanager
def run_copied(url: str, only: str = "") -> Iterator[Path]:
    """Copy what there is to be read about a run, or about one trial of it, for as long as it takes.

    Raises:
        StorageError: the URL cannot be read.
    """
    storage = open_storage(url)
    found = storage.files(only)
    names = [LOG_FILE, SUMMARY_FILE]
    checkpoints = []
    for name in found:
        match name.split("/"):
            case [_, file] if file in _OF_TRIALS:
                names.append(name)
            case [trial, "progress.csv"] if f"{trial}/result.json" not in found:
                names.append(name)
            case [_, _, file] if file == MANIFEST:
                checkpoints.append(name.rpartition("/")[0])
    with tempfile.TemporaryDirectory(prefix="tune_") as temporary, contextlib.ExitStack() as locks:
        folder = Path(temporary, url.rpartition("/")[2])
        _write(folder, storage.read_all(names))
        for name in checkpoints:
            (folder / name).mkdir(parents=True)
        if _goes_on(folder):
            _lock(folder, locks)
        yield folder


@contextlib.contextmanager
def logs_copied(url: str) -> Iterator[Path]:
    """Copy the logs of all runs below a URL, or of the one there, for as long as it takes.

    The configurations of trials are empty files, so that trials can be counted.

    Raises:
        StorageError: the URL cannot be read.
    """
    storage = open_storage(url)
    found = [name for name in storage.files() if name.count("/") <= 2]
    with tempfile.TemporaryDirectory(prefix="tune_") as temporary, contextlib.ExitStack() as locks:
        folder = Path(temporary, url.rpartition("/")[2])
        logs = [name for name in found if name.split("/")[-1] == LOG_FILE]
        _write(folder, dict.fromkeys((n for n in found if n.endswith("/params.json")), b""))
        _write(folder, storage.read_all(logs))
        open_ended = [n for n in logs if read_log((folder / n).parent).state == CUT_OFF]
        _write(
            folder, storage.read_all(n.removesuffix(LOG_FILE) + SUMMARY_FILE for n in open_ended)
        )
        for name in open_ended:
            if _goes_on((folder / name).parent):
                _lock((folder / name).parent, locks)
        yield folder


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _goes_on(folder: Path) -> bool:
    log = read_log(folder)
    if log.state != CUT_OFF:
        return False
    summary = read_summary(folder)
    # A run whose state cannot be saved has an empty summary.
    sign_of_life: float = max(summary.get("updated", 0.0), log.ended or 0.0)
    return time.time() - sign_of_life < ALIVE_S


def _lock(folder: Path, locks: contextlib.ExitStack) -> None:
    """Hold a lock on the copy of a log, as the driver holds one on the log itself."""
    file = locks.enter_context((folder / LOG_FILE).open("rb"))
    fcntl.flock(file, fcntl.LOCK_EX)


def _move(trial: Trial, checkpoints: Iterable[TrialCheckpoint], url: str) -> None:
    """Say of a trial that was read from a copy where it comes from."""
    assert trial.local_path is not None
    trial.url = f"{url}/{trial.local_path.name}"
    trial.local_path = None
    for checkpoint in checkpoints:
        assert checkpoint.path is not None
        checkpoint.path = f"{trial.url}/{Path(checkpoint.path).name}"
