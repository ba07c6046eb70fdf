"""``skate tune``: runs of Tune, read from their folders, also while they go on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from skate.cli.options import format_option
from skate.cli.output import duration, print_rows
from skate.exceptions import SkateError
from skate.tune.analysis import best_trial, resolve_objective
from skate.tune.board import status_words
from skate.tune.config import results_place
from skate.tune.display import number
from skate.tune.error import MetricError, TuneError
from skate.tune.experiment_analysis import ExperimentAnalysis
from skate.tune.finished_run import FinishedRun
from skate.tune.mode import badness
from skate.tune.run_folder import RUNNING, Log, find_runs, is_run, read_log, trial_folders
from skate.tune.run_places import load_with_log, logs_copied
from skate.tune.search.space import flatten
from skate.tune.storage import is_url
from skate.tune.trial import Trial, flat_result, user_metrics

#: What becomes of what is no character, as in names of files that are no text.
_ESCAPED = "backslashreplace"

_folder_option = click.option(
    "--folder",
    help="The folder of all runs, or its URL: ~/skate_results, or what SKATE_RESULTS_DIR says.",
)
_json_option = click.option(
    "--json", "format_", flag_value="json", help="The same as --format json."
)
_metric_options = (
    click.option("--metric", help="What to compare trials by; that of the run by default."),
    click.option("--mode", type=click.Choice(["min", "max"]), help="Whether less or more is good."),
)


@click.group()
def tune() -> None:
    """Look at runs of Tune, also while they go on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPED)


@tune.command()
@click.argument("folder", required=False)
@_json_option
@format_option
def ls(folder: str | None, format_: str) -> None:
    """List the runs in a folder or at a URL, the newest last."""
    place = results_place(folder)
    if is_url(place):
        place = place.rstrip("/")
        with _explained(), logs_copied(place) as copies:
            rows = [_run_row(path) for path in find_runs(copies)]
            for row in rows:
                row["path"] = place + row["path"].removeprefix(str(copies))
        rows.sort(key=lambda row: row["began"] or 0.0)
    else:
        rows = [_run_row(path) for path in find_runs(Path(place))]
    if not rows and format_ == "table":
        click.echo(f"no runs in {place}")
        return
    columns = ["name", "state", "trials", "ended", "failed", "best", "metric", "began", "path"]
    if format_ == "table":
        for row in rows:
            row["began"] = None if row["began"] is None else _clock(row["began"])
            row["best"] = _shown(row["best"])
        columns.remove("path")
    print_rows(rows, columns, format_)


