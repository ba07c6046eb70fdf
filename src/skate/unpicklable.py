"""Finds the part of a value that cannot be pickled, to name it in the error.

Runs only after pickling has failed.  A value is searched from the outside in: of the parts that an
object consists of, the first that does not pickle on its own is looked into next.  The work is
bounded: by ``MAX_ATTEMPTS``, by ``MAX_SECONDS`` and by ``MAX_DEPTH``; the search then names the
place it has come to.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from skate.pickling import Pickler

#: Parts that are pickled on trial.
MAX_ATTEMPTS = 2000
#: Seconds after which no further part is tried.
MAX_SECONDS = 2.0
#: Levels that are descended; nobody reads a longer path.
MAX_DEPTH = 30

#: Types whose instances always pickle; trying them would use up the attempts.
_ATOMS = frozenset((int, float, complex, str, bytes, bool, type(None)))


class Place(NamedTuple):
    """Where a part is: prefix, expression, suffix; ``closure variable db.sock of function f``."""

    prefix: str
    expression: str
    suffix: str

    def __str__(self) -> str:
        return f"{self.prefix}{self.expression}{self.suffix}"

    def then(self, step: str) -> Place:
        """Return the place of an attribute or item of this part."""
        return self._replace(expression=self.expression + step)


class _Part(NamedTuple):
    place: Place
    value: Any


def explain(value: object, name: str, error: BaseException) -> str:
    """Return a message that says which part of ``value`` raised ``error``.

    ``name`` says what the value is called; "" stands for the ``(args, kwargs)`` of a call.
    """
    part, cause = _Search().find(value, name, error)
    kind = type(part.value)
    shown = kind.__qualname__
    if kind.__module__ != "builtins":
        shown = f"{kind.__module__}.{shown}"
    return f"cannot serialize {part.place} (type {shown}): {_describe(cause)}"


class Failure(NamedTuple):
    """A part that cannot be pickled though all of its own parts can, as far as they were tried."""

    place: Place
    value: Any
    #: The part that it belongs to; None if it is the value itself.
    parent: Any
    #: What pickling it raised, in one line.
    reason: str


def failures(value: object, name: str, depth: int) -> list[Failure]:
    """Return what in ``value`` cannot be pickled; [] if it can be.

    Args:
        value: Anything.
        name: What it is called.
        depth: How many levels of parts are looked into.
    """
    search = _Search()
    error = search.try_to_pickle(value)
    if error is None:
        return []
    return search.find_all(_Part(Place("", name, ""), value), None, error, depth, {id(value)})


def _describe(error: BaseException) -> str:
    if _is_recursion(error):
        return "it is nested too deeply to be pickled (recursion limit reached)"
    try:
        text = str(error)
    except Exception:  # it is the user's class
        text = "(its message cannot be shown)"
    return text if type(error) is TypeError and text else f"{type(error).__name__}: {text}"


def _is_recursion(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


class _Discard:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Search:
    def __init__(self) -> None:
        self._attempts = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    def find(self, value: object, name: str, error: BaseException) -> tuple[_Part, BaseException]:
        """Return the innermost part that fails on its own, and how it fails."""
        here = _Part(Place("", name, ""), value)
        if _is_recursion(error):
            # Each level would fail like the one above it; the top is what the user can act on.
            return self._top_of_recursion(here, name, error)
        seen = {id(value)}
        for _ in range(MAX_DEPTH):
            found = self._failing_part(here, name, seen)
            if found is None:
                break
            here, error = found
            seen.add(id(here.value))
        return here, error

    def find_all(
        self, whole: _Part, parent: Any, error: BaseException, depth: int, seen: set[int]
    ) -> list[Failure]:
        """Return the innermost parts of ``whole``, which raises ``error``, that fail."""
        found: list[Failure] = []
        if depth > 0 and not _is_recursion(error):
            for part, inner in self._failing_parts(whole, "", seen):
                seen.add(id(part.value))
                found += self.find_all(part, whole.value, inner, depth - 1, seen)
        return found or [Failure(whole.place, whole.value, parent, _describe(error))]

    def _top_of_recursion(
        self, here: _Part, name: str, error: BaseException
    ) -> tuple[_Part, BaseException]:
        if name == "":
            found = self._failing_part(here, name, set())
            if found is not None:
                return found
            here = here._replace(place=Place("", "args", ""))
        return here, error

    def _failing_part(
        self, whole: _Part, name: str, seen: set[int]
    ) -> tuple[_Part, BaseException] | None:
        return next(self._failing_parts(whole, name, seen), None)

    def _failing_parts(
        self, whole: _Part, name: str, seen: set[int]
    ) -> Iterator[tuple[_Part, BaseException]]:
        is_call = name == "" and whole.place.expression == ""
        parts = _parts_of_call(whole.value) if is_call else _parts(whole)
        while self._attempts < MAX_ATTEMPTS and time.monotonic() < self._deadline:
            try:
                part = next(parts, None)
                if part is None:
                    return
                if type(part.value) in _ATOMS or id(part.value) in seen:
                    continue
                error = self.try_to_pickle(part.value)
            except Exception:
                # Foreign code (__reduce_ex__, a property) failed: the whole is as far as we can
                # look.
                return
            if error is not None:
                yield part, error

    def try_to_pickle(self, value: object) -> Exception | None:
        """Return what pickling ``value`` raises, or None."""
        self._attempts += 1
        try:
            buffers: list[Any] = []
            Pickler(_Discard(), buffers.append).dump(value)
            for buffer in buffers:
                buffer.raw()
        except Exception as error:
            return error
        return None


def _parts_of_call(arguments: Any) -> Iterator[_Part]:
    args, kwargs = arguments
    for index, value in enumerate(args):
        yield _Part(Place("", f"args[{index}]", ""), value)
    for key, value in kwargs.items():
        yield _Part(Place("", f"kwargs[{key!r}]", ""), value)


def _parts(whole: _Part) -> Iterator[_Part]:
    """Yield what ``whole`` consists of, in the pickler's terms."""
    value, place = whole.value, whole.place
    kind = type(value)
    if issubclass(kind, dict):
        for key, item in value.items():
            yield _Part(place.then(f"[{_short(key)}]"), item)
            yield _Part(Place(f"key {_short(key)} of ", str(place), ""), key)
        if kind is dict:
            return
    elif issubclass(kind, (list, tuple)):
        names = getattr(kind, "_fields", ())
        for index, item in enumerate(value):
            step = f".{names[index]}" if index < len(names) else f"[{index}]"
            yield _Part(place.then(step), item)
        if kind is list or kind is tuple:
            return
    elif issubclass(kind, (set, frozenset)):
        for item in value:
            yield _Part(Place("element of ", str(place), ""), item)
    if issubclass(kind, FunctionType):
        yield from _parts_of_function(value)
    elif issubclass(kind, MethodType):
        yield _Part(place.then(".__self__"), value.__self__)
        yield _Part(place.then(".__func__"), value.__func__)
    elif issubclass(kind, type):
        for name, item in vars(value).items():
            yield _Part(Place("", f"{value.__qualname__}.{name}", ""), _unwrap(item))
    else:
        yield from _parts_of_instance(value, place)


