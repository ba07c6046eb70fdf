"""Questions about the trials of a run: which is best, and tables of all."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import skate
from skate.tune.checkpoint import Checkpoint
from skate.tune.error import MetricError
from skate.tune.mode import check_mode
from skate.tune.objective import Objective, guess_mode
from skate.tune.search.space import flatten
from skate.tune.trial import SCOPES, Trial, TrialCheckpoint, flat_result

if TYPE_CHECKING:
    import pandas

_SCOPES = ("all", *SCOPES)


def resolve_objective(
    objective: Objective, metric: str | None, mode: str | None
) -> tuple[str, str]:
    """Return the metric and mode to compare by: what is given, else the run's.

    Raises:
        MetricError: no metric is given, and no trial has reported a number.
        ValueError: no such mode.
    """
    check_mode(mode)
    if metric is None:
        metric = objective.metric
        if metric is None:
            raise MetricError("no trial has reported a metric, which is a number, to compare by")
        return metric, mode or objective.mode or guess_mode(metric)
    if mode is None:
        mode = objective.mode if metric == objective.metric else None
    return metric, mode or guess_mode(metric)


def best_trial(
    trials: Sequence[Trial],
    metric: str,
    mode: str,
    scope: str = "last",
    filter_nan_and_inf: bool = True,
) -> Trial | None:
    """Return the trial with the best number; None if no trial has a number.

    Raises:
        ValueError: no such scope.
        MetricError: there are results, but none has this metric.
    """
    if scope not in _SCOPES:
        raise ValueError(f"scope has to be one of {_SCOPES}, got {scope!r}")
    best: Trial | None = None
    best_score = -math.inf
    reported: set[str] = set()
    for trial in trials:
        value = trial.metric(metric, mode, scope)
        reported.update(trial.history.columns)
        if math.isnan(value) or (filter_nan_and_inf and math.isinf(value)):
            continue
        score = -value if mode == "min" else value
        if best is None or score > best_score:
            best, best_score = trial, score
    if best is None and reported and metric not in reported:
        raise MetricError(f"no trial reported {metric!r}; reported: {', '.join(sorted(reported))}")
    return best


def results_table(
    trials: Sequence[Trial], metric: str | None = None, mode: str | None = None
) -> pandas.DataFrame:
    """Return one row per trial, configuration in columns ``config/...``.

    With ``metric`` and ``mode`` the row is the trial's best report instead of its last; then only
    numbers are kept.
    """
    rows = []
    for trial in trials:
        if not trial.iterations:
            continue
        row = flat_result(trial.last_result)
        row = {name: value for name, value in row.items() if name != "config"}
        if metric is not None:
            row.update(_best_report(trial, metric, mode or guess_mode(metric)))
        row["logdir"] = trial.path
        row.update(flatten(trial.config, "config"))
        rows.append(row)
    table: pandas.DataFrame = import_pandas().DataFrame(rows)
    return table


def reports_table(trial: Trial) -> pandas.DataFrame:
    """Return one row per report of a trial, with the numbers that it reported."""
    history = trial.history
    columns = {name: history.column(name) for name in history.columns}
    table: pandas.DataFrame = import_pandas().DataFrame(columns)
    return table


def last_results_table(trials: Sequence[Trial]) -> pandas.DataFrame:
    """Return the last result of each trial, flat and with its configuration, by trial id."""
    rows = []
    for trial in trials:
        if trial.iterations:
            row = flat_result(trial.last_result)
            others = {name: value for name, value in row.items() if name != "config"}
            rows.append({**others, "trial_id": trial.trial_id, **flatten(trial.config, "config")})
    table: pandas.DataFrame = import_pandas().DataFrame(rows)
    return table.set_index("trial_id") if rows else table


def as_checkpoint(record: TrialCheckpoint) -> Checkpoint:
    """Return the checkpoint that a record is about: its files, or what is still in memory."""
    if record.path is not None:
        return Checkpoint.from_directory(record.path)
    return Checkpoint.from_packed(skate.get(record.ref))


def best_record(
    records: Sequence[TrialCheckpoint], metric: str, mode: str
) -> TrialCheckpoint | None:
    """Return the checkpoint that came with the best number; None if none came with one.

    Of several that are as good it is the newest.

    Raises:
        ValueError: no such mode.
    """
    check_mode(mode)
    best: TrialCheckpoint | None = None
    best_score = -math.inf
    for record in records:
        value = flat_result(record.metrics).get(metric)
        if not isinstance(value, (int, float)) or math.isnan(value):
            continue
        score = -value if mode == "min" else value
        if best is None or score >= best_score:
            best, best_score = record, score
    return best


def filesystem() -> Any:
    """Return the local file system, as pyarrow sees it.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        module = importlib.import_module("pyarrow.fs")
    except ImportError as error:
        raise ImportError("filesystem is one of pyarrow: pip install pyarrow") from error
    return module.LocalFileSystem()


def _best_report(trial: Trial, metric: str, mode: str) -> dict[str, float]:
    values = trial.history.column(metric)
    worst = math.inf if mode == "min" else -math.inf
    filled = [worst if math.isnan(value) else value for value in values]
    at = filled.index(min(filled) if mode == "min" else max(filled))
    return {name: trial.history.column(name)[at] for name in trial.history.columns}


def import_pandas() -> Any:
    """Return pandas.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("tables need pandas: pip install 'skate[tune]'") from error
    return pandas
