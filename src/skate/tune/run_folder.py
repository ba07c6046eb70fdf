"""A run, read from its folder: while it goes on, when it is over, or after a crash.

What counts is ``params.json`` and ``result.json`` (or ``progress.csv``) of each trial, which Ray
Tune writes as well, so its results can be read too.  ``run.jsonl`` (see ``run_log.py``) adds what
has become of the trials.  For runs that are kept at a URL see ``run_places.py``.
"""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skate.tune.claim import LOG_FILE
from skate.tune.error import TuneError
from skate.tune.experiment_state import SUMMARY_FILE
from skate.tune.finished_run import FinishedRun
from skate.tune.objective import Objective, guess_mode
from skate.tune.search.space import flatten
from skate.tune.trial import Trial, TrialCheckpoint, flat_result, user_metrics

RUNNING, ENDED, CUT_OFF, UNKNOWN = "running", "ended", "cut off", "unknown"


@dataclass(slots=True)
class Log:
    """What the log of a run says.

    Attributes:
        state: "running", "ended", "cut off" (the driver died) or "unknown" (there is no log).
        began, ended: Unix times; ``ended`` is the last sign of life.
        trials: the newest line about each trial that started.
        params: names of the parameters that vary.
    """

    state: str = UNKNOWN
    name: str = ""
    began: float | None = None
    ended: float | None = None
    end_reason: str = ""
    metric: str | None = None
    mode: str | None = None
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    params: dict[str, None] = field(default_factory=dict)

    def best(self) -> float | None:
        """Return the best number of all trials that ended, None if there is none."""
        values = [
            value
            for line in self.trials.values()
            if isinstance(value := line.get("value"), (int, float)) and math.isfinite(value)
        ]
        return (max if self.mode == "max" else min)(values, default=None)

    def count(self, status: str) -> int:
        """Return how many trials are in a state; those that started but did not end have none."""
        return sum(line.get("status") == status for line in self.trials.values())

    def take(self, line: Mapping[str, Any]) -> None:
        """Take note of the next line."""
        self.ended = line["time"]
        match line["event"]:
            case "begin":
                self.name, self.state, self.end_reason = line["name"], CUT_OFF, ""
                self.began = self.began or line["time"]
            case "start":
                self.trials[line["trial"]] = dict(line)
                self.params.update(dict.fromkeys(line["params"]))
            case "trial":
                self.trials[line["trial"]] = dict(line)
            case "end":
                self.state, self.end_reason = ENDED, line["reason"]
        if line.get("metric") is not None:
            self.metric, self.mode = line["metric"], line["mode"]


