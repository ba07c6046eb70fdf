"""Configurations that the user wants tried before the searcher has a say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from skate.tune.search import space as spaces
from skate.tune.search.sample import Categorical, Domain, Float, Integer, Normal


class Points:
    """The queue of ``points_to_evaluate``, flat: parameter name to value.

    Args:
        points: configurations, or parts of them.
        rewards: what is known of the first of them already: one value each (a list, for several
            metrics), in their order.
    """

    def __init__(
        self, points: Sequence[Mapping[str, Any]] | None, rewards: Sequence[Any] | None = None
    ) -> None:
        if points is not None and (
            isinstance(points, (str, Mapping)) or not all(isinstance(p, Mapping) for p in points)
        ):
            raise TypeError(f"points_to_evaluate wants a list of dicts, got {points!r}")
        self._raw = list(points or ())
        self.rewards = list(rewards or ())
        if len(self.rewards) not in (0, len(self._raw)):
            raise ValueError(
                f"evaluated_rewards has {len(self.rewards)} values for the {len(self._raw)} of"
                " points_to_evaluate; give one for each"
            )
        self._queue: list[dict[str, Any]] = []
        self._taken = 0
        #: What lies outside of its domain, in words.
        self.outside: list[str] = []

    def check(self, space: Mapping[str, Any]) -> None:
        """Translate the points into names of ``space``.

        Raises:
            ValueError: a point sets something that is no parameter of the space, or something that
                the space has decided otherwise.
        """
        known = spaces.domains(space, conditional=True)
        variable = {*spaces.domains(space), *spaces.grids(space)}
        self._queue, self.outside = [], []
        for point in self._raw:
            named = named_values(space, point)
            unknown = sorted(name for name in named if not _known(name, variable))
            if unknown:
                raise ValueError(
                    f"points_to_evaluate sets {unknown[0]!r}, which the search space does not have;"
                    f" it has {sorted(variable)}"
                )
            self.outside += [
                f"points_to_evaluate sets {name!r} to {value!r}, outside of {known[name]}"
                for name, value in named.items()
                if name in known and not known[name].is_valid(value)
            ]
            self._queue.append(named)

    def accept(self, names: Collection[str] | None) -> None:
        """Take the points as they are, flat, for a space that is not one of Skate's domains.

        Args:
            names: the parameters that there are; None if that is not known.

        Raises:
            ValueError: a point sets something else.
        """
        self._queue = [spaces.flatten(point) for point in self._raw]
        for name in (name for point in self._queue for name in point):
            if names is not None and name not in names:
                raise ValueError(
                    f"points_to_evaluate sets {name!r}, which the search space does not have;"
                    f" it has {sorted(names)}"
                )

    def take(self) -> dict[str, Any] | None:
        """Return the next point, None when all were tried."""
        if self._taken >= len(self._queue):
            return None
        self._taken += 1
        return self._queue[self._taken - 1]

    def all(self) -> Sequence[Mapping[str, Any]]:
        """Return all points, tried or not."""
        return self._queue


def named_values(space: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one point under the names of the parameters of ``space``.

    Raises:
        ValueError: a value is no category, or differs from what the space says.
    """
    return _named(space, point, "")


def _known(name: str, variable: set[str]) -> bool:
    """Say whether ``name`` is a parameter, or stands inside a category of one."""
    return name in variable or any(name.startswith(f"{other}/") for other in variable)


def _named(node: Any, value: Any, name: str) -> dict[str, Any]:
    """Return the values of one point under the names of the space's parameters."""
    if isinstance(node, Categorical):
        try:
            position = node.index(value)
        except ValueError:
            position = _matching(node, value, name)
        category = node.categories[position]
        found = {name: category}
        if spaces.has_variables(category):
            found.update(_named(category, value, spaces.join(name, position)))
        return found
    if isinstance(node, Domain) or spaces.is_grid(node):
        return {name: value}
    if isinstance(node, Mapping) and isinstance(value, Mapping):
        found = {}
        for key, child in value.items():
            # Flat names ("model/lr") are fine as well: searchers speak of parameters so.
            first, _, rest = str(key).partition("/")
            if key in node:
                found.update(_named(node[key], child, spaces.join(name, key)))
            elif rest and isinstance(node.get(first), Mapping):
                found.update(_named(node[first], {rest: child}, spaces.join(name, first)))
            else:
                found[spaces.join(name, key)] = child
        return found
    if isinstance(node, (list, tuple)) and isinstance(value, (list, tuple)):
        if len(node) != len(value):
            raise ValueError(
                f"points_to_evaluate sets {name!r} to {value!r}; the search space has {len(node)}"
                " items there"
            )
        found = {}
        for position, (child, item) in enumerate(zip(node, value, strict=True)):
            found.update(_named(child, item, spaces.join(name, position)))
        return found
    if not _same(node, value):
        raise ValueError(
            f"points_to_evaluate sets {name!r} to {value!r}, but it is no parameter: the search"
            f" space says {node!r}"
        )
    return {}


def _same(one: object, other: object) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # arrays answer with arrays: what cannot be compared is not found wrong
        return True


def _matching(node: Categorical, value: Any, name: str) -> int:
    """Return the position of the category, a space of its own, that ``value`` is a point of.

    It may be a point of several, also as a part of one: the first is meant of those that could have
    been drawn like this, or of those that could not if there are no others.
    """
    found: dict[int, tuple[bool, ...]] = {}
    for position, category in enumerate(node.categories):
        if not spaces.has_variables(category):
            continue
        if isinstance(category, Mapping) and not (
            isinstance(value, Mapping) and set(value) <= set(category)
        ):
            continue
        try:
            named = _named(category, value, "")
        except ValueError:
            continue
        found[position] = _likeness(category, value, named)
    if not found:
        raise ValueError(
            f"points_to_evaluate sets {name!r} to {value!r}, which is no category of it"
        )
    return max(found, key=lambda position: found[position])


def _likeness(category: Any, value: Any, named: Mapping[str, Any]) -> tuple[bool, ...]:
    """Return how much ``value`` is like what would be drawn from ``category``, most to least."""
    known = spaces.domains(category, conditional=True)
    fits = all(_could_draw(known[key], item) for key, item in named.items() if key in known)
    whole = set(spaces.domains(category)) <= set(named)
    if isinstance(category, Mapping):
        whole = whole and len(value) == len(category)
    return fits, whole, isinstance(category, Domain) or type(category) is type(value)


def _could_draw(domain: Domain, value: Any) -> bool:
    if isinstance(domain, (Float, Integer, Normal)):
        return domain.is_valid(value) and domain.round(value) == value
    return domain.is_valid(value)
