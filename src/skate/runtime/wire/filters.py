"""Which rows a filter lets through; the same for the processes that have rows and for who asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from skate.runtime.wire.state import Filter

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}


def matches(row: object, filters: Sequence[Filter]) -> bool:
    """Return whether a row passes all filters; one without the field passes none of them."""
    for field, operator, wanted in filters:
        value = getattr(row, field, None)
        if isinstance(value, bytes):
            value = value.hex()
        if not compare(value, operator, wanted):
            return False
    return True


def compare(value: object, operator: str, wanted: object) -> bool:
    """Compare a value of a row with that of a filter, which may be its spelling as text.

    Whatever the values are, and an operator that there is not, it answers and does not raise.
    """
    if operator not in OPERATORS:
        return False
    if isinstance(value, bool):
        value = str(value).lower()
        wanted = str(wanted).lower()
    elif isinstance(value, int | float):
        try:
            wanted = float(wanted)  # type: ignore[arg-type]  # what it refuses does not match
        except (TypeError, ValueError, OverflowError):
            return operator == "!="
    elif isinstance(value, str):
        wanted = "" if wanted is None else str(wanted)
        if operator in ("=", "!="):
            # States are written in capitals, and typed as one likes.
            value, wanted = value.lower(), wanted.lower()
    elif value is None:
        if operator not in ("=", "!="):
            return False
        wanted = None if wanted in ("", "None", "none", "null") else wanted
    else:
        # A list has what it contains; of other things there is their text.
        text = str(wanted)
        has = text in map(str, value) if isinstance(value, list) else str(value) == text
        return has if operator == "=" else not has if operator == "!=" else False
    return OPERATORS[operator](value, wanted)
