"""What users report and configure, as text: no run ends over what JSON and UTF-8 lack."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

#: Arrays with more elements than this are abbreviated.
_ELEMENTS = 1000
#: What is nested deeper is written as ``repr`` has it: it may hold itself.
_DEPTH = 50
#: So many characters of a ``repr`` are enough.
_CHARACTERS = 1000


def as_json(value: object, indent: int | None = None) -> str:
    """Return JSON.  What that has no word for is text, names in dicts too."""
    try:
        return json.dumps(value, default=_simple, indent=indent)
    except (TypeError, ValueError):  # a name that is a tuple, say, or a list that holds itself
        return json.dumps(_spelled(value), default=_simple, indent=indent)


def encoded(text: str) -> bytes:
    """Return UTF-8; what is no character, as in names of files that are no text, is escaped."""
    return text.encode("utf-8", "backslashreplace")


def text_of(value: object, how: Callable[[object], str] = str) -> str:
    """Return ``str`` or ``repr`` of a value; if that raises, something in its place."""
    try:
        return how(value)
    except Exception as error:  # whatever the user's method raises
        return f"<{type(value).__name__}: its {how.__name__} raises {type(error).__name__}>"


def printable(text: str) -> str:
    """Return text that every stream takes: what is no character is escaped."""
    return encoded(text).decode()


def _spelled(value: Any, depth: int = 0) -> Any:
    """Return the same with names that JSON has, spelled as ``flatten`` does."""
    if depth > _DEPTH:
        return text_of(value, repr)[:_CHARACTERS]
    if isinstance(value, dict):
        plain = (str, int, float, type(None))
        return {
            key if isinstance(key, plain) else text_of(key): _spelled(child, depth + 1)
            for key, child in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_spelled(child, depth + 1) for child in value]
    return value


def _simple(value: Any) -> Any:
    """Return something that JSON has for what it has not."""
    with contextlib.suppress(Exception):  # it has these names only, or no values
        tolist = getattr(value, "tolist", None)  # arrays, tensors and their scalars
        if tolist is not None:
            size = getattr(value, "size", 0)
            count = value.numel() if callable(size) else size
            if count <= _ELEMENTS:
                return _spelled(tolist())
    return text_of(value, repr)[:_CHARACTERS]
