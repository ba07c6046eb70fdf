"""Search spaces: nested dicts, lists and tuples in which some leaves are domains or grids.

A parameter is named by its path, ``"model/layers/0"``.  What stands below a category of ``choice``
is conditional: it exists only in trials that drew that category, and its path contains the position
of the category.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skate.tune.search.sample import Categorical, Domain, Function

#: Draws a value for a domain, given its name.
Draw = Callable[[str, Domain], Any]


class _Deferred:
    """Stands where a ``sample_from`` will put its value once the rest is known."""

    __slots__ = ("function",)

    def __init__(self, function: Function) -> None:
        self.function = function


class _UnresolvedError(Exception):
    """A ``sample_from`` looked at the value of one that has not been called yet."""


def is_grid(node: object) -> bool:
    """Say whether ``node`` is what ``grid_search`` returns."""
    return isinstance(node, Mapping) and len(node) == 1 and "grid_search" in node


def validate(space: object) -> None:
    """Check a search space.

    Raises:
        TypeError: it is no dict.
        ValueError: a grid is empty or stands where no grid may stand.
    """
    if not isinstance(space, Mapping):
        raise TypeError(f"the search space has to be a dict, got {type(space).__name__}")
    for name, node, in_choice in _walk(space):
        if is_grid(node):
            values = node["grid_search"]
            if not isinstance(values, (list, tuple)) or not values:
                raise ValueError(f"{name}: grid_search wants a list of at least one value")
            if in_choice:
                raise ValueError(f"{name}: a grid_search cannot stand inside a choice; use choice")


def domains(space: Mapping[str, Any], conditional: bool = False) -> dict[str, Domain]:
    """Return the domains of ``space`` by name, those inside categories only if ``conditional``."""
    return {
        name: node
        for name, node, in_choice in _walk(space)
        if isinstance(node, Domain) and (conditional or not in_choice)
    }


def grids(space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the grids of ``space`` by name."""
    return {name: list(node["grid_search"]) for name, node, _ in _walk(space) if is_grid(node)}


def has_variables(node: object) -> bool:
    """Say whether anything in ``node`` has to be drawn."""
    return next(_walk(node), None) is not None


def written_values(node: Any) -> Any:
    """Return ``node`` with its categories and grid values, and None where a value will be drawn."""
    if isinstance(node, Categorical):
        return [written_values(category) for category in node.categories]
    if isinstance(node, Domain):
        return None
    if isinstance(node, Mapping):
        return {key: written_values(child) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return [written_values(child) for child in node]
    return node


def grid_points(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each combination of the grids' values, by name; one empty dict if there are none."""
    found = grids(space)
    for values in itertools.product(*found.values()):
        yield dict(zip(found, values, strict=True))


def resolve(
    space: Mapping[str, Any], draw: Draw, grid_point: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a configuration: ``space`` with a value in the place of each domain and grid.

    Raises:
        ValueError: ``sample_from`` functions wait for each other.
    """
    config: dict[str, Any] = _substitute(space, draw, grid_point or {}, "")
    _call_functions(config)
    return config


def varying(space: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``config`` that differ from trial to trial, flat.

    Everything counts in a space without variables: then the searcher brought its own.
    """
    if not has_variables(space):
        return flatten(config)
    found: dict[str, Any] = {}

    def visit(node: object, value: object, name: str) -> None:
        if isinstance(node, Domain) or is_grid(node):
            found.update(flatten(value, name))
        elif isinstance(node, Mapping) and isinstance(value, Mapping):
            for key, child in node.items():
                if key in value:
                    visit(child, value[key], join(name, key))
        elif isinstance(node, (list, tuple)) and isinstance(value, (list, tuple)):
            for position, (child, item) in enumerate(zip(node, value, strict=False)):
                visit(child, item, join(name, position))

    visit(space, config, "")
    return found


def flatten(node: object, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by name."""
    if not isinstance(node, Mapping) or (not node and name):
        return {name: node}
    found: dict[str, Any] = {}
    for key, child in node.items():
        found.update(flatten(child, join(name, key)))
    return found


def join(name: str, key: object) -> str:
    """Return the name of what is found under ``key`` in what is called ``name``."""
    return f"{name}/{key}" if name else str(key)


# --------------------------------------------------------------------------- inside


def _walk(node: object, name: str = "", in_choice: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, node and "stands below a choice" of each domain and grid."""
    if isinstance(node, Domain) or is_grid(node):
        yield name, node, in_choice
        if isinstance(node, Categorical):
            for position, category in enumerate(node.categories):
                yield from _walk(category, join(name, position), True)
    elif isinstance(node, Mapping):
        for key, child in node.items():
            yield from _walk(child, join(name, key), in_choice)
    elif isinstance(node, (list, tuple)):
        for position, child in enumerate(node):
            yield from _walk(child, join(name, position), in_choice)


def _substitute(node: Any, draw: Draw, grid_point: Mapping[str, Any], name: str) -> Any:
    if isinstance(node, Function):
        return _Deferred(node)
    if isinstance(node, Categorical):
        drawn = draw(name, node)
        if isinstance(drawn, (Mapping, list, tuple, Domain)) and has_variables(drawn):
            below = join(name, node.index(drawn))
            return _substitute(drawn, draw, grid_point, below)
        return drawn
    if isinstance(node, Domain):
        return draw(name, node)
    if is_grid(node):
        value = grid_point[name]
        return _substitute(value, draw, {}, name) if has_variables(value) else value
    if isinstance(node, Mapping):
        return {key: _substitute(node[key], draw, grid_point, join(name, key)) for key in node}
    if isinstance(node, (list, tuple)) and has_variables(node):
        items = [_substitute(c, draw, grid_point, join(name, i)) for i, c in enumerate(node)]
        return items if isinstance(node, list) else tuple(items)
    return node


def _call_functions(config: dict[str, Any]) -> None:
    """Replace what was deferred, in whichever order the functions can see each other's values."""
    waiting = list(_deferred(config))
    while waiting:
        still: list[tuple[Any, Any, _Deferred]] = []
        for holder, key, deferred in waiting:
            function = deferred.function
            try:
                drawn = function.func(_View(config)) if function.wants_config else function.func()
            except _UnresolvedError:
                still.append((holder, key, deferred))
                continue
            holder[key] = drawn.plain() if isinstance(drawn, _View) else drawn
        if len(still) == len(waiting):
            names = ", ".join(repr(key) for _, key, _ in still)
            raise ValueError(f"the sample_from functions of {names} wait for each other")
        waiting = still


def _deferred(node: Any) -> Iterator[tuple[Any, Any, _Deferred]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        if isinstance(child, _Deferred):
            if isinstance(node, tuple):
                raise ValueError("sample_from cannot stand in a tuple; use a list")
            yield node, key, child
        elif isinstance(child, (dict, list, tuple)):
            yield from _deferred(child)


class _View(Mapping[str, Any]):
    """What a ``sample_from`` function sees: the configuration, by item or by attribute."""

    __slots__ = ("_node",)

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._node = node

    def __getitem__(self, key: str) -> Any:
        if key == "config" and "config" not in self._node:
            return self
        value = self._node[key]
        if isinstance(value, _Deferred):
            raise _UnresolvedError
        return _View(value) if isinstance(value, Mapping) else value

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the configuration has no parameter {key!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._node)

    def __len__(self) -> int:
        return len(self._node)

    def plain(self) -> Mapping[str, Any]:
        """Return what is looked at."""
        return self._node
