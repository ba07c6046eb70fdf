"""Pictures of a run."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.curves import Curve, Curves, Results, learning_curves, value_limits
from skate.tune.display import number, params
from skate.tune.finished_run import FinishedRun
from skate.tune.importance import importances
from skate.tune.parameter_plots import draw_importances, draw_parallel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "completed": "#4878a8",
    "stopped": "#d9822b",
    "failed": "#c23b3b",
    "best": "#1a7f37",
    "running": "#8a8f98",
}
_LABELS = {
    "completed": "ran to its end",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "not over",
    "best": "best",
}
#: From so many points on, all but the best curve become an image.
_HEAVY = 20_000
#: From so many curves on, lines are thinned so that the picture stays readable.
_MANY = 25


def save_learning_curves(
    results: Results, path: str | os.PathLike[str], metric: str | None = None
) -> None:
    """Draw the metric of all trials over their iterations.

    Trials that a scheduler ended early are dashed and end in a cross; the best one stands out.

    Args:
        results: what ``tune.run`` or ``Tuner.fit`` returned.
        path: the file; its suffix says which format (".png", ".svg", ".pdf").
        metric: what to draw; defaults to the run's.

    Raises:
        ImportError: matplotlib is not installed.
        MetricError: no trial reported the metric.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = learning_curves(results.experiment, metric)
    draw(curves, results.experiment.name).savefig(path, dpi=150)


def save_plots(
    results: Results, folder: str | os.PathLike[str], metric: str | None = None
) -> list[Path]:
    """Draw everything there is to draw about a run, each picture as a PNG.

    Args:
        results: what ``tune.run`` or ``Tuner.fit`` returned.
        folder: where to; it is made if it is not there.
        metric: what to draw; defaults to the run's.

    Returns:
        The files: ``learning_curves.png``, ``ends.png``, and, where parameters vary and enough
        trials reported, ``parallel_coordinates.png`` and ``importance.png``.

    Raises:
        ImportError: matplotlib is not installed.
        MetricError: no trial reported the metric.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in pictures(results.experiment, metric, results.experiment.name).items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def pictures(experiment: FinishedRun, metric: str | None, title: str) -> dict[str, Figure]:
    """Return all figures that there are data for, by name; none if no trial reported a number.

    Raises:
        ImportError: matplotlib is not installed.
        MetricError: no trial reported the metric.
    """
    curves = learning_curves(experiment, metric)
    found: dict[str, Figure] = {}
    if not curves.curves:
        return found
    found["learning_curves"] = draw(curves, title)
    found["ends"] = draw_ends(curves, title)
    shares = importances(experiment.trials, curves.metric, curves.mode)
    figure = _figure(4.8)
    if draw_parallel(figure, experiment.trials, curves.metric, curves.mode, title, shares):
        found["parallel_coordinates"] = figure
    if shares is not None:
        found["importance"] = figure = _figure(1.2 + 0.36 * min(20, len(shares.shares)))
        draw_importances(figure, shares, curves.metric, title)
    return found


def svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element, for a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=110)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def draw_ends(curves: Curves, title: str) -> Figure:
    """Return a figure of how many trials ended at which iteration, and why."""
    figure = _figure(3.2)
    axes = figure.subplots()
    ends = {
        kind: Counter(int(curve.iterations[-1]) for curve in curves.curves if curve.end == kind)
        for kind in ("completed", "stopped", "failed", "running")
    }
    places = _bins([end for counts in ends.values() for end in counts])
    below = [0] * len(places)
    for kind, counts in ends.items():
        heights = [sum(counts[end] for end in place) for place in places]
        if not any(heights):
            continue
        label = f"{_LABELS[kind]} ({sum(heights)})"
        axes.bar(range(len(places)), heights, 0.7, below, color=_COLOURS[kind], label=label)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    for position, height in enumerate(below):
        axes.annotate(
            str(height), (position, height), (0, 3), textcoords="offset points", ha="center"
        )
    axes.margins(y=0.12)
    axes.set_xticks(range(len(places)), [_bin_title(place) for place in places])
    axes.set_xlabel("training iteration of the last report")
    axes.set_ylabel("trials")
    axes.yaxis.set_major_locator(_integers())
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    return figure


def _bins(ends: list[int]) -> list[list[int]]:
    """Return the iterations at which trials ended, neighbours together if there are many."""
    every = sorted(set(ends))
    size = -(-len(every) // 16)
    return [every[first : first + size] for first in range(0, len(every), size)]


def _bin_title(place: list[int]) -> str:
    return str(place[0]) if len(place) == 1 else f"{place[0]}-{place[-1]}"


def draw(curves: Curves, title: str) -> Figure:
    """Return the learning curves as a figure; no window is opened and no backend changed."""
    figure = _figure(5.4)
    axes = figure.subplots()
    crowded = len(curves.curves) > _MANY
    if sum(len(curve.values) for curve in curves.curves) > _HEAVY:
        # As lines they would make a page of many megabytes.
        axes.set_rasterization_zorder(4)
    for kind in ("running", "failed", "stopped", "completed", "best"):
        for position, curve in enumerate(curves.of(kind)):
            _draw_curve(axes, curve, crowded, label=_label(curves, kind) if not position else None)
    if curves.longest == 1:
        # One report per trial makes no lines: the trials one after the other say more.
        axes.set_xlabel("training iteration (one report per trial)")
    else:
        axes.set_xlabel("training iteration")
    axes.set_ylabel(f"{curves.metric} ({'lower' if curves.mode == 'min' else 'higher'} is better)")
    limits = value_limits(curves.curves)
    if limits is not None:
        axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(_integers())
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.curves:
        axes.legend(loc="best", frameon=True, framealpha=0.85, fontsize="small")
    return figure


def _draw_curve(axes: Axes, curve: Curve, crowded: bool, label: str | None) -> None:
    best = curve.kind == "best"
    stopped = curve.kind in ("stopped", "failed")
    colour = _COLOURS[curve.kind]
    axes.plot(
        curve.iterations,
        curve.values,
        color=colour,
        linewidth=2.6 if best else 0.8 if crowded else 1.3,
        linestyle="--" if stopped else "-",
        alpha=1.0 if best else 0.45 if crowded else 0.8,
        zorder=4 if best else 2,
        label=label,
    )
    axes.plot(
        curve.iterations[-1:],
        curve.values[-1:],
        color=colour,
        marker="x" if stopped else "o",
        markersize=(7 if best else 4 if crowded else 5),
        alpha=1.0 if best else 0.7,
        linestyle="none",
        zorder=5 if best else 3,
    )


def _label(curves: Curves, kind: str) -> str:
    found = curves.of(kind)
    if kind != "best":
        return f"{_LABELS[kind]} ({len(found)})"
    text = f"best: {number(found[0].values[-1])} ({params(found[0].trial)})"
    return text if len(text) <= 90 else text[:87] + "..."


def _integers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _figure(height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'skate[tune]'") from error
    return Figure(figsize=(9, height), layout="constrained")
