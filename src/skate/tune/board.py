"""The rows and columns that a live table shows: as text, for a terminal as for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skate.tune.display import Status, duration, number
from skate.tune.readable import printable
from skate.tune.search.space import flatten
from skate.tune.trial import Trial, flat_result, user_metrics

#: Between two columns.
_GAP = 2
#: Names of parameters and metrics longer than this are cut.
_LONGEST_NAME = 18


@dataclass(slots=True)
class Column:
    """One column: its title, a cell for each row, and which side they stand at."""

    title: str
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        """How many characters it takes."""
        return max(map(len, [self.title, *self.cells]))


@dataclass(slots=True)
class Board:
    """A table: trials and what is said about each.

    ``hidden`` names the parameters that there was no room for.
    """

    trials: list[Trial]
    columns: list[Column]
    hidden: list[str]


def board(
    status: Status,
    rows: int,
    width: int,
    metrics: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Board:
    """Return what fits into ``rows`` trials and ``width`` characters.

    Trial, status, iteration, metric and time are always there; then come as many parameters as
    fit, and, if all do, other metrics.

    ``metrics`` and ``parameters`` are names -> titles: what is shown instead, whether it
    fits or not.
    """
    trials = choose(status, rows)
    first = [
        Column("trial", [trial.name for trial in trials], right=False),
        Column("status", [status_words(trial)[0] for trial in trials], right=False),
    ]
    objective = status.objective
    if metrics is not None:
        last = _chosen([flat_result(trial.last_result) for trial in trials], metrics)
    else:
        last = [Column("iter", [str(trial.iterations or "") for trial in trials])]
        if objective is not None:
            metric = [
                number(trial.metric(*objective)) if trial.iterations else "" for trial in trials
            ]
            last.append(Column(_short(objective[0]), metric))
        last.append(Column("time", [_time(trial) for trial in trials]))
    if parameters is not None:
        first += _chosen([flatten(trial.config) for trial in trials], parameters)
        return Board(trials, [*first, *last], [])
    room = width - sum(column.width + _GAP for column in [*first, *last])
    every = _parameters(trials)
    varied = _fitting(every, room)
    room -= sum(column.width + _GAP for column in varied)
    hidden = [column.title for column in every[len(varied) :]]
    others: list[Column] = []
    if not hidden and metrics is None:
        others = _fitting(_others(trials, None if objective is None else objective[0]), room)
    return Board(trials, [*first, *varied, *last, *others], hidden)


def choose(status: Status, limit: int) -> list[Trial]:
    """Return at most ``limit`` trials to show: those that run, the best, and then what waits."""
    progress = status.progress
    running = progress.running()[-limit:]
    waiting = [trial for trial in progress.live if trial.status != Trial.RUNNING]
    # Paused trials have something to show, new ones have not.
    waiting.sort(key=lambda trial: trial.status != Trial.PAUSED)
    chosen = [*running, *progress.leaders(), *waiting][:limit]
    best = progress.best()
    if best is not None and chosen and not any(trial is best for trial in chosen):
        chosen[-1] = best
    return chosen


def status_words(trial: Trial) -> tuple[str, str]:
    """Return the status of a trial in words, and its kind: what decides about the colour."""
    if trial.early_stopped:
        reason = "stopped early" if trial.stop_reason == "scheduler" else trial.stop_reason
        return reason, "stopped"
    words = {Trial.TERMINATED: "done", Trial.ERROR: "failed", Trial.PENDING: "waiting"}
    word = words.get(trial.status, trial.status.lower())
    return word, word


def _chosen(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Column]:
    return [
        Column(title, [number(row[name]) if name in row else "" for row in rows])
        for name, title in titles.items()
    ]


def _parameters(trials: Sequence[Trial]) -> list[Column]:
    names = dict.fromkeys(name for trial in trials for name in trial.evaluated_params)
    return [
        Column(
            _short(name),
            [
                number(trial.evaluated_params[name]) if name in trial.evaluated_params else ""
                for trial in trials
            ],
        )
        for name in names
    ]


def _others(trials: Sequence[Trial], metric: str | None) -> list[Column]:
    """Return the other numbers that trials report; all they report if there is no metric."""
    results = [user_metrics(flat_result(trial.last_result)) for trial in trials]
    names = dict.fromkeys(
        name
        for result in results
        for name, value in result.items()
        if metric is None or (name != metric and isinstance(value, (int, float)))
    )
    return [
        Column(_short(name), [number(result[name]) if name in result else "" for result in results])
        for name in names
    ]


def _fitting(columns: Sequence[Column], room: int) -> list[Column]:
    fitting = []
    for column in columns:
        room -= column.width + _GAP
        if room < 0:
            break
        fitting.append(column)
    return fitting


def _time(trial: Trial) -> str:
    spent = trial.last_result.get("time_total_s")
    return duration(spent) if isinstance(spent, (int, float)) else ""


def _short(name: str) -> str:
    # The end of a path says more than its beginning.
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
