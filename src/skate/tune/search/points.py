"""Configurations that the user wants tried before the searcher has a say."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from skate.tune.search import space as spaces
from skate.tune.search.sample import Categorical, Domain


class Points:
    """The queue of ``points_to_evaluate``, flat: parameter name to value."""

    def __init__(self, points: Sequence[Mapping[str, Any]] | None) -> None:
        if points is not None and (
            isinstance(points, Mapping) or not all(isinstance(p, Mapping) for p in points)
        ):
            raise TypeError(f"points_to_evaluate wants a list of dicts, got {points!r}")
        self._raw = list(points or ())
        self._queue: deque[dict[str, Any]] = deque()

    def check(self, space: Mapping[str, Any]) -> None:
        """Translate the points into names of ``space``.

        Raises:
            ValueError: a point sets something that is no parameter of the space.
        """
        known = spaces.domains(space)
        variable = {*known, *spaces.grids(space)}
        self._queue.clear()
        for point in self._raw:
            named = _named(space, point, "")
            unknown = sorted(name for name in named if not _known(name, variable))
            if unknown:
                raise ValueError(
                    f"points_to_evaluate sets {unknown[0]!r}, which the search space does not have;"
                    f" it has {sorted(variable)}"
                )
            self._queue.append(named)

    def next(self) -> dict[str, Any] | None:
        """Return the next point, None when all were tried."""
        return self._queue.popleft() if self._queue else None

    def __len__(self) -> int:
        return len(self._queue)


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
            below = spaces.join(name, key)
            if key in node:
                found.update(_named(node[key], child, below))
            else:
                # Flat names ("model/lr") are fine as well: searchers speak of parameters so.
                found[below] = child
        return found
    if isinstance(node, (list, tuple)) and isinstance(value, (list, tuple)):
        found = {}
        for position, (child, item) in enumerate(zip(node, value, strict=False)):
            found.update(_named(child, item, spaces.join(name, position)))
        return found
    return {}


def _matching(node: Categorical, value: Any, name: str) -> int:
    """Return the position of the category, a space of its own, that ``value`` is a point of."""
    for position, category in enumerate(node.categories):
        if (
            isinstance(category, Mapping)
            and isinstance(value, Mapping)
            and set(value) <= set(category)
            and all(
                isinstance(category[key], Domain) or category[key] == value[key] for key in value
            )
        ):
            return position
    raise ValueError(f"points_to_evaluate sets {name!r} to {value!r}, which is no category of it")
