"""Tracebacks as the user wants to read them: their frames, without those of the runtime."""

from __future__ import annotations

import os
from typing import Any

#: Longer tracebacks lose their middle: they are copied with every error that is passed on.
MAX_CHARACTERS = 100_000

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# The libraries in the package (tune, xgboost) are users of the runtime like any other.
_OURS = (
    *(os.path.join(_PACKAGE, folder) + os.sep for folder in ("api", "engine", "runtime")),
    *(os.path.join(_PACKAGE, name) for name in ("refs.py", "serialization.py", "exceptions.py")),
)


def text(exception: BaseException) -> str:
    """Return the traceback of ``exception`` and of what it was raised from, ending in a newline."""
    return _shorten("".join(_chain(exception, set())))


def frames_only(exception: BaseException) -> str:
    """Return the user's frames of ``exception`` alone, without its message."""
    import traceback

    stack = traceback.StackSummary.extract(traceback.walk_tb(exception.__traceback__))
    frames = [frame for frame in stack if not frame.filename.startswith(_OURS)]
    if not frames:
        return ""
    lines = traceback.StackSummary.from_list(frames).format()
    return _shorten("Traceback (most recent call last):\n" + "".join(lines))


def describe(exception: BaseException | None) -> str:
    """Return type and message of an exception, the message cut to its first line."""
    if exception is None:
        return ""
    kind = type(exception)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(exception)
    except Exception:
        message = "<str() of the exception raised>"
    first_line = message.split("\n", 1)[0]
    return _shorten(f"{name}: {first_line}" if first_line else name)


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, whatever that does."""
    try:
        return _shorten(repr(value))
    except Exception:
        return f"<{type(value).__name__} whose repr() raised>"


def _chain(exception: BaseException, seen: set[int]) -> list[str]:
    """Format an exception after those that led to it, as ``traceback`` does.

    Unlike there, one that arrived from another task is not followed further: its message already
    holds everything that led to it.
    """
    import traceback

    seen.add(id(exception))
    parts: list[str] = []
    arrived = hasattr(exception, "_skate_failure")
    cause, context = exception.__cause__, exception.__context__
    if not arrived and cause is not None and id(cause) not in seen:
        parts += _chain(cause, seen)
        parts.append("\nThe above exception was the direct cause of the following exception:\n\n")
    elif (
        not arrived
        and cause is None
        and context is not None
        and not exception.__suppress_context__
        and id(context) not in seen
    ):
        parts += _chain(context, seen)
        parts.append("\nDuring handling of the above exception, another exception occurred:\n\n")
    rendered = traceback.TracebackException.from_exception(exception, compact=True)
    _cut(rendered)
    parts += rendered.format(chain=False)
    return parts


def _cut(rendered: Any) -> None:
    """Drop our frames from a ``TracebackException`` and from the members of a group."""
    import traceback

    frames = [frame for frame in rendered.stack or () if not frame.filename.startswith(_OURS)]
    # None leaves out the line "Traceback (most recent call last)" too.
    rendered.stack = traceback.StackSummary.from_list(frames) if frames else None
    for member in getattr(rendered, "exceptions", None) or ():
        _cut(member)


def _shorten(message: str) -> str:
    if len(message) <= MAX_CHARACTERS:
        return message
    half = MAX_CHARACTERS // 2
    left_out = len(message) - 2 * half
    return f"{message[:half]}\n... {left_out} characters left out ...\n{message[-half:]}"
