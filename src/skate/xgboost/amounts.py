"""Numbers that users pass: whether they are numbers, and possible ones."""

from __future__ import annotations

import math
from numbers import Real


def whole(value: object, name: str, least: int) -> int:
    """Return a whole number of any type, NumPy's included, as an ``int``.

    Raises:
        TypeError: it is something else.
        ValueError: it is below ``least``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"{name} must be at least {least}, but is {value}")
    return number


def not_negative(value: object, name: str) -> float:
    """Return an amount, of any type of number.

    Raises:
        TypeError: it is something else.
        ValueError: it is negative, infinite or NaN.
    """
    number = real(value, name)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} cannot be {value}")
    return number


def real(value: object, name: str) -> float:
    """Return a number of any type.

    Raises:
        TypeError: it is something else.
    """
    # Arrays and text that looks like a number are none.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)
