"""Who gets a worker next: the queue of lease requests and pending actors, and what is granted.

Plain decisions: callers pass the time (``now``, in seconds) and carry out what is returned.  Leases
and actors wait in one queue, deepest first, then first come, first served.  Nested tasks therefore
run depth first, and a program needs as many processes as it is deep, not as it is wide.  Bundles of
placement groups are reserved through the same queue; what is to run in a bundle is served from it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterable

from skate.runtime.amounts import Units, add_units, describe
from skate.runtime.node.bundles import Bundle, Reservations, Scratch
from skate.runtime.node.recalls import Recalls
from skate.runtime.node.requests import Key, Request, Shape
from skate.runtime.node.resources import Allocation, NodeResources

#: A request that cannot be served yet lets smaller ones pass for this many seconds, ...
PATIENCE_SECONDS = 1.0
#: ... then keeps what it lacks to itself for so many, ...
RESERVE_SECONDS = 5.0
#: ... and so on in turns: what holds the missing part may itself wait for one of the others.
YIELD_SECONDS = 5.0
#: The user hears of a request that waits for what does not exist at once, and again this often.
REMIND_SECONDS = 60.0
#: The user hears that actors hold what a request waits for after this many seconds.
HELD_SECONDS = 10.0


class Grant:
    """A request that was served: one worker and the resources that go with it."""

    __slots__ = ("allocation", "grant_id", "pool", "recalled", "request", "since", "worker_id")

    def __init__(
        self,
        grant_id: int,
        request: Request,
        worker_id: bytes,
        pool: NodeResources,
        allocation: Allocation,
    ) -> None:
        #: The lease id, if it is a lease.
        self.grant_id = grant_id
        self.request = request
        self.worker_id = worker_id
        #: Where the allocation comes from: the node, or a bundle.
        self.pool = pool
        self.allocation = allocation
        self.recalled = False
        #: When it was granted.
        self.since = 0.0

    @property
    def holder(self) -> bytes:
        """The process that uses the worker."""
        return self.request.holder


class Scheduler:
    """The queue, the grants, and the resources that they share."""

    def __init__(self, resources: NodeResources) -> None:
        self.resources = resources
        self.reservations = Reservations(resources)
        #: In the order in which they are served.
        self.queue: list[Request] = []
        self._by_key: dict[Key, Request] = {}
        self._number = 0
        self._grant_number = 0
        #: What the other nodes have, for the user.
        self.totals_elsewhere: Callable[[], list[Units]] = list
        #: How many requests have been served so far.
        self.granted = 0
        self.grants: dict[int, Grant] = {}
        self._by_worker: dict[bytes, Grant] = {}

    # ------------------------------------------------------------------ the queue

    def submit(self, request: Request, now: float) -> None:
        """Queue a request.  One with the key of a waiting request replaces it."""
        self.cancel(request.key)
        self._number += 1
        request.order = (-request.depth, self._number)
        request.since = now
        request.next_warning = now if not self.feasible(request) else now + HELD_SECONDS
        bisect.insort(self.queue, request, key=_order)
        self._by_key[request.key] = request

    def cancel(self, key: Key) -> Request | None:
        """Take a request out of the queue; return it if it was there."""
        request = self._by_key.pop(key, None)
        if request is not None:
            self.queue.remove(request)
        return request

    def cancel_all_of(self, holder: bytes) -> list[Request]:
        """Take all lease requests of a process out; its actors are the directory's business."""
        mine = [r for r in self.queue if r.holder == holder and r.is_lease]
        for request in mine:
            self.cancel(request.key)
        return mine

    def cancel_place(self, group_id: bytes) -> list[Request]:
        """Take out what was to run in a placement group that has ended."""
        mine = [r for r in self.queue if r.place is not None and r.place[0] == group_id]
        for request in mine:
            self.cancel(request.key)
        return mine

    def pools(self, request: Request) -> list[NodeResources]:
        """Return where the request may be served; nowhere while its group is not there yet."""
        if request.bound_to:
            return []
        if request.place is None:
            return [self.resources]
        return [*self.reservations.pools(request.place)]

    def feasible(self, request: Request) -> bool:
        """Whether it would fit if everything were free; nobody knows while its group is missing."""
        pools = self.pools(request)
        return not pools or any(pool.feasible(request.units) for pool in pools)

    def runnable(self, now: float) -> list[Request]:
        """Return the requests that could be granted at this moment, all together, in order."""
        if not self.queue:
            return []
        scratch = Scratch()
        granted: list[Request] = []
        # Shapes that did not fit: nothing is freed within this walk, so they will not later on.
        hopeless: set[Shape] = set()
        reserved: dict[NodeResources, set[str]] = {}
        for request in self.queue:
            if request.shape in hopeless:
                continue
            pools = self.pools(request)
            if not pools:
                # It waits for its group, or is bound to another node: others of its shape may not.
                continue
            for pool in pools:
                kept = reserved.get(pool)
                if (
                    not (kept and kept.intersection(request.units))
                    and scratch.of(pool).acquire_all(request.parts) is not None
                ):
                    granted.append(request)
                    break
            else:
                hopeless.add(request.shape)
                for pool in pools:
                    if self._reserves(request, pool, now):
                        lacking = scratch.of(pool).lacking(request.units)
                        reserved.setdefault(pool, set()).update(lacking)
                        break
        return granted

    @staticmethod
    def _reserves(request: Request, pool: NodeResources, now: float) -> bool:
        waited = now - request.since - PATIENCE_SECONDS
        if waited < 0 or waited % (RESERVE_SECONDS + YIELD_SECONDS) >= RESERVE_SECONDS:
            return False
        return pool.within_reach(request.units)

    # ------------------------------------------------------------------ grants

    def number_grants_from(self, number: int) -> None:
        """Give grants higher numbers than this, which no other node's have."""
        self._grant_number = max(self._grant_number, number)

    def grant(self, request: Request, worker_id: bytes, now: float = 0.0) -> Grant | None:
        """Give the request this worker; return None, changing nothing, if it does not fit."""
        for pool in self.pools(request):
            allocation = pool.acquire(request.units)
            if allocation is not None:
                break
        else:
            return None
        self.cancel(request.key)
        self._grant_number += 1
        self.granted += 1
        grant = Grant(self._grant_number, request, worker_id, pool, allocation)
        grant.since = now
        self.grants[grant.grant_id] = grant
        self._by_worker[worker_id] = grant
        if request.actor_id:
            pool.hold(request.units, 1)
        if isinstance(pool, Bundle):
            pool.users += 1
        return grant

    def reserve(self, request: Request) -> bool:
        """Give a group its bundles; return False, changing nothing, if they do not fit."""
        if not self.reservations.reserve(request.group_id, request.bundles):
            return False
        self.cancel(request.key)
        return True

    def grants_in(self, group_id: bytes, indices: Collection[int] | None) -> list[Grant]:
        """Return what runs in these bundles (None: all) of a placement group."""
        return [
            grant
            for grant in self.grants.values()
            if isinstance(grant.pool, Bundle)
            and grant.pool.group_id == group_id
            and (indices is None or grant.pool.index in indices)
        ]

    def grant_of(self, worker_id: bytes) -> Grant | None:
        """Return what a worker was granted for."""
        return self._by_worker.get(worker_id)

    def lease(self, lease_id: int, holder: bytes) -> Grant | None:
        """Return a lease if this process holds it."""
        grant = self.grants.get(lease_id)
        if grant is None or grant.holder != holder or grant.request.actor_id:
            return None
        return grant

    def leases_of(self, holder: bytes) -> list[Grant]:
        """Return the leases that a process holds."""
        return [
            grant
            for grant in self.grants.values()
            if grant.holder == holder and not grant.request.actor_id
        ]

    def release(self, grant: Grant) -> None:
        """The lease was returned or the worker is gone: its resources are free again."""
        if self.grants.pop(grant.grant_id, None) is None:
            return
        if self._by_worker.get(grant.worker_id) is grant:
            del self._by_worker[grant.worker_id]
        pool = grant.pool
        pool.release(grant.allocation)
        if grant.request.actor_id:
            pool.hold(grant.request.units, -1)
        if isinstance(pool, Bundle):
            self.reservations.left(pool)

    def blocked(self, worker_id: bytes) -> None:
        """The worker waits: its CPUs are free for others."""
        grant = self._by_worker.get(worker_id)
        if grant is not None:
            grant.pool.block(grant.allocation)

    def resumed(self, worker_id: bytes) -> None:
        """The worker goes on: it takes its CPUs back."""
        grant = self._by_worker.get(worker_id)
        if grant is not None:
            grant.pool.resume(grant.allocation)

    def recalls(self) -> list[Grant]:
        """Return the leases to call in, each once, so that requests which wait can be served.

        Called when something waits although every runnable request has its worker or will get one.
        """
        if not self.queue or not self.grants:
            return []
        leases = [grant for grant in self.grants.values() if grant.request.is_lease]
        return Recalls(leases, self.pools).choose(self.queue)

    # ------------------------------------------------------------------ warnings

    def warnings(self, now: float) -> list[str]:
        """Return what the user should hear now of requests that wait and will go on waiting."""
        groups: dict[Shape, list[Request]] = {}
        for request in self.queue:
            if request.next_warning <= now:
                request.next_warning = now + REMIND_SECONDS
                groups.setdefault(request.shape, []).append(request)
        texts = []
        for requests in groups.values():
            text = self._warning(requests)
            if text:
                texts.append(text)
        return texts

    def _warning(self, requests: list[Request]) -> str:
        units = requests[0].units
        who = _names(requests)
        pools = self.pools(requests[0])
        exists = describe(self.resources.total)
        where = "this node has only"
        advice = "It waits until such resources exist; ask for less, or call init() with more."
        others = self.totals_elsewhere()
        if others:
            exists = "; ".join(describe(total) for total in [self.resources.total, *others])
            where = "no node has that, they have"
            advice = "It waits until such a node joins; ask for less, or start one that has more."
        if requests[0].place is not None:
            exists = " or ".join(describe(pool.total) for pool in pools)
            where = "its placement group has only"
            advice = "It waits until the group is removed; ask for less, or make a larger bundle."
        if not self.feasible(requests[0]):
            return (
                f"{who} cannot start: asked for {describe(units)}, but {where} {exists} in all. "
                f"{advice}"
            )
        if pools and not any(pool.within_reach(units) for pool in pools):
            held = add_units(pool.held for pool in pools)
            held = {name: count for name, count in held.items() if count}
            holders = "actors and placement groups" if len(self.reservations) else "actors"
            return (
                f"{who} cannot start: asked for {describe(units)}, but of {exists} {holders} "
                f"hold {describe(held)}. It waits until some of them end."
            )
        return ""


def _order(request: Request) -> tuple[int, int]:
    return request.order


def _names(requests: Iterable[Request]) -> str:
    """Return e.g. ``train, test (3 times)`` for the names of requests, shortened."""
    counts: dict[str, int] = {}
    for request in requests:
        name = f"{request.kind} {request.name}" if request.name else f"a {request.kind}"
        counts[name] = counts.get(name, 0) + 1
    parts = [name if n == 1 else f"{name} ({n} times)" for name, n in counts.items()]
    return ", ".join(parts[:5]) + (f" and {len(parts) - 5} more" if len(parts) > 5 else "")
