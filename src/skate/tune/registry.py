"""Trainables that are known by a name."""

from __future__ import annotations

import difflib
from typing import Any

from skate.tune.trainable import Function, check

_by_name: dict[str, Function] = {}


def register_trainable(name: str, trainable: Function) -> None:
    """Have ``tune.run(name)`` and ``Tuner(name)`` run ``trainable``.

    Raises:
        TypeError: it cannot be run, or the name is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"trainables are registered under a name, got {name!r}")
    check(trainable)
    _by_name[name] = trainable


def resolve(trainable: Any) -> Function:
    """Return what a name stands for; anything else as it is.

    Raises:
        ValueError: nothing is registered under that name.
    """
    if not isinstance(trainable, str):
        function: Function = trainable
        return function
    if trainable in _by_name:
        return _by_name[trainable]
    near = difflib.get_close_matches(trainable, _by_name, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "register it with tune.register_trainable"
    raise ValueError(f"there is no trainable called {trainable!r}; {hint}")