def read_log(path: Path) -> Log:
    """Return what the log in a run's folder says; an empty one if there is none.

    Raises:
        TuneError: it is damaged.
        OSError: it cannot be read.
    """
    log = Log(name=path.name)
    try:
        descriptor = os.open(path / LOG_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return log
    with os.fdopen(descriptor, "rb") as file:
        # Asked before the log is read: a run that ends meanwhile has its last line there.
        alive = _is_locked(descriptor)
        for line in _whole_lines(path / LOG_FILE, file.read()):
            try:
                log.take(line)
            except (KeyError, TypeError) as error:
                raise TuneError(f"{path / LOG_FILE} is damaged: {line!r:.100}") from error
    if log.state == CUT_OFF and alive:
        log.state = RUNNING
    return log


def is_run(path: Path) -> bool:
    """Say whether a folder is that of a run: it has a log, or trials in it."""
    return path.is_dir() and (
        (path / LOG_FILE).is_file() or next(trial_folders(path), None) is not None
    )


def find_runs(path: Path) -> list[Path]:
    """Return the folders of all runs in a folder, or it itself, oldest first."""
    if not path.is_dir():
        return []
    if is_run(path):
        return [path]
    found = [folder for folder in path.iterdir() if is_run(folder)]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def trial_folders(path: Path) -> Iterator[Path]:
    """Yield the folders of the trials of a run."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and (entry / "params.json").is_file():
            yield entry


def load_with_log(path: str | os.PathLike[str]) -> tuple[FinishedRun, Log]:
    """Return the run whose folder, or a file in it, is ``path``, and what its log says.

    Raises:
        TuneError: there is no run.
        OSError: a file cannot be read.
    """
    folder = Path(path).expanduser().absolute()
    if folder.is_file():
        folder = folder.parent
    if not is_run(folder):
        raise TuneError(f"there is no run of Tune in {folder}: no {LOG_FILE}, no folder of a trial")
    log = read_log(folder)
    loaded = [_load_trial(entry, log) for entry in trial_folders(folder)]
    trials = [trial for trial, _ in loaded]
    _name_parameters(trials, log)
    metric = log.metric or next((name for trial in trials for name in _numbers(trial)), None)
    mode = log.mode or (None if metric is None else guess_mode(metric))
    counts = _report_counts(folder)
    elapsed = 0.0 if log.began is None or log.ended is None else log.ended - log.began
    experiment = FinishedRun(
        log.name,
        folder,
        trials,
        Objective(metric, mode),
        elapsed,
        log.end_reason,
        checkpoints={t.trial_id: _checkpoints(t, results, counts) for t, results in loaded},
    )
    return experiment, log


def load_trial(path: str | os.PathLike[str]) -> tuple[Trial, list[TrialCheckpoint]]:
    """Return the trial whose folder is ``path``, and its checkpoints, oldest first.

    Raises:
        TuneError: no trial left its files there.
        OSError: a file cannot be read.
    """
    folder = Path(path).expanduser().absolute()
    if not (folder / "params.json").is_file():
        raise TuneError(f"there is no trial of Tune in {folder}: no params.json")
    log = read_log(folder.parent)
    trial, results = _load_trial(folder, log)
    _name_parameters([trial], log)
    return trial, _checkpoints(trial, results, _report_counts(folder.parent))


def _load_trial(folder: Path, log: Log) -> tuple[Trial, list[dict[str, Any]]]:
    """Return a trial, and all its results."""
    config = _object(folder / "params.json", (folder / "params.json").read_bytes())
    results = _results(folder)
    # In Ray's folders the name of a trial is longer than its id.
    trial_id = str(results[-1].get("trial_id", folder.name)) if results else folder.name
    trial = Trial(trial_id, config, {})
    trial.local_path = folder
    for result in results:
        result.setdefault("config", config)
        trial.record(result)
    line = log.trials.get(trial.trial_id, {})
    error = folder / "error.txt"
    if line.get("status") in (Trial.TERMINATED, Trial.ERROR):
        trial.status, trial.stop_reason = line["status"], line["stop_reason"]
    elif log.state == RUNNING:
        started = trial.trial_id in log.trials
        trial.status = line.get("status", Trial.RUNNING) if started else Trial.PENDING
    elif error.is_file():
        trial.status = Trial.ERROR
    else:
        trial.status = Trial.TERMINATED
        early = trial.last_result.get("early_stopped") is True
        cut = log.state == CUT_OFF and not trial.last_result.get("done")
        trial.stop_reason = "interrupted" if cut else "scheduler" if early else "completed"
    if trial.status == Trial.ERROR:
        text = error.read_text(encoding="utf-8").strip() if error.is_file() else ""
        trial.error = TuneError(text.splitlines()[-1] if text else "its error was not written")
    return trial, results


def _results(folder: Path) -> list[dict[str, Any]]:
    path = folder / "result.json"
    if path.is_file():
        return list(_whole_lines(path, path.read_bytes()))
    path = folder / "progress.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            # An id may consist of digits alone.
            {name: text if name == "trial_id" else _parsed(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _whole_lines(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each line of a file; what has no end yet is still being written."""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        if line.strip():
            yield _object(path, line)


def _object(path: Path, content: bytes) -> dict[str, Any]:
    """Return the JSON object in (a line of) a file.

    Raises:
        TuneError: there is none: the file is damaged.
    """
    try:
        found = json.loads(content)
    except ValueError as error:
        raise TuneError(f"{path} is damaged: {error} in {content!r:.100}") from error
    if not isinstance(found, dict):
        raise TuneError(f"{path} is damaged: {content!r:.100} is no JSON object")
    return found


def _parsed(text: str) -> Any:
    if "_" in text:
        return text  # Python takes 1_000 for a number, whoever writes results does not
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(text, text)


def _name_parameters(trials: list[Trial], log: Log) -> None:
    """Find out which parameters vary: what the log says, else what is not the same everywhere."""
    flat = [flatten(trial.config) for trial in trials]
    names = list(log.params)
    if not names:
        every = dict.fromkeys(name for config in flat for name in config)
        names = [
            name
            for name in every
            if len(trials) == 1 or len({repr(config.get(name)) for config in flat}) > 1
        ]
    for trial, config in zip(trials, flat, strict=True):
        trial.evaluated_params = {name: config[name] for name in names if name in config}


def _numbers(trial: Trial) -> list[str]:
    result = user_metrics(flat_result(trial.last_result))
    return [name for name, value in result.items() if type(value) in (int, float)]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what the state of a run says in words; nothing if there is none or it is not known."""
    try:
        content = (folder / SUMMARY_FILE).read_bytes()
    except FileNotFoundError:
        return {}
    return _object(folder / SUMMARY_FILE, content)


def _report_counts(folder: Path) -> dict[str, int]:
    """Return how many reports the trials of a run had made by each of their checkpoints."""
    trials = read_summary(folder).get("trials", [])
    # States of earlier versions have names only.
    counts = [each["checkpoints"] for each in trials if isinstance(each["checkpoints"], dict)]
    return {name: count for each in counts for name, count in each.items()}


def _checkpoints(
    trial: Trial, results: Sequence[dict[str, Any]], counts: Mapping[str, int]
) -> list[TrialCheckpoint]:
    """Return the checkpoints in a trial's folder, oldest first, and have it know the newest.

    Each has the metrics of the report that it came with, if the state of the run tells which.
    """
    folder = trial.local_path
    assert folder is not None
    found = []
    for path in sorted(folder.glob("checkpoint_*")):
        digits = path.name.removeprefix("checkpoint_")
        if not path.is_dir() or not digits.isdigit():
            continue
        reports = counts.get(f"{folder.name}/{path.name}", 0)
        metrics = results[reports - 1] if 0 < reports <= len(results) else {}
        found.append(
            TrialCheckpoint(path=str(path), reports=reports, metrics=metrics, number=int(digits))
        )
    trial.checkpoint = found[-1] if found else None
    return found


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