@tune.command()
@click.argument("run")
@click.argument("trial", required=False)
@_folder_option
@_metric_options[0]
@_metric_options[1]
@click.option("--limit", type=int, default=20, show_default=True, help="Trials at most.")
@_json_option
@format_option
def show(
    run: str,
    trial: str | None,
    folder: str | None,
    metric: str | None,
    mode: str | None,
    limit: int,
    format_: str,
) -> None:
    """Show the trials of RUN (name, path or URL), the best first, or all about one TRIAL."""
    experiment, log = _load(run, folder)
    if trial is not None:
        _show_trial(_find_trial(experiment, trial), format_)
        return
    objective = _objective(experiment, metric, mode)
    ranked = _ranked(experiment, objective)
    rows = [_trial_row(each, objective) for each in ranked[: max(0, limit)]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if format_ == "table":
        _print_head(experiment, log, objective)
        # Learning rates need more digits than other commands have for numbers.
        rows = [{name: _shown(value) for name, value in row.items()} for row in rows]
    print_rows([{name: row.get(name) for name in columns} for row in rows], columns, format_)
    if len(ranked) > len(rows):
        click.echo(f"(the best {len(rows)} of {len(ranked)}; more with --limit)", err=True)


@tune.command()
@click.argument("run")
@_folder_option
@_metric_options[0]
@_metric_options[1]
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file: .csv, .json, .html for a page, .png or .svg for learning curves."
    " CSV to standard output by default.",
)
@click.option("--reports", is_flag=True, help="All reports, not just the last of each trial.")
def export(
    run: str,
    folder: str | None,
    metric: str | None,
    mode: str | None,
    output: Path | None,
    reports: bool,
) -> None:
    """Write the trials of RUN as CSV or JSON, or a page or a picture about them."""
    experiment, _ = _load(run, folder)
    suffix = ".csv" if output is None else output.suffix.lower()
    if suffix in (".html", ".png", ".svg", ".pdf"):
        assert output is not None
        objective = _objective(experiment, metric, mode)
        if objective is not None:
            experiment.objective.metric, experiment.objective.mode = objective
        analysis = ExperimentAnalysis(experiment)
        try:
            if suffix == ".html":
                analysis.save_report(output)
            else:
                analysis.save_learning_curves(output)
        except (ImportError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        return
    if suffix not in (".csv", ".json"):
        raise click.UsageError(
            f"what is {suffix or 'a file without a suffix'}? csv, json, html, png, svg"
        )
    rows = [row for trial in experiment.trials for row in _exported(trial, reports)]
    if output is None:
        _write(rows, suffix, sys.stdout)
        return
    with output.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        _write(rows, suffix, file)


# -------------------------------------------------------------------- finding


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say which package a URL needs."""
    try:
        yield
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def _load(run: str, folder: str | None) -> tuple[FinishedRun, Log]:
    path = Path(run).expanduser()
    # A name of a run; a path if it is one, or looks like one.
    if not is_run(path) and os.sep not in run:
        place = results_place(folder)
        if is_url(place):
            run = f"{place.rstrip('/')}/{run}"
        path = Path(place, run)
    if is_url(run):
        with _explained():
            return load_with_log(run)
    if not is_run(path):
        known = ", ".join(each.name for each in find_runs(path.parent)[-5:])
        hint = f"; there are: {known}" if known else ""
        raise SkateError(f"there is no run in {path.absolute()}{hint}")
    return load_with_log(path)


def _find_trial(experiment: FinishedRun, name: str) -> Trial:
    found = [
        trial
        for trial in experiment.trials
        if trial.trial_id == name or trial.trial_id.endswith(f"_{name}")
    ]
    if len(found) != 1:
        raise SkateError(f"run {experiment.name} has no trial {name!r}; its ids: skate tune show")
    return found[0]


def _objective(
    experiment: FinishedRun, metric: str | None, mode: str | None
) -> tuple[str, str] | None:
    """Return what to compare by, None for a run that has nothing to compare yet.

    Raises:
        MetricError: ``metric`` is nothing that the trials report.
    """
    if metric is None and experiment.objective.metric is None:
        return None
    objective = resolve_objective(experiment.objective, metric, mode)
    if metric is not None:
        best_trial(experiment.trials, *objective)
    return objective


def _ranked(experiment: FinishedRun, objective: tuple[str, str] | None) -> list[Trial]:
    if objective is None:
        return experiment.trials
    metric, mode = objective
    return sorted(experiment.trials, key=lambda trial: badness(trial.metric(metric, mode), mode))


# -------------------------------------------------------------------- rows


def _run_row(path: Path) -> dict[str, Any]:
    try:
        log = read_log(path)
    except TuneError:  # `skate tune show` says what is wrong with it
        log = Log(name=path.name, state="damaged")
    known = bool(log.trials)
    return {
        "name": path.name,
        "state": f"ended by {log.end_reason}" if log.end_reason else log.state,
        "trials": len(log.trials) if known else sum(1 for _ in trial_folders(path)),
        "ended": log.count(Trial.TERMINATED) + log.count(Trial.ERROR) if known else None,
        "failed": log.count(Trial.ERROR) if known else None,
        "best": log.best(),
        "metric": log.metric,
        "began": log.began,
        "path": str(path),
    }


def _trial_row(trial: Trial, objective: tuple[str, str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial.trial_id, "status": status_words(trial)[0]}
    if objective is not None:
        value = trial.metric(*objective)
        row[objective[0]] = None if value != value else value
    row["iter"] = trial.iterations
    row["time_s"] = trial.last_result.get("time_total_s")
    return {**row, **trial.evaluated_params}


def _exported(trial: Trial, reports: bool) -> list[dict[str, Any]]:
    fixed = {"trial_id": trial.trial_id, "status": trial.status, "stop_reason": trial.stop_reason}
    config = flatten(trial.config, "config")
    if not reports:
        last = {n: v for n, v in flat_result(trial.last_result).items() if n != "config"}
        return [{**last, **fixed, **config}]
    history = trial.history
    columns: dict[str, Sequence[float]] = {n: history.column(n) for n in history.columns}
    if "training_iteration" in columns:
        columns["training_iteration"] = [int(value) for value in columns["training_iteration"]]
    return [
        {**fixed, **{name: column[at] for name, column in columns.items()}, **config}
        for at in range(history.length)
    ]


def _write(rows: Sequence[Mapping[str, Any]], suffix: str, file: TextIO) -> None:
    if suffix == ".json":
        json.dump(list(rows), file, indent=2, default=str)
        file.write("\n")
        return
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


# -------------------------------------------------------------------- showing


def _print_head(experiment: FinishedRun, log: Log, objective: tuple[str, str] | None) -> None:
    trials = experiment.trials
    stopped = sum(trial.early_stopped for trial in trials)
    running = sum(trial.status == Trial.RUNNING for trial in trials)
    paused = sum(trial.status == Trial.PAUSED for trial in trials)
    parts = [f"{len(trials)} trials"]
    for count, what in (
        (running, "running"),
        (paused, "paused"),
        (stopped, "stopped early"),
        (len(experiment.failed), "failed"),
    ):
        if count:
            parts.append(f"{count} {what}")
    elapsed = experiment.elapsed_s
    if log.state == RUNNING and log.began is not None:
        elapsed = time.time() - log.began
    state = f"ended by {log.end_reason}" if log.end_reason else log.state
    click.echo(f"{experiment.name}: {state}, {', '.join(parts)}, {duration(elapsed)}")
    if objective is None:
        return
    try:
        best = best_trial(trials, *objective)
    except MetricError:
        best = None
    if best is not None:
        metric, mode = objective
        value = best.metric(metric, mode)
        params = ", ".join(f"{name}={value!r}" for name, value in best.evaluated_params.items())
        click.echo(f"best {metric} ({mode}): {value:g} in {best.trial_id}: {params or '-'}")


def _show_trial(trial: Trial, format_: str) -> None:
    history = trial.history
    row = {
        "trial": trial.trial_id,
        "status": status_words(trial)[0],
        "config": trial.config,
        "reports": trial.iterations,
        "time_s": trial.last_result.get("time_total_s"),
        "last": user_metrics(trial.last_result),
        "error": None if trial.error is None else str(trial.error),
        "checkpoint": None if trial.checkpoint is None else trial.checkpoint.path,
        "path": trial.path,
    }
    if format_ == "json":
        curves = {name: history.column(name) for name in user_metrics(history.columns)}
        click.echo(json.dumps({**row, "curves": curves}, indent=2, default=str))
        return
    print_rows([row], list(row), "yaml")


def _shown(value: Any) -> Any:
    return value if value is None else number(value)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
