"""Pictures of the parameters of a run: parallel coordinates, and how much each mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skate.tune.analysis import best_trial
from skate.tune.curves import worth_drawing
from skate.tune.display import number
from skate.tune.importance import Importances, Parameter, logarithmic, parameters, ranks
from skate.tune.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Axes in parallel coordinates; of more parameters the most important ones are shown.
MOST_AXES = 9
_BEST = "#c2255c"


def draw_parallel(
    figure: Figure,
    trials: Sequence[Trial],
    metric: str,
    mode: str,
    title: str,
    found: Importances | None,
) -> bool:
    """Draw one line per trial through its parameters and its metric; say whether there is any.

    Of many parameters the most important are ``found``.
    """
    trials = [trial for trial in trials if math.isfinite(trial.metric(metric, mode))]
    shown = _most_important(parameters(trials), found)
    if not shown:
        return False
    values = [trial.metric(metric, mode) for trial in trials]
    low, high = worth_drawing(values) or (-math.inf, math.inf)
    inside = [min(max(value, low), high) for value in values]
    reached = Parameter(metric, inside, numeric=True, logarithmic=logarithmic(inside))
    axes = figure.subplots()
    columns = [*shown, reached]
    places = [_unit(column) for column in columns]
    _draw_lines(axes, figure, trials, places, values, metric, mode)
    for position, column in enumerate(columns):
        _draw_axis(axes, position, column)
    axes.set_xlim(-0.15, len(shown) + 0.35)
    axes.set_ylim(-0.06, 1.04)
    axes.set_yticks([])
    axes.set_xticks(
        range(len(columns)), [_axis_title(column, 110 // len(columns)) for column in columns]
    )
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.tick_params(length=0, pad=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
    return True


def draw_importances(figure: Figure, found: Importances, metric: str, title: str) -> None:
    """Draw a bar per parameter."""
    shares = dict(list(found.shares.items())[:20])
    axes = figure.subplots()
    names = list(reversed(shares))
    bars = axes.barh(names, [shares[name] for name in names], color="#4878a8", height=0.6)
    axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=4)
    axes.set_xlim(0, max(shares.values()) * 1.12)
    axes.set_xlabel(f"share of the differences in {metric} ({found.method})")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")


def _draw_lines(
    axes: Axes,
    figure: Figure,
    trials: Sequence[Trial],
    places: Sequence[Sequence[float]],
    values: Sequence[float],
    metric: str,
    mode: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    # By rank, so that one that diverged does not leave a single colour to all others.
    position = ranks(values if mode == "max" else [-value for value in values])
    most = max(1.0, len(trials) - 1.0)
    lines = [[(x, place[at]) for x, place in enumerate(places)] for at in range(len(trials))]
    order = sorted(range(len(trials)), key=lambda at: position[at])
    colours = colormaps["viridis_r"]
    axes.add_collection(
        LineCollection(
            [lines[at] for at in order],
            colors=[colours(0.9 * position[at] / most) for at in order],
            linewidths=1.2 if len(trials) <= 100 else 0.6,
            alpha=0.75 if len(trials) <= 100 else 0.4,
            rasterized=len(trials) > 500,
        )
    )
    best = best_trial(trials, metric, mode)
    if best is not None:
        at = next(index for index, trial in enumerate(trials) if trial is best)
        label = f"best: {metric} = {number(values[at])}; dark lines are good, pale ones bad"
        axes.plot(*zip(*lines[at], strict=True), color=_BEST, linewidth=2.4, label=label)
        figure.legend(loc="outside lower right", frameon=False, fontsize="small")


def _draw_axis(axes: Axes, position: int, column: Parameter) -> None:
    axes.axvline(position, 0.055, 0.965, color="#1f2328", linewidth=0.9, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
    for place, text in _marks(column):
        axes.text(
            position + 0.025, place, text, fontsize=8, va="center", ha="left", bbox=box, zorder=6
        )


def _marks(column: Parameter) -> list[tuple[float, str]]:
    """Return what stands along an axis, and where, from 0 to 1."""
    if not column.numeric:
        categories = column.categories()
        step = max(1, math.ceil(len(categories) / 12))
        most = max(1, len(categories) - 1)
        return [(at / most, categories[at]) for at in range(0, len(categories), step)]
    there = [place for place in column.places() if not math.isnan(place)]
    low, high = min(there), max(there)
    whole = all(isinstance(value, int) for value in column.values if value is not None)
    if whole and high - low <= 10 and not column.logarithmic:
        steps = int(high - low)
        return [(at / max(1, steps), str(int(low) + at)) for at in range(steps + 1)]
    return [((at - low) / ((high - low) or 1.0), text) for at, text in _round(low, high, column)]


def _round(low: float, high: float, column: Parameter) -> list[tuple[float, str]]:
    """Return round numbers between two places, and how they are written."""
    from matplotlib.ticker import MaxNLocator

    if not column.logarithmic:
        values = [at for at in MaxNLocator(5).tick_values(low, high) if low <= at <= high]
        return [(at, f"{at:.4g}") for at in values] or [(low, f"{low:.4g}")]
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    step = max(1, math.ceil((last - first) / 7))
    return [(at, f"{10.0**at:g}") for at in range(first, last + 1, step)]


def _unit(column: Parameter) -> list[float]:
    """Return places from 0 to 1; those of trials without the parameter lie below the axis."""
    places = column.places()
    if not column.numeric:
        most = max(1, len(column.categories()) - 1)
        return [place / most for place in places]
    there = [place for place in places if not math.isnan(place)]
    low, high = min(there), max(there)
    width = high - low or 1.0
    return [-0.05 if math.isnan(place) else (place - low) / width for place in places]


def _axis_title(column: Parameter, most: int) -> str:
    name = column.name if len(column.name) <= most else f"…{column.name[1 - most :]}"
    return f"{name}\n(log)" if column.logarithmic else name


def _most_important(known: list[Parameter], found: Importances | None) -> list[Parameter]:
    if len(known) <= MOST_AXES or found is None:
        return known[:MOST_AXES]
    wanted = list(found.shares)[:MOST_AXES]
    return [parameter for parameter in known if parameter.name in wanted]
