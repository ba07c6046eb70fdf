"""One trial: a configuration, what became of it, and the curve of its metrics."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skate.tune.resources import PlacementGroupFactory, as_factory
from skate.tune.search.space import flatten

#: Fields of a result that Skate adds to what the function reports.
AUTO_FIELDS = (
    "training_iteration",
    "time_this_iter_s",
    "time_total_s",
    "timestamp",
    "trial_id",
    "date",
    "pid",
    "hostname",
    "done",
    "config",
    "early_stopped",
)

_AUTO = frozenset(AUTO_FIELDS)
#: By which one number a trial can be compared, beside the best of its reports.
SCOPES = ("avg", "last", "last-5-avg", "last-10-avg")


class History:
    """The numbers a trial reported, by column: 8 bytes each, so that many reports stay cheap.

    Columns are as long as there were reports; NaN stands where a report had no such number.
    """

    __slots__ = ("columns", "length")

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self.length = 0

    def append(self, result: Mapping[str, Any]) -> None:
        """Add one flat result."""
        columns = self.columns
        for name, value in result.items():
            if type(value) not in (int, float) or name == "pid":  # bool is no measurement
                continue
            column = columns.get(name)
            if column is None:
                column = columns[name] = array("d", [math.nan]) * self.length
            elif len(column) < self.length:
                column.extend([math.nan] * (self.length - len(column)))
            try:
                column.append(value)
            except OverflowError:
                column.append(as_float(value))
        self.length += 1

    def cut(self, length: int) -> None:
        """Forget all but the first ``length`` reports."""
        self.length = min(length, self.length)
        for name, column in list(self.columns.items()):
            del column[self.length :]
            if all(map(math.isnan, column)):
                del self.columns[name]

    def column(self, name: str) -> list[float]:
        """Return one number per report; all NaN if the name was never reported."""
        column = self.columns.get(name, array("d"))
        return [*column, *[math.nan] * (self.length - len(column))]


@dataclass(slots=True, eq=False)
class TrialCheckpoint:
    """One checkpoint of a trial.

    Attributes:
        ref: where it lies in the object store; None once only the files are left.
        path: the folder or URL with its files; None as long as they are not whole.
        iteration: ``training_iteration`` when it was made.
        time_total_s: how long the trial had been running by then.
        reports: how many reports the trial had made by then: what came later is forgotten if the
            trial goes on from here.
        metrics: the result it was reported with.
        number: counts the checkpoints of a trial, from 0; part of the folder's name.
        name: the name of that folder, relative to that of the run.
        keep_ref: whether it is to stay in the object store although the files are whole.
        keep_files: whether it is to have files at all.
        failed: whether they could not be written.
    """

    ref: Any = None
    path: str | None = None
    iteration: int = 0
    time_total_s: float = 0.0
    reports: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    name: str = ""
    keep_ref: bool = True
    keep_files: bool = True
    failed: bool = False

    @property
    def source(self) -> Any:
        """What the actor that restores is given: the ref if there is one, else the path."""
        ref = self.ref  # another thread may let go of it
        return self.path if ref is None else ref

    def release(self) -> None:
        """Let go of the memory as soon as the files are whole."""
        self.keep_ref = False
        if self.path is not None:
            self.ref = None


class Trial:
    """One configuration and its evaluation.

    Attributes:
        trial_id: unique, also among runs.
        config: what the function is called with.
        evaluated_params: the part of it that varies from trial to trial, flat.
        status: one of the constants below.
        resources: what it needs to run.
        checkpoint: the newest one, from which it goes on; None if there is none.
        stop_reason: why it ended: "completed", "criterion" (``stop=``), "scheduler", "stopper"
            (``Stopper.stop_all``), "time budget", "interrupted"; empty while it runs and
            for failed ones.
        last_result: the last report, with the fields that Skate adds.
        error: the exception it failed with.
        failures: how often it failed, retries included.
        local_path: where its files are; None if nothing is kept, or not on this machine.
        url: where its files were read from; None if that was a folder of this machine.
        name: what it is called where it is shown; its id, unless the run has a
            ``trial_name_creator``.
        folder: the name of its folder, below that of the run, likewise.
        trainable_name: what it runs.
        searcher_done: whether the searcher has heard of its end.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    TERMINATED = "TERMINATED"
    ERROR = "ERROR"

    def __init__(
        self,
        trial_id: str,
        config: dict[str, Any],
        evaluated_params: dict[str, Any],
        resources: PlacementGroupFactory | None = None,
    ) -> None:
        self.trial_id = trial_id
        self.config = config
        self.evaluated_params = evaluated_params
        self.status = self.PENDING
        self.stop_reason = ""
        self.last_result: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.failures = 0
        self.local_path: Path | None = None
        self.url: str | None = None
        self.history = History()
        self.resources = as_factory(resources)
        self.checkpoint: TrialCheckpoint | None = None
        self.name = trial_id
        self.folder = trial_id
        self.trainable_name = ""
        self.searcher_done = False

    @property
    def iterations(self) -> int:
        """How often it has reported."""
        return self.history.length

    @property
    def early_stopped(self) -> bool:
        """Whether it was ended before it had all it could have."""
        return self.stop_reason in ("scheduler", "stopper", "time budget", "interrupted")

    @property
    def is_finished(self) -> bool:
        """Whether it will not run any more."""
        return self.status in (self.TERMINATED, self.ERROR)

    @property
    def path(self) -> str | None:
        """The folder with its files, as text, or its URL."""
        return self.url if self.local_path is None else str(self.local_path)

    #: What older scripts call ``path``.
    logdir = path

    @property
    def num_failures(self) -> int:
        """Ray's name for ``failures``."""
        return self.failures

    @property
    def placement_group_factory(self) -> PlacementGroupFactory:
        """Ray's name for ``resources``."""
        return self.resources

    @property
    def metric_analysis(self) -> dict[str, dict[str, float]]:
        """Of each number that was reported: "max", "min", "avg", "last" and means of the last."""
        return {
            name: {
                "max": self.metric(name, "max", "all"),
                "min": self.metric(name, "min", "all"),
                **{scope: self.metric(name, "max", scope) for scope in SCOPES},
            }
            for name in self.history.columns
        }

    def record(self, result: dict[str, Any]) -> None:
        """Take one more result, as the function reported it plus ``AUTO_FIELDS``."""
        self.last_result = result
        self.history.append(flat_result(result))

    def take_checkpoint(self, checkpoint: TrialCheckpoint) -> None:
        """Go on from a checkpoint that came with the last result; it has no more than its ref."""
        result = self.last_result
        # A function may report something of its own under these names: it counts on from numbers.
        iteration, seconds = result.get("training_iteration"), result.get("time_total_s")
        checkpoint.iteration = iteration if isinstance(iteration, int) else self.iterations
        checkpoint.time_total_s = seconds if isinstance(seconds, (int, float)) else 0.0
        checkpoint.reports = self.iterations
        checkpoint.metrics = result
        self.checkpoint = checkpoint

    def rewind(self) -> bool:
        """Forget what was reported after the newest checkpoint; say whether there was any.

        The trial goes on from there.
        """
        reported = self.iterations
        if self.checkpoint is None:
            self.last_result = {}
            self.history = History()
        elif self.checkpoint.reports < reported:
            self.last_result = dict(self.checkpoint.metrics)
            self.history.cut(self.checkpoint.reports)
        return self.iterations < reported

    def metric(self, name: str, mode: str, scope: str = "last") -> float:
        """Return one number for the trial, NaN if it has none.

        Args:
            name: the metric; nested ones by path ("valid/loss").
            mode: "min" or "max": what ``scope="all"`` looks for.
            scope: "last", "all" (the best of all reports), "avg", or "last-5-avg", "last-10-avg".
        """
        if scope == "last":
            value = flat_result(self.last_result).get(name)
            return as_float(value) if isinstance(value, (int, float)) else math.nan
        values = self.history.column(name)
        if scope.startswith("last-"):
            values = values[-int(scope.split("-")[1]) :]
        values = [value for value in values if not math.isnan(value)]
        if not values:
            return math.nan
        if scope == "all":
            return min(values) if mode == "min" else max(values)
        return math.fsum(values) / len(values)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Trial({self.trial_id}, {self.status})"


def as_float(number: float) -> float:
    """Return a number as a float, an infinite one for integers beyond their range."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def flat_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose nested metrics are also found by path; itself if none is nested."""
    nested = [key for key, value in result.items() if key != "config" and isinstance(value, dict)]
    if not nested:
        return result
    flat = {key: value for key, value in result.items() if key not in nested}
    for key in nested:
        flat.update(flatten(result[key], key))
    return flat


def user_metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the function itself reported."""
    return {name: value for name, value in result.items() if name not in _AUTO}
