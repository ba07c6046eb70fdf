"""The folder of a run: ``params.json``, ``result.json`` and ``progress.csv`` for each trial."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from skate.tune.callback import Callback
from skate.tune.error import StorageError
from skate.tune.readable import as_json, encoded, text_of
from skate.tune.storage import append
from skate.tune.trial import Trial, flat_result
from skate.tune.troubles import Troubles

#: Lines stay in memory for at most so many seconds, and so many characters per trial: a crash of
#: the driver loses that much.
FLUSH_S = 1.0
FLUSH_CHARACTERS = 64_000

#: Not repeated with every line: it is in ``params.json``.
_LEFT_OUT = ("config",)


class ResultFiles(Callback):
    """Writes what trials report, whole lines only, a few times per second at most.

    What cannot be written is noted in ``troubles``, and tried again with the lines that follow.
    """

    def __init__(self, path: Path, troubles: Troubles | None = None) -> None:
        self._path = path
        self._open: dict[str, _TrialFiles] = {}
        self._flushed = 0.0
        self._troubles = Troubles() if troubles is None else troubles

    def setup(self, **info: Any) -> None:
        """Make the folder of the run.

        Raises:
            StorageError: it cannot be made.
        """
        with naming_files("make", self._path):
            self._path.mkdir(parents=True, exist_ok=True)

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Make the folder of the trial.

        What was reported after the checkpoint that it goes on from is discarded.
        """
        folder = self._path / trial.folder
        trial.local_path = folder
        files = self._open.get(trial.trial_id)
        if files is None:
            files = self._open[trial.trial_id] = _TrialFiles(folder)
        with self._noting(), naming_files("write", folder / "params.json"):
            folder.mkdir(exist_ok=True)
            (folder / "params.json").write_text(as_json(trial.config, indent=2) + "\n")
        with self._noting():
            files.begin(trial.iterations)

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Take one line."""
        files = self._open[trial.trial_id]
        files.add(result)
        if files.characters >= FLUSH_CHARACTERS:
            self._flush(files)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write what has waited long enough."""
        now: float = info["now"]
        if now - self._flushed >= FLUSH_S:
            self._flushed = now
            self.flush()

    def flush(self) -> None:
        """Write everything there is."""
        for files in self._open.values():
            self._flush(files)

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
            with self._noting(), naming_files("write", trial.local_path / "error.txt"):
                (trial.local_path / "error.txt").write_bytes(encoded(text))

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write the rest, and the error so far."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the rest of trials that were cut short."""
        self.flush()
        self._open.clear()

    def _close(self, trial: Trial) -> None:
        files = self._open.get(trial.trial_id)
        if files is not None:
            self._flush(files)
            if not files.waiting:
                del self._open[trial.trial_id]

    def _flush(self, files: _TrialFiles) -> None:
        with self._noting():
            files.flush()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self._troubles.note([error])


class _TrialFiles:
    """The growing files of one trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        #: How much of it waits to be written.
        self.characters = 0
        self._count = 0
        self._begun = False
        #: Whether the table has to be written anew.
        self._stale = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to write."""
        return bool(self._lines) or self._stale

    def add(self, result: dict[str, Any]) -> None:
        self._count += 1
        kept = {name: value for name, value in result.items() if name not in _LEFT_OUT}
        line = as_json(kept)
        self._lines.append(line)
        self._rows.append(flat_result(kept))
        self.characters += len(line)

    def begin(self, count: int) -> None:
        """Go on with the first ``count`` lines of what is there."""
        with naming_files("write", self._folder / "result.json"):
            if not self._begun:
                self._begun = True
                (self._folder / "error.txt").unlink(missing_ok=True)
                self._recall()
            self._cut(min(count, self._count))

    def _recall(self) -> None:
        lines = read_lines(self._folder)
        self._columns = list(dict.fromkeys(n for line in lines for n in flat_result(line)))
        self._count = len(lines)
        path = self._folder / "result.json"
        if path.exists():
            self._stale = True
            content = path.read_bytes()
            if content.count(b"\n") != len(lines) or not content.endswith(b"\n"):
                # A crash cut the last one off.
                whole = content.splitlines()[: len(lines)]
                _replace(path, "".join(f"{line.decode()}\n" for line in whole))

    def _cut(self, count: int) -> None:
        """Discard all but the first ``count`` lines."""
        if count >= self._count:
            return
        written = self._count - len(self._lines)
        if count >= written:
            del self._lines[count - written :], self._rows[count - written :]
            self._count = count
            return
        self._lines, self._rows, self.characters = [], [], 0
        self._count = count
        if count == 0:
            self._columns, self._stale = [], False
            for name in ("result.json", "progress.csv"):
                (self._folder / name).unlink(missing_ok=True)
            return
        path = self._folder / "result.json"
        lines = path.read_text().splitlines()[:count]
        _replace(path, "\n".join(lines) + "\n")
        self._rewrite_csv()

    def flush(self) -> None:
        if self._lines:
            append(self._folder / "result.json", ("\n".join(self._lines) + "\n").encode())
            rows, self._lines, self._rows, self.characters = self._rows, [], [], 0
            known = set(self._columns)
            new = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in known]
            # A column that the first line does not have.
            if (new and self._columns) or self._stale:
                self._stale = True
                self._columns += new
            else:
                self._columns += new
                self._stale = True  # until it is written
                table = self._csv(rows, header=bool(new))
                append(self._folder / "progress.csv", encoded(table))
                self._stale = False
        if self._stale:
            with naming_files("write", self._folder / "progress.csv"):
                self._rewrite_csv()

    def _rewrite_csv(self) -> None:
        text = self._csv([flat_result(line) for line in read_lines(self._folder)], header=True)
        _replace(self._folder / "progress.csv", text)
        self._stale = False

    def _csv(self, rows: Sequence[dict[str, Any]], header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        begun = buffer.tell()
        try:
            writer.writerows(rows)
        except Exception:  # whatever turning the user's objects into text raises
            buffer.truncate(buffer.seek(begun))
            writer.writerows({name: text_of(value) for name, value in row.items()} for row in rows)
        return buffer.getvalue()


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a trial's ``result.json`` up to one that is cut off or damaged."""
    path = folder / "result.json"
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            break
        if not isinstance(found, dict):
            break
        lines.append(found)
    return lines


@contextlib.contextmanager
def naming_files(what: str, path: Path) -> Iterator[None]:
    """Have errors name the file."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot {what} {path}: {error.strerror or error}", str(path)) from error


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.partial")
    try:
        beside.write_bytes(encoded(text))
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