def _unwrap(item: Any) -> Any:
    if isinstance(item, (staticmethod, classmethod)):
        return item.__func__
    return item


def _parts_of_function(function: FunctionType) -> Iterator[_Part]:
    suffix = f" of function {function.__qualname__}"
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield _Part(Place("closure variable ", name, suffix), content)
    for name in _global_names(code):
        if name in function.__globals__:
            yield _Part(Place("global variable ", name, suffix), function.__globals__[name])
    defaults = itertools.chain(
        function.__defaults__ or (), (function.__kwdefaults__ or {}).values()
    )
    for index, item in enumerate(defaults):
        yield _Part(Place("", f"default value {index}", suffix), item)
    for name, item in vars(function).items():
        yield _Part(Place("attribute ", name, suffix), item)


def _global_names(code: Any) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            names += _global_names(constant)
    return names


def _parts_of_instance(value: Any, place: Place) -> Iterator[_Part]:
    if isinstance(value, functools.partial):
        yield _Part(place.then(".func"), value.func)
        yield _Part(place.then(".args"), value.args)
        yield _Part(place.then(".keywords"), value.keywords)
        return
    reduction = value.__reduce_ex__(5)
    if not isinstance(reduction, tuple):
        return
    pieces = (*reduction, None, None, None, None)[:5]
    _, arguments, state, items, pairs = pieces
    yield from _parts_of_state(state, place)
    name = ".args" if isinstance(value, BaseException) else ".__reduce__()[1]"
    for index, item in enumerate(arguments or ()):
        if not isinstance(item, type):
            yield _Part(place.then(f"{name}[{index}]"), item)
    if not isinstance(value, (list, dict)):  # whose items have been looked at
        for index, item in enumerate(items or ()):
            yield _Part(place.then(f"[{index}]"), item)
        for key, item in pairs or ():
            yield _Part(place.then(f"[{_short(key)}]"), item)


def _parts_of_state(state: Any, place: Place) -> Iterator[_Part]:
    dicts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    if all(item is None or isinstance(item, dict) for item in dicts):
        for item in dicts:
            for name, part in (item or {}).items():
                yield _Part(place.then(f".{name}"), part)
    elif state is not None:
        yield _Part(place.then(".__getstate__()"), state)


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 60 else text[:57] + "..."
