"""The folder of a run: ``params.json``, ``result.json`` and ``progress.csv`` for each trial."""

from __future__ import annotations

import csv
import io
import json
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skate.tune.callback import Callback
from skate.tune.trial import Trial, flat_result

#: Lines stay in memory for at most so many seconds, and so many characters per trial: a crash of
#: the driver loses that much.
FLUSH_S = 1.0
FLUSH_CHARACTERS = 64_000

#: Not repeated with every line: it is in ``params.json``.
_LEFT_OUT = ("config",)


class ResultFiles(Callback):
    """Writes what trials report, whole lines only, a few times per second at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, _TrialFiles] = {}
        self._flushed = 0.0

    def setup(self, **info: Any) -> None:
        """Make the folder of the run.

        Raises:
            OSError: it cannot be made.
        """
        self._path.mkdir(parents=True, exist_ok=True)

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Make the folder of the trial.

        What was reported after the checkpoint that it goes on from is discarded.
        """
        folder = self._path / trial.trial_id
        trial.local_path = folder
        folder.mkdir(exist_ok=True)
        text = json.dumps(trial.config, default=_as_text, indent=2)
        (folder / "params.json").write_text(text + "\n")
        files = self._open.get(trial.trial_id)
        if files is None:
            files = self._open[trial.trial_id] = _TrialFiles(folder)
            if trial.failures:
                (folder / "error.txt").unlink(missing_ok=True)
                files.recall()
        files.cut(trial.iterations)

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Take one line."""
        self._open[trial.trial_id].add(result)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write what has waited long enough."""
        now: float = info["now"]
        if now - self._flushed >= FLUSH_S:
            self._flushed = now
            for files in self._open.values():
                files.flush()

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write the rest."""
        self._close(trial)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write the rest, and the error."""
        self._close(trial)
        if trial.error is not None and trial.local_path is not None:
            text = "".join(traceback.format_exception(trial.error))
            (trial.local_path / "error.txt").write_text(text)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the rest of trials that were cut short."""
        for files in self._open.values():
            files.flush()
        self._open.clear()

    def _close(self, trial: Trial) -> None:
        files = self._open.pop(trial.trial_id, None)
        if files is not None:
            files.flush()


class _TrialFiles:
    """The growing files of one trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._characters = 0
        self._count = 0

    def add(self, result: dict[str, Any]) -> None:
        self._count += 1
        kept = {name: value for name, value in result.items() if name not in _LEFT_OUT}
        line = json.dumps(kept, default=_as_text)
        self._lines.append(line)
        self._rows.append(flat_result(kept))
        self._characters += len(line)
        if self._characters >= FLUSH_CHARACTERS:
            self.flush()

    def recall(self) -> None:
        """Go on with the files that are there."""
        path = self._folder / "result.json"
        lines = path.read_text().splitlines() if path.exists() else []
        self._count = len(lines)
        self._columns = list(dict.fromkeys(n for row in map(_row, lines) for n in row))

    def cut(self, count: int) -> None:
        """Discard all but the first ``count`` lines."""
        if count >= self._count:
            return
        self.flush()
        self._count = count
        if count == 0:
            self._columns = []
            for name in ("result.json", "progress.csv"):
                (self._folder / name).unlink(missing_ok=True)
            return
        path = self._folder / "result.json"
        lines = path.read_text().splitlines()[:count]
        _replace(path, "\n".join(lines) + "\n")
        self._rewrite_csv()

    def flush(self) -> None:
        if not self._lines:
            return
        _append(self._folder / "result.json", "\n".join(self._lines) + "\n")
        rows, self._lines, self._rows, self._characters = self._rows, [], [], 0
        known = set(self._columns)
        new = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in known]
        if new and self._columns:
            self._columns += new
            self._rewrite_csv()
            return
        header = bool(new)
        self._columns += new
        _append(self._folder / "progress.csv", self._csv(rows, header))

    def _rewrite_csv(self) -> None:
        """Write the table anew, because a column appeared that its first line does not have."""
        lines = (self._folder / "result.json").read_text().splitlines()
        text = self._csv([_row(line) for line in lines], header=True)
        _replace(self._folder / "progress.csv", text)

    def _csv(self, rows: Sequence[dict[str, Any]], header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()


def _row(line: str) -> dict[str, Any]:
    return flat_result(json.loads(line))


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def _append(path: Path, text: str) -> None:
    """Append in one system call, so that a crash never leaves half a line behind."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        remaining = memoryview(text.encode())
        while remaining:  # a disk that fills up takes a part, then refuses the next call
            remaining = remaining[os.write(descriptor, remaining) :]
    finally:
        os.close(descriptor)


def _as_text(value: object) -> Any:
    """Return something that JSON has for what it has not."""
    tolist = getattr(value, "tolist", None)  # arrays and scalars of numpy
    if tolist is not None and getattr(value, "size", 0) <= 1000:
        return tolist()
    return repr(value)[:1000]
