"""Search spaces: nested dicts, lists and tuples in which some leaves are domains or grids.

A parameter is named by its path, ``"model/layers/0"``.  What stands below a category of ``choice``
or a value of ``grid_search`` is conditional: it exists only in trials that have that category, and
its path contains the position of the category.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from skate.tune.readable import text_of
from skate.tune.search import sample
from skate.tune.search.functions import Deferred, OpenTuple, call_functions
from skate.tune.search.sample import Categorical, Domain, Function

#: Draws a value for a domain, given its name.
Draw = Callable[[str, Domain], Any]

_NOTHING: Mapping[str, Any] = {}
#: What parameters may stand in.
_HOLDERS = (Mapping, list, tuple)


def is_grid(node: object) -> bool:
    """Say whether ``node`` is what ``grid_search`` returns."""
    return isinstance(node, Mapping) and len(node) == 1 and "grid_search" in node


def validate(space: object) -> None:
    """Check a search space; what is wrong is named by its path.

    Raises:
        TypeError: it is no dict, or something in it stands for no value.
        ValueError: a grid is empty or stands where no grid may stand, two parameters have the
            same name, or it holds itself.
    """
    if not isinstance(space, Mapping):
        raise TypeError(f"the search space has to be a dict, got {type(space).__name__}")
    try:
        _check(space, "", in_choice=False)
    except RecursionError:
        raise ValueError(
            "the search space holds itself, or is nested deeper than Python can follow"
        ) from None
    seen: set[str] = set()
    for name, _, _ in _walk(space):
        if name in seen:
            raise ValueError(
                f"two parameters of the search space are called {name!r}: a key with a '/' in it"
                " looks like nesting, and keys are told apart by their text"
            )
        seen.add(name)


def domains(space: Any, conditional: bool = False) -> dict[str, Domain]:
    """Return the domains of ``space`` by name, conditional ones only if asked for."""
    return {
        name: node
        for name, node, is_conditional in _walk(space)
        if isinstance(node, Domain) and (conditional or not is_conditional)
    }


def grids(space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the grids of ``space`` by name."""
    return {name: list(node["grid_search"]) for name, node, _ in _walk(space) if is_grid(node)}


def has_variables(node: object) -> bool:
    """Say whether anything in ``node`` has to be drawn."""
    return next(_walk(node), None) is not None


def has_functions(space: Mapping[str, Any]) -> bool:
    """Say whether a ``sample_from`` stands in ``space``."""
    return any(isinstance(node, Function) for _, node, _ in _walk(space))


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


def grid_size(node: Any, fixed: Mapping[str, Any] = _NOTHING, name: str = "") -> int:
    """Return how many combinations of grid values there are, not counting grids in ``fixed``."""
    if is_grid(node):
        if name in fixed:
            return 1
        # Values are many, and asked for every trial; few of them hold anything.
        return sum(
            grid_size(value, fixed, join(name, position)) if isinstance(value, _HOLDERS) else 1
            for position, value in enumerate(node["grid_search"])
        )
    return math.prod(grid_size(child, fixed, below) for below, child in _children(node, name))


def grid_point(
    space: Mapping[str, Any], index: int, fixed: Mapping[str, Any] = _NOTHING
) -> dict[str, Any]:
    """Return the combination of grid values number ``index``, by name.

    The first grid, in the order of the names, changes fastest, as it does in Ray.  Grids in
    ``fixed`` have the value they have there.
    """
    found: dict[str, Any] = {}
    _pick(space, "", index, fixed, found)
    return found


