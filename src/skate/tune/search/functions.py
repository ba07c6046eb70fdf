"""``sample_from`` inside a configuration: functions are called once what they look at is known."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from skate.tune.search.sample import Function

#: Completes what a function returned, which may hold domains itself: (name, value) -> value.
Settle = Callable[[str, Any], Any]


class Deferred:
    """Stands where a ``sample_from`` will put its value once the rest is known."""

    __slots__ = ("function", "name")

    def __init__(self, function: Function, name: str) -> None:
        self.function = function
        self.name = name


class OpenTuple(list[Any]):
    """A tuple that waits for a function among its items: values can still be put into it."""


class _UnresolvedError(Exception):
    """A function looked at the value of one that has not been called yet."""


def call_functions(config: dict[str, Any], settle: Settle) -> None:
    """Replace what was deferred, in whichever order the functions can see each other's values.

    Raises:
        ValueError: functions wait for each other.
    """
    called = False
    while waiting := list(_deferred(config)):
        called = True
        progress = False
        for holder, key, deferred in waiting:
            try:
                drawn = _call(deferred, config)
            except _UnresolvedError:
                continue
            holder[key] = settle(deferred.name, drawn)
            progress = True
        if not progress:
            names = ", ".join(repr(deferred.name) for _, _, deferred in waiting)
            raise ValueError(f"the sample_from functions of {names} wait for each other")
    if called:
        _close(config)


@contextmanager
def seeded(rng: random.Random) -> Iterator[None]:
    """Have the global generators of ``random`` and NumPy give what ``rng`` implies.

    Functions of the user draw from them; the same seed is to give the same trials all the same.
    What the rest of the program draws afterwards is not touched.
    """
    seed = rng.getrandbits(32)
    state = random.getstate()
    random.seed(seed)
    numpy = sys.modules.get("numpy")  # who has not imported it does not draw from it
    numpy_state = None if numpy is None else numpy.random.get_state()
    if numpy is not None:
        numpy.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def plain(value: Any) -> Any:
    """Return ``value`` without the views of the configuration in it."""
    if isinstance(value, (_View, _ListView)):
        return value.plain()
    if type(value) is dict:
        return {key: plain(child) for key, child in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(child) for child in value)
    return value


def _call(deferred: Deferred, config: Mapping[str, Any]) -> Any:
    function = deferred.function
    try:
        return plain(function.func(_View(config)) if function.wants_config else function.func())
    except _UnresolvedError:
        raise
    except Exception as error:
        error.add_note(f"raised by the sample_from function of parameter {deferred.name!r}")
        raise


def _deferred(node: Any) -> Iterator[tuple[Any, Any, Deferred]]:
    """Yield holder, key and the deferred function of each place that waits for one."""
    for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(child, Deferred):
            yield node, key, child
        elif isinstance(child, (dict, list, tuple)):
            yield from _deferred(child)


def _close(node: Any) -> Any:
    """Make tuples of the open ones, in place."""
    holder: Any = node  # a tuple that is none of the open ones has none as a direct item either
    if isinstance(node, (dict, list, tuple)):
        for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
            closed = _close(child)
            if closed is not child:
                holder[key] = closed
    return tuple(node) if isinstance(node, OpenTuple) else node


def _seen(value: Any) -> Any:
    """Return what a function sees of ``value``."""
    if isinstance(value, Deferred):
        raise _UnresolvedError
    if isinstance(value, Mapping):
        return _View(value)
    if isinstance(value, (list, tuple)) and next(_deferred(value), None) is not None:
        return _ListView(value)
    return value


class _View(Mapping[str, Any]):
    """What a function sees: the configuration, by item or by attribute."""

    __slots__ = ("_node",)

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._node = node

    def __getitem__(self, key: str) -> Any:
        if key == "config" and "config" not in self._node:
            return self
        return _seen(self._node[key])

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the configuration has no parameter {key!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._node)

    def __len__(self) -> int:
        return len(self._node)

    def plain(self) -> Any:
        """Return what is looked at."""
        if next(_deferred(self._node), None) is not None:
            raise _UnresolvedError
        return self._node


class _ListView(Sequence[Any]):
    """What a function sees of a list some of whose items are still to come."""

    __slots__ = ("_node",)

    def __init__(self, node: Sequence[Any]) -> None:
        self._node = node

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [_seen(value) for value in self._node[position]]
        return _seen(self._node[position])

    def __len__(self) -> int:
        return len(self._node)

    def plain(self) -> Any:
        """Return what is looked at: not before it is complete."""
        raise _UnresolvedError
