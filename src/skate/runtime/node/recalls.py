"""Which leases to call in, so that requests which wait can be served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from skate.runtime.node.bundles import Scratch
from skate.runtime.node.resources import Allocation, NodeResources

if TYPE_CHECKING:
    from skate.runtime.node.requests import Request
    from skate.runtime.node.scheduler import Grant


class Recalls:
    """One look at all leases."""

    def __init__(
        self, leases: list[Grant], pools: Callable[[Request], Sequence[NodeResources]]
    ) -> None:
        """``pools`` says where a request may be served."""
        self._leases = leases
        self._pools = pools
        self._scratch = Scratch()
        #: How many leases each process will have once everything that was recalled has come back.
        self._held: dict[bytes, int] = {}
        for grant in leases:
            if grant.recalled:
                self._give_back(grant)
            else:
                self._held[grant.holder] = self._held.get(grant.holder, 0) + 1

    def _give_back(self, grant: Grant) -> None:
        self._scratch.of(grant.pool).release(_twin(grant.allocation))

    def choose(self, queue: Sequence[Request]) -> list[Grant]:
        """Mark the leases to call in as recalled and return them."""
        called: list[Grant] = []
        hopeless: set[tuple[bytes, tuple[object, ...]]] = set()
        for request in queue:
            who = (request.holder, request.use)
            if who in hopeless:
                continue
            pools = self._pools(request)
            if not pools:
                continue
            if not any(self._fits(request, pool) for pool in pools):
                for pool in pools:
                    if pool.within_reach(request.units):
                        called += self._call_in_for(request, pool)
                        break
            for pool in pools:
                if self._scratch.of(pool).acquire_all(request.parts) is not None:
                    if request.is_lease:
                        self._held[request.holder] = self._held.get(request.holder, 0) + 1
                    break
            else:
                hopeless.add(who)
        return called

    def _fits(self, request: Request, pool: NodeResources) -> bool:
        scratch = self._scratch.of(pool)
        if len(request.parts) == 1:
            return scratch.fits(request.units)
        return scratch.copy().acquire_all(request.parts) is not None

    def _call_in_for(self, request: Request, pool: NodeResources) -> list[Grant]:
        called: list[Grant] = []
        held = self._held
        # From whoever holds most: several callers end with equal shares.
        available = [g for g in self._leases if g.pool is pool and not g.recalled]
        for grant in sorted(available, key=lambda g: -held[g.holder]):
            if self._fits(request, pool):
                break
            if not self._contends(request, grant):
                continue
            grant.recalled = True
            held[grant.holder] -= 1
            self._give_back(grant)
            called.append(grant)
        return called

    def _contends(self, request: Request, grant: Grant) -> bool:
        """Whether the end of this lease helps the request, and its holder can be asked for it."""
        allocation = grant.allocation
        lacking = set(self._scratch.of(grant.pool).lacking(request.units))
        frees = {n for n in allocation.units if not (n == "CPU" and allocation.blocked)}
        if not lacking & frees:
            return False
        if not request.is_lease:
            return True
        if grant.holder == request.holder:
            # For the same use it would only swap one lease for another.
            return request.use != grant.request.use
        mine = self._held.get(request.holder, 0)
        return mine == 0 or self._held[grant.holder] > mine + 1


def _twin(allocation: Allocation) -> Allocation:
    """A copy to release on scratch resources."""
    twin = Allocation(allocation.units, allocation.gpus)
    twin.blocked = allocation.blocked
    twin.released = allocation.released
    return twin
