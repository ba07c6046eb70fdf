"""How much each parameter of a run mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skate.tune.readable import printable, text_of
from skate.tune.trial import Trial

#: Fewer trials say nothing.
FEWEST_TRIALS = 6
#: More trials only take longer.
MOST_TRIALS = 500
#: Numbers that differ by less than this factor are never shown on a logarithmic scale.
LOGARITHMIC = 50.0


@dataclass(slots=True)
class Importances:
    """Shares that add up to 1, by parameter, the largest first.

    ``method`` says how they were found, for people.
    """

    shares: dict[str, float]
    method: str


@dataclass(slots=True)
class Parameter:
    """What trials had as one parameter.

    Attributes:
        values: one per trial; None where a trial does not have it.
        numeric: whether all of them are numbers.
        logarithmic: whether they are, and over orders of magnitude.
    """

    name: str
    values: list[Any]
    numeric: bool
    logarithmic: bool

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return len({text_of(value, repr) for value in self.values}) > 1

    def places(self) -> list[float]:
        """Return a number for each trial: the value, its logarithm, or the category's position.

        Trials that do not have the parameter are in a category of their own; among numbers they
        have NaN.
        """
        if self.numeric:
            change = math.log10 if self.logarithmic else float
            return [math.nan if value is None else change(value) for value in self.values]
        known = {category: float(at) for at, category in enumerate(self.categories())}
        return [known[_label(value)] for value in self.values]

    def categories(self) -> list[str]:
        """Return the values as texts, each once; in their order where they have one."""
        found = {_label(value): value for value in self.values}
        try:
            return sorted(found, key=lambda label: found[label])
        except TypeError:
            return sorted(found)


def parameters(trials: Sequence[Trial]) -> list[Parameter]:
    """Return the parameters that vary."""
    names = dict.fromkeys(name for trial in trials for name in trial.evaluated_params)
    found = [_parameter(name, [t.evaluated_params.get(name) for t in trials]) for name in names]
    return [parameter for parameter in found if parameter.varies]


def importances(trials: Sequence[Trial], metric: str, mode: str) -> Importances | None:
    """Return how much of the differences between trials each parameter explains.

    Where scikit-learn is installed a random forest learns to predict the trials, and it is how much
    worse it does when the values of a parameter are shuffled (Breiman, "Random forests", 2001);
    else it is the squared rank correlation of each parameter with the metric.  Both look at
    the ranks of the last reports, so that a few trials which diverged do not decide.

    Returns:
        None if there are too few trials with a number, or nothing varies.
    """
    trials = [trial for trial in trials if math.isfinite(trial.metric(metric, mode))]
    trials = trials[-MOST_TRIALS:]
    known = parameters(trials)
    scores = ranks([trial.metric(metric, mode) for trial in trials])
    if len(trials) < FEWEST_TRIALS or not known or len(set(scores)) == 1:
        return None
    try:
        raw, method = _permutations(known, scores), "a random forest, values shuffled"
    except ImportError:
        raw, method = _correlations(known, scores), "squared rank correlations"
    total = math.fsum(raw.values())
    if total <= 0:
        return None
    shares = sorted(((share / total, name) for name, share in raw.items()), reverse=True)
    return Importances({name: share for share, name in shares}, method)


def ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    found = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for at in order[first : last + 1]:
            found[at] = (first + last) / 2
        first = last + 1
    return found


def logarithmic(values: Sequence[float]) -> bool:
    """Say whether numbers are spread over orders of magnitude rather than over an interval."""
    low, high = min(values), max(values)
    if low <= 0 or high / low < LOGARITHMIC:
        return False
    middle = sorted(values)[len(values) // 2]
    return (middle - low) / (high - low) < 0.2


def _permutations(known: Sequence[Parameter], scores: Sequence[float]) -> dict[str, float]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    rows = list(zip(*(parameter.places() for parameter in known), strict=True))
    forest = RandomForestRegressor(n_estimators=50, min_samples_leaf=2, random_state=0)
    forest.fit(rows, scores)
    found = permutation_importance(forest, rows, scores, n_repeats=5, random_state=0)
    means = found.importances_mean.tolist()
    # A parameter without any effect may come out a little below 0.
    return {parameter.name: max(0.0, mean) for parameter, mean in zip(known, means, strict=True)}


def _correlations(known: Sequence[Parameter], scores: Sequence[float]) -> dict[str, float]:
    found = {}
    for parameter in known:
        places = parameter.places()
        pairs = [(p, s) for p, s in zip(places, scores, strict=True) if not math.isnan(p)]
        xs, ys = ranks([p for p, _ in pairs]), ranks([s for _, s in pairs])
        found[parameter.name] = _correlation(xs, ys) ** 2
    return found


def _correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    shared = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread = math.sqrt(
        math.fsum((x - mean_x) ** 2 for x in xs) * math.fsum((y - mean_y) ** 2 for y in ys)
    )
    return shared / spread if spread > 0 else 0.0


def _parameter(name: str, values: list[Any]) -> Parameter:
    there = [value for value in values if value is not None]
    numeric = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in there
    )
    if not numeric or not there:
        return Parameter(name, values, numeric=False, logarithmic=False)
    return Parameter(name, values, numeric=True, logarithmic=logarithmic(there))


def _label(value: Any) -> str:
    text = "-" if value is None else printable(text_of(value))
    return text if len(text) <= 20 else f"{text[:19]}…"
