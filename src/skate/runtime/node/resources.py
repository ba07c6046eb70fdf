"""Exact accounting of what one node has, and of who holds which part of it.

Amounts are integers of 1/10000 inside (``UNIT``), so that ten tasks of 0.1 CPU fill one CPU
exactly.  GPUs are told apart: an allocation names the instances it got, and a fraction never spans
two of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Parts of one resource that are told apart.
UNIT = 10_000
GIB = 1 << 30
#: Resources whose amounts are bytes.
IN_BYTES = frozenset(("memory", "object_store_memory"))
#: Largest amount of one resource that is accepted; keeps sums far from what MessagePack can carry.
MAX_AMOUNT = 1e15

CPU = "CPU"
GPU = "GPU"

Units = dict[str, int]


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


class Allocation:
    """What one lease or actor holds."""

    __slots__ = ("blocked", "gpus", "released", "units")

    def __init__(self, units: Units, gpus: list[tuple[int, int]]) -> None:
        self.units = units
        #: Pairs of GPU instance and the units taken from it.
        self.gpus = gpus
        #: Its CPUs are lent to others because its worker waits in ``get``.
        self.blocked = False
        self.released = False

    @property
    def gpu_ids(self) -> list[int]:
        """The GPU instances, each once."""
        return [instance for instance, _ in self.gpus]


class NodeResources:
    """Totals and what is free of them.  Free CPU alone may be negative: see ``resume``."""

    __slots__ = ("_gpu_free", "free", "total")

    def __init__(self, total: Mapping[str, float]) -> None:
        self.total = to_units(total)
        if self.total.get(GPU, 0) % UNIT:
            raise ValueError(f"a node has a whole number of GPUs, not {total[GPU]:g}")
        self.free = dict(self.total)
        #: Free units of each GPU instance.
        self._gpu_free = [UNIT] * (self.total.get(GPU, 0) // UNIT)

    def copy(self) -> NodeResources:
        """Return an independent copy, for trying out what would fit."""
        twin = NodeResources.__new__(NodeResources)
        twin.total = self.total
        twin.free = dict(self.free)
        twin._gpu_free = list(self._gpu_free)
        return twin

    def feasible(self, units: Units) -> bool:
        """Whether the request would fit if everything were free."""
        total = self.total
        return all(count <= total.get(name, 0) for name, count in units.items())

    def fits(self, units: Units) -> bool:
        """Whether the request fits now."""
        free = self.free
        for name, count in units.items():
            if count > free.get(name, 0):
                return False
        wanted = units.get(GPU, 0)
        return not wanted or self._choose_gpus(wanted) is not None

    def acquire(self, units: Units) -> Allocation | None:
        """Take what is asked, or return None and change nothing if it does not fit."""
        if not self.fits(units):
            return None
        wanted = units.get(GPU, 0)
        gpus = (self._choose_gpus(wanted) or []) if wanted else []
        for instance, count in gpus:
            self._gpu_free[instance] -= count
        for name, count in units.items():
            self.free[name] -= count
        return Allocation(units, gpus)

    def release(self, allocation: Allocation) -> None:
        """Give everything back; harmless when called again."""
        if allocation.released:
            return
        allocation.released = True
        for instance, count in allocation.gpus:
            self._gpu_free[instance] += count
        for name, count in allocation.units.items():
            if name == CPU and allocation.blocked:
                continue
            self.free[name] += count

    def block(self, allocation: Allocation) -> None:
        """Lend the allocation's CPUs to others; GPUs and the rest stay, their state is in use."""
        if not allocation.blocked and not allocation.released:
            allocation.blocked = True
            self._add_cpu(allocation.units.get(CPU, 0))

    def resume(self, allocation: Allocation) -> None:
        """Take the CPUs back, even if others run on them now: it does not wait a second time."""
        if allocation.blocked and not allocation.released:
            allocation.blocked = False
            self._add_cpu(-allocation.units.get(CPU, 0))

    def _add_cpu(self, count: int) -> None:
        if count:
            self.free[CPU] += count

    def _choose_gpus(self, wanted: int) -> list[tuple[int, int]] | None:
        if wanted < UNIT:
            # The fullest instance that still has room, so that whole ones stay whole.
            best = None
            for instance, free in enumerate(self._gpu_free):
                if free >= wanted and (best is None or free < self._gpu_free[best]):
                    best = instance
            return None if best is None else [(best, wanted)]
        whole = [instance for instance, free in enumerate(self._gpu_free) if free == UNIT]
        count = wanted // UNIT
        return [(instance, UNIT) for instance in whole[:count]] if len(whole) >= count else None
