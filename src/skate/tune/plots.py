"""Pictures of a run."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.curves import Curve, Curves, Results, learning_curves, value_limits
from skate.tune.display import number, params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"completed": "#4878a8", "stopped": "#d9822b", "failed": "#c23b3b", "best": "#1a7f37"}
_LABELS = {
    "completed": "ran to its end",
    "stopped": "stopped early",
    "failed": "failed",
    "best": "best",
}
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


def learning_curves_svg(curves: Curves, title: str) -> str:
    """Return the picture as an ``<svg>`` element, for a page."""
    buffer = io.StringIO()
    draw(curves, title).savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def draw(curves: Curves, title: str) -> Figure:
    """Return the learning curves as a figure; no window is opened and no backend changed."""
    figure_class = _figure_class()
    figure: Figure = figure_class(figsize=(9, 5.4), layout="constrained")
    axes = figure.subplots()
    crowded = len(curves.curves) > _MANY
    for kind in ("failed", "stopped", "completed", "best"):
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


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'skate[tune]'") from error
    return Figure
