"""One page about a run, in one file that needs nothing else."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from skate.tune.analysis import best_trial
from skate.tune.curves import Results
from skate.tune.display import duration, number
from skate.tune.finished_run import FinishedRun
from skate.tune.plots import pictures, svg
from skate.tune.readable import encoded
from skate.tune.search.space import flatten
from skate.tune.trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Parameters that get a column of their own.
_MAX_PARAMETERS = 12

_PICTURES = {
    "learning_curves": (
        "Learning curves",
        "One line per trial. Those that did not run to their end are dashed and end in a cross.",
    ),
    "ends": (
        "Where trials ended",
        "How many trials made their last report at which iteration, and what became of them.",
    ),
    "parallel_coordinates": (
        "Parallel coordinates",
        "One line per trial, from its parameters to what it reached in its last report."
        " Where dark lines meet on an axis there is a good value of that parameter.",
    ),
    "importance": (
        "Importance of parameters",
        "How much of the differences between the trials' last reports each parameter explains."
        " With few trials this is a hint, not more.",
    ),
}

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 1rem 0; padding: 0; }
.facts div { border: 1px solid #d0d7de; border-radius: 6px; padding: 0.4rem 0.9rem; }
.facts dt { color: #656d76; font-size: 0.8rem; }
.facts dd { margin: 0; font-weight: 600; }
svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #eaeef2; text-align: left;
         white-space: nowrap; }
th { background: #f6f8fa; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.best { background: #dafbe1; font-weight: 600; }
.stopped { color: #9a6700; } .failed { color: #c23b3b; } .muted { color: #656d76; }
</style>
<h1>$title</h1>
<p class="muted">$subtitle</p>
<dl class="facts">$facts</dl>
<h2>Best configuration</h2>
$best
$pictures
<h2>Trials</h2>
<div class="scroll">$trials</div>
$errors
</html>
""")


def save_report(results: Results, path: str | os.PathLike[str]) -> None:
    """Write one self-contained HTML page: summary, best configuration, curves and all trials.

    Args:
        results: what ``tune.run`` or ``Tuner.fit`` returned.
        path: the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    experiment = results.experiment
    metric, mode = experiment.objective.metric, experiment.objective.mode
    best: Trial | None = None
    drawn: dict[str, Figure] = {}
    if metric is not None and mode is not None:
        best = best_trial(experiment.trials, metric, mode)
        drawn = pictures(experiment, metric, "")
    page = _PAGE.substitute(
        title=html.escape(experiment.name),
        subtitle=f"Hyperparameter search, finished {time.strftime('%Y-%m-%d %H:%M')}",
        facts=_facts(experiment, best),
        best=_best(best),
        pictures=_pictures(drawn),
        trials=_trials(experiment, best),
        errors=_errors(experiment),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(page))


def _pictures(drawn: Mapping[str, Figure]) -> str:
    if not drawn:
        return "<h2>Learning curves</h2><p>No trial reported anything to draw.</p>"
    parts = []
    for name, (title, words) in _PICTURES.items():
        if name in drawn:
            parts.append(f'<h2>{title}</h2><p class="muted">{words}</p>{svg(drawn[name])}')
    return "\n".join(parts)


def _facts(experiment: FinishedRun, best: Trial | None) -> str:
    trials = experiment.trials
    metric, mode = experiment.objective.metric, experiment.objective.mode
    facts = [
        ("trials", str(len(trials))),
        ("stopped early", str(sum(trial.early_stopped for trial in trials))),
        ("failed", str(len(experiment.failed))),
        ("reports", str(sum(trial.iterations for trial in trials))),
        ("wall time", duration(experiment.elapsed_s)),
    ]
    if metric is not None and mode is not None:
        facts.insert(0, (f"best {metric} ({mode})", _metric(best, metric, mode) or "-"))
    if experiment.end_reason:
        facts.append(("ended by", experiment.end_reason))
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts
    )


def _best(best: Trial | None) -> str:
    if best is None:
        return "<p>No trial reported a number to compare.</p>"
    rows = [
        [_cell(name), _cell(number(value), "number")]
        for name, value in flatten(best.config).items()
    ]
    return f"<p>Trial {html.escape(best.trial_id)}</p>{_table(['parameter', 'value'], rows, [])}"


def _trials(experiment: FinishedRun, best: Trial | None) -> str:
    metric, mode = experiment.objective.metric, experiment.objective.mode
    names = list(dict.fromkeys(n for trial in experiment.trials for n in trial.evaluated_params))
    names = names[:_MAX_PARAMETERS]
    header = ["trial", "status", *names, "iterations", metric or "metric", "time"]
    rows, classes = [], []
    for trial in _best_first(experiment):
        row = [_cell(trial.trial_id), _status(trial)]
        for name in names:
            value = trial.evaluated_params.get(name)
            text = number(value) if name in trial.evaluated_params else ""
            row.append(_cell(text, "number" if isinstance(value, (int, float)) else ""))
        row.append(_cell(str(trial.iterations), "number"))
        reached = _metric(trial, metric, mode) if metric is not None and mode is not None else ""
        row.append(_cell(reached, "number"))
        spent = trial.last_result.get("time_total_s")
        row.append(_cell("" if spent is None else duration(spent), "number"))
        rows.append(row)
        classes.append("best" if trial is best else "")
    return _table(header, rows, classes)


def _best_first(experiment: FinishedRun) -> list[Trial]:
    metric, mode = experiment.objective.metric, experiment.objective.mode
    if metric is None or mode is None:
        return experiment.trials

    def badness(trial: Trial) -> tuple[bool, float]:
        value = trial.metric(metric, mode)
        return (value != value, value if mode == "min" else -value)

    return sorted(experiment.trials, key=badness)


def _errors(experiment: FinishedRun) -> str:
    if not experiment.failed:
        return ""
    items = "".join(
        f"<h3>{html.escape(trial.trial_id)}</h3><pre>{html.escape(str(trial.error))}</pre>"
        for trial in experiment.failed[:10]
    )
    return f"<h2>Errors</h2>{items}"


def _status(trial: Trial) -> str:
    if trial.early_stopped:
        what = "stopped early" if trial.stop_reason == "scheduler" else trial.stop_reason
        return _cell(what, "stopped")
    if trial.status == Trial.ERROR:
        return _cell("failed", "failed")
    return _cell("done" if trial.status == Trial.TERMINATED else trial.status.lower())


def _metric(trial: Trial | None, metric: str, mode: str) -> str:
    return "" if trial is None or not trial.iterations else number(trial.metric(metric, mode))


def _cell(text: str, kind: str = "") -> str:
    opened = f'<td class="{kind}">' if kind else "<td>"
    return f"{opened}{html.escape(text)}</td>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str]) -> str:
    # A header stands over the numbers of its column where they stand.
    sides = [
        "number" if cell.startswith('<td class="number"') else "" for cell in (rows or [[]])[0]
    ]
    head = "".join(
        f'<th class="{side}">{html.escape(name)}</th>'
        for name, side in zip_longest(header, sides, fillvalue="")
    )
    lines = []
    for position, row in enumerate(rows):
        kind = classes[position] if position < len(classes) else ""
        opened = f'<tr class="{kind}">' if kind else "<tr>"
        lines.append(f"{opened}{''.join(row)}</tr>")
    body = "\n".join(lines)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