def grid_points(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each combination of the grids' values, by name; one empty dict if there are none."""
    for index in range(grid_size(space)):
        yield grid_point(space, index)


def resolve(
    space: Mapping[str, Any],
    draw: Draw,
    grid_point: Mapping[str, Any] = _NOTHING,
    fixed: Mapping[str, Any] = _NOTHING,
) -> dict[str, Any]:
    """Return a configuration: ``space`` with a value in the place of each domain and grid.

    Args:
        grid_point: the values of the grids.
        fixed: values of parameters that are not to be drawn.

    Raises:
        ValueError: ``sample_from`` functions wait for each other, or return a grid.
    """
    choices = _Choices(draw, grid_point, fixed)
    config: dict[str, Any] = choices.substitute(space, "")
    call_functions(config, choices.settle)
    return config


def merged(base: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with what only ``base`` has, at any depth of dicts."""
    result = {**base, **config}
    for key, below in base.items():
        above = config.get(key)
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            result[key] = merged(below, above)
    return result


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
    key = key if isinstance(key, str) else text_of(key)
    return f"{name}/{key}" if name else key


# --------------------------------------------------------------------------- inside


def _children(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of everything in a dict, list or tuple; nothing for the rest."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield join(name, key), child
    elif isinstance(node, (list, tuple)):
        for position, child in enumerate(node):
            yield join(name, position), child


def _walk(
    node: object, name: str = "", conditional: bool = False
) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, node and "only in some trials" of each domain and grid."""
    if isinstance(node, Domain) or is_grid(node):
        yield name, node, conditional
        for below, child in _children(_alternatives(node), name):
            yield from _walk(child, below, True)
        return
    for below, child in _children(node, name):
        yield from _walk(child, below, conditional)


def _alternatives(node: Any) -> Sequence[Any]:
    """Return the categories of a choice, the values of a grid; nothing for other domains."""
    if isinstance(node, Categorical):
        return node.categories
    return () if isinstance(node, Domain) else list(node["grid_search"])


def _check(node: object, name: str, in_choice: bool) -> None:
    if is_grid(node):
        values = node["grid_search"]  # type: ignore[index]  # is_grid says that it is a dict
        if not sample.is_collection(values) or len(values) == 0:
            raise ValueError(
                f"{name}: grid_search wants a list of at least one value, got {values!r:.100}"
            )
        if in_choice:
            raise ValueError(f"{name}: a grid_search cannot stand inside a choice; use choice")
    if isinstance(node, Domain) or is_grid(node):
        inside = in_choice or isinstance(node, Domain)
        for below, child in _children(_alternatives(node), name):
            _check(child, below, inside)
        return
    if isinstance(node, (set, frozenset)) and any(isinstance(item, Domain) for item in node):
        raise TypeError(f"{name}: parameters cannot stand in a set; use a list")
    if callable(node) and getattr(node, "__module__", "") == sample.__name__:
        made = getattr(node, "__name__", repr(node))
        raise TypeError(f"{name}: is tune.{made} itself; call it: tune.{made}(...)")
    if type(node).__module__.startswith("optuna.distributions"):
        raise TypeError(
            f"{name}: is a distribution of Optuna; give the whole space to OptunaSearch(space=...),"
            " or write it with tune.uniform and the like"
        )
    for below, child in _children(node, name):
        _check(child, below, in_choice)


def _pick(
    node: Any, name: str, index: int, fixed: Mapping[str, Any], found: dict[str, Any]
) -> None:
    if is_grid(node):
        if name in fixed:
            found[name] = fixed[name]
            return
        for position, value in enumerate(node["grid_search"]):
            holds = isinstance(value, _HOLDERS)
            size = grid_size(value, fixed, join(name, position)) if holds else 1
            if index < size:
                found[name] = value
                if holds:
                    _pick(value, join(name, position), index, fixed, found)
                return
            index -= size
        return
    children = list(_children(node, name))
    if isinstance(node, Mapping):
        children.sort(key=lambda child: child[0])
    for below, child in children:
        index, rest = divmod(index, grid_size(child, fixed, below))
        _pick(child, below, rest, fixed, found)


class _Choices:
    """Everything that has been decided about one configuration."""

    def __init__(self, draw: Draw, grids: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
        self.draw = draw
        self.grids = grids
        self.fixed = fixed

    def substitute(self, node: Any, name: str) -> Any:
        """Return ``node`` with values, and ``Deferred`` in the place of functions."""
        if isinstance(node, Domain):
            return self._drawn(node, name)
        if is_grid(node):
            return self._inside(self.grids[name], node["grid_search"], name)
        if isinstance(node, Mapping):
            return {key: self.substitute(node[key], join(name, key)) for key in node}
        if isinstance(node, (list, tuple)) and has_variables(node):
            items = [self.substitute(child, below) for below, child in _children(node, name)]
            if isinstance(node, list):
                return items
            waits = any(isinstance(item, (Deferred, OpenTuple)) for item in items)
            return OpenTuple(items) if waits else tuple(items)
        return node

    def settle(self, name: str, value: Any) -> Any:
        """Return what a function drew, with values for the domains in it."""
        if not isinstance(value, (Mapping, list, tuple, Domain)) or not has_variables(value):
            return value
        if any(is_grid(node) for _, node, _ in _walk(value)):
            raise ValueError(f"{name}: a sample_from function cannot return a grid_search")
        return self.substitute(value, name)

    def _drawn(self, node: Domain, name: str) -> Any:
        known = name in self.fixed
        if isinstance(node, Function):
            return self.fixed[name] if known else Deferred(node, name)
        value = self.fixed[name] if known else self.draw(name, node)
        if isinstance(node, Categorical):
            return self._inside(value, node.categories, name)
        return value

    def _inside(self, value: Any, alternatives: Collection[Any], name: str) -> Any:
        """Return a category or grid value, which may be a space of its own."""
        if not isinstance(value, (Mapping, list, tuple, Domain)) or not has_variables(value):
            return value
        positions = [i for i, other in enumerate(alternatives) if other is value]
        return self.substitute(value, join(name, positions[0]) if positions else name)
