"""Amounts of resources, exact: integers of 1/10000 (``UNIT``), so that ten tasks of 0.1 CPU fill
one CPU exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

#: Parts of one resource that are told apart.
UNIT = 10_000
GIB = 1 << 30
#: Resources whose amounts are bytes.
IN_BYTES = frozenset(("memory", "object_store_memory"))
#: Largest amount of one resource that is accepted; keeps sums far from what MessagePack can carry.
MAX_AMOUNT = 1e15

CPU = "CPU"
GPU = "GPU"

Units: TypeAlias = dict[str, int]


def to_units(amounts: Mapping[str, float]) -> Units:
    """Convert amounts to exact units; zero amounts are left out, others are at least one unit.

    Raises:
        ValueError: an amount is negative or not finite, or a GPU amount above 1 is not whole.
    """
    units: Units = {}
    for name, amount in amounts.items():
        if not math.isfinite(amount) or amount < 0 or amount > MAX_AMOUNT:
            raise ValueError(f"{name} must be a number from 0 to {MAX_AMOUNT:g}, not {amount}")
        if name == GPU and amount > 1 and amount != int(amount):
            raise ValueError(f"GPU must be a fraction of one or a whole number, not {amount:g}")
        if amount:
            units[name] = max(round(amount * UNIT), 1)
    return units


def to_amounts(units: Mapping[str, int]) -> dict[str, float]:
    """Convert units back to amounts."""
    return {name: count / UNIT for name, count in units.items()}


def add_units(parts: Iterable[Mapping[str, int]]) -> Units:
    """Return the sum."""
    total: Units = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def covers(available: Mapping[str, int], units: Mapping[str, int]) -> bool:
    """Whether there is enough of everything."""
    return all(count <= available.get(name, 0) for name, count in units.items())


def describe(units: Mapping[str, int]) -> str:
    """Return e.g. ``2 CPU, 0.5 GPU, 1.5 GiB memory`` for messages to the user."""
    return (
        ", ".join(
            f"{count / UNIT / GIB:.3g} GiB {name}"
            if name in IN_BYTES
            else f"{count / UNIT:g} {name}"
            for name, count in units.items()
        )
        or "nothing"
    )
