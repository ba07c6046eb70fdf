"""Exact accounting of what one node has, and of who holds which part of it.

GPUs are told apart: an allocation names the instances it got, and a fraction never spans two of
them.  What an allocation holds can be a pool of its own: the bundles of placement groups are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skate.runtime.amounts import CPU, GPU, UNIT, Units, covers
from skate.runtime.amounts import describe as describe
from skate.runtime.amounts import to_amounts as to_amounts
from skate.runtime.amounts import to_units as to_units


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

    __slots__ = ("_gpu_free", "free", "held", "total")

    def __init__(self, total: Mapping[str, float]) -> None:
        self.total = to_units(total)
        if self.total.get(GPU, 0) % UNIT:
            raise ValueError(f"a node has a whole number of GPUs, not {total[GPU]:g}")
        self.free = dict(self.total)
        #: Free units of each GPU instance.
        self._gpu_free = dict.fromkeys(range(self.total.get(GPU, 0) // UNIT), UNIT)
        #: What actors and placement groups hold: nobody can call that in.
        self.held: Units = {}

    def copy(self) -> NodeResources:
        """Return an independent copy, for trying out what would fit."""
        twin = NodeResources.__new__(NodeResources)
        twin.total = self.total
        twin.free = dict(self.free)
        twin._gpu_free = dict(self._gpu_free)
        twin.held = self.held
        return twin

    def divide(self, allocation: Allocation) -> None:
        """Become a pool of what ``allocation``, made elsewhere, holds."""
        self.total = allocation.units
        self.free = dict(allocation.units)
        self._gpu_free = dict(allocation.gpus)
        self.held = {}

    def feasible(self, units: Units) -> bool:
        """Whether the request would fit if everything were free."""
        return covers(self.total, units)

    def within_reach(self, units: Units) -> bool:
        """Whether returned leases alone could make the request fit."""
        total, held = self.total, self.held
        return all(count <= total.get(name, 0) - held.get(name, 0) for name, count in units.items())

    def lacking(self, units: Units) -> list[str]:
        """What the request lacks now; all it asks for if only the GPU instances do not suit."""
        short = [name for name, count in units.items() if count > self.free.get(name, 0)]
        return short or list(units)

    def hold(self, units: Units, sign: int) -> None:
        """Count what an actor or a placement group holds, or no longer holds (``sign`` -1)."""
        held = self.held
        for name, count in units.items():
            held[name] = held.get(name, 0) + sign * count

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

    def acquire_all(self, parts: Sequence[Units]) -> list[Allocation] | None:
        """Take several parts, or return None and change nothing if they do not fit together."""
        taken: list[Allocation] = []
        for units in parts:
            allocation = self.acquire(units)
            if allocation is None:
                for earlier in taken:
                    self.release(earlier)
                return None
            taken.append(allocation)
        return taken

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
            for instance, free in self._gpu_free.items():
                if free >= wanted and (best is None or free < self._gpu_free[best]):
                    best = instance
            return None if best is None else [(best, wanted)]
        whole = [instance for instance, free in self._gpu_free.items() if free == UNIT]
        count = wanted // UNIT
        return [(instance, UNIT) for instance in whole[:count]] if len(whole) >= count else None
