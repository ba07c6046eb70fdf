"""How Population Based Training changes a configuration: drawn anew, or moved a little."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from skate.tune.search.functions import seeded
from skate.tune.search.sample import Categorical, Domain, Float, Function, Integer, round_to_step
from skate.tune.search.space import join

#: What may be changed, and how: a domain, a list of values in their order, a function that draws a
#: value, or a dict of such for a nested configuration.
Mutations: TypeAlias = Mapping[str, Any]
#: A function of the user that has the last word about a changed configuration.
Explore: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


def check_mutations(mutations: Mapping[str, Any], name: str = "") -> None:
    """Check what a user wrote for ``hyperparam_mutations``.

    Raises:
        TypeError: a value is no domain, list, function or dict.
        ValueError: a list is empty, or a function wants to see the rest of the configuration.
    """
    for key, way in mutations.items():
        path = join(name, key)
        if isinstance(way, Function) and way.wants_config:
            raise ValueError(
                f"hyperparam_mutations[{path!r}]: the function of sample_from() cannot see the rest"
                " of the configuration here; give one without an argument"
            )
        if isinstance(way, Mapping):
            check_mutations(way, path)
        elif isinstance(way, (list, tuple)):
            if not way:
                raise ValueError(f"hyperparam_mutations[{path!r}] has no values")
        elif not isinstance(way, Domain) and not callable(way):
            raise TypeError(
                f"hyperparam_mutations[{path!r}] wants a list of values, a domain such as"
                f" tune.uniform(0, 1), a function or a dict of those, got {way!r}"
            )


def fill(config: dict[str, Any], mutations: Mutations, rng: random.Random) -> dict[str, Any]:
    """Draw what ``config`` lacks, in place.

    Returns:
        What was drawn, by path.
    """
    drawn: dict[str, Any] = {}
    for key, way in mutations.items():
        if isinstance(way, Mapping):
            inner = config.setdefault(key, {})
            drawn.update({join(key, k): v for k, v in fill(inner, way, rng).items()})
        elif key not in config:
            config[key] = drawn[str(key)] = draw(way, rng)
    return drawn


def draw(way: Any, rng: random.Random) -> Any:
    """Return a new value."""
    if isinstance(way, (list, tuple)):
        return rng.choice(way)
    if isinstance(way, Domain) and not isinstance(way, Function):
        return way.sample(rng)
    with seeded(rng):
        return way.sample() if isinstance(way, Function) else way()


def explore(
    config: Mapping[str, Any],
    mutations: Mutations,
    resample_probability: float,
    factors: Sequence[float],
    rng: random.Random,
) -> dict[str, Any]:
    """Return a copy of ``config`` where everything that ``mutations`` names is changed.

    With ``resample_probability`` a value is drawn anew.  Otherwise it moves to one of its
    neighbours in a list (at the ends it may stay), or is multiplied by one of ``factors``; that may
    lead beyond the bounds of a domain.
    """
    explored: dict[str, Any] = copy.deepcopy(dict(config))
    for key, way in mutations.items():
        if isinstance(way, Mapping):
            nested = explored.get(key, {})
            explored[key] = explore(nested, way, resample_probability, factors, rng)
        elif key not in explored or rng.random() < resample_probability:
            explored[key] = draw(way, rng)
        else:
            explored[key] = _moved(explored[key], way, factors, rng)
    return explored


def _moved(value: Any, way: Any, factors: Sequence[float], rng: random.Random) -> Any:
    if isinstance(way, (list, tuple, Categorical)):
        values = way if isinstance(way, Categorical) else Categorical(tuple(way))
        try:
            position = values.index(value) + rng.choice((-1, 1))
        except ValueError:
            return values.sample(rng)
        return values.categories[min(max(position, 0), len(values.categories) - 1)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return draw(way, rng)
    moved = value * rng.choice(factors)
    if isinstance(way, (Float, Integer)) and way.q not in (None, 1):
        moved = round_to_step(moved, float(way.q or 1))
    return int(moved) if isinstance(value, int) else moved
