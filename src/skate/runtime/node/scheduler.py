"""Who gets a worker next: the queue of lease requests and pending actors, and what is granted.

Plain decisions: callers pass the time (``now``, in seconds) and carry out what is returned.  Leases
and actors wait in one queue, deepest first, then first come, first served.  Nested tasks therefore
run depth first, and a program needs as many processes as it is deep, not as it is wide.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from skate.runtime.node.resources import Allocation, NodeResources, Units, describe, to_units
from skate.runtime.wire.cluster import PlaceActor
from skate.runtime.wire.messages import RequestLease

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

#: An actor's id, or a process and its number for a lease request.
Key: TypeAlias = bytes | tuple[bytes, int]


class Request:
    """Somebody wants a worker: a lease, or a home for an actor."""

    __slots__ = (
        "actor_id",
        "actor_order",
        "attracted_to",
        "depth",
        "environment",
        "holder",
        "key",
        "message",
        "name",
        "next_warning",
        "order",
        "origin",
        "request_id",
        "since",
        "stays",
        "units",
    )

    def __init__(
        self,
        holder: bytes,
        resources: Mapping[str, float],
        depth: int,
        name: str,
        request_id: int = 0,
        actor_id: bytes = b"",
        environment: bytes = b"",
    ) -> None:
        """Raise ValueError if the resources make no sense."""
        #: The process that asks.
        self.holder = holder
        self.units: Units = to_units(resources)
        self.depth = depth
        self.name = name
        #: The holder's number for it, if it asks for a lease.
        self.request_id = request_id
        #: Not empty: the request is an actor's.
        self.actor_id = actor_id
        #: Names the runtime environment that the worker has to be in.
        self.environment = environment
        #: Names the request for ``cancel``.
        self.key: Key = actor_id or (holder, request_id)
        #: What to start, if it is an actor's; else what the holder has said.
        self.actor_order: PlaceActor | None = None
        self.message: RequestLease | None = None
        #: The node that has sent it here; empty if it is our own.
        self.origin = b""
        #: It may wait here although it comes from another node.
        self.stays = True
        #: The node that it would rather be served on.
        self.attracted_to = b""
        self.since = 0.0
        self.order = (0, 0)
        self.next_warning = 0.0


class Grant:
    """A request that was served: one worker and the resources that go with it."""

    __slots__ = ("allocation", "grant_id", "recalled", "request", "worker_id")

    def __init__(
        self, grant_id: int, request: Request, worker_id: bytes, allocation: Allocation
    ) -> None:
        #: The lease id, if it is a lease.
        self.grant_id = grant_id
        self.request = request
        self.worker_id = worker_id
        self.allocation = allocation
        self.recalled = False

    @property
    def holder(self) -> bytes:
        """The process that uses the worker."""
        return self.request.holder


class Scheduler:
    """The queue, the grants, and the resources that they share."""

    def __init__(self, resources: NodeResources) -> None:
        self.resources = resources
        #: In the order in which they are served.
        self.queue: list[Request] = []
        self._by_key: dict[Key, Request] = {}
        self._number = 0
        self._grant_number = 0
        #: How many requests have been served so far.
        self.granted = 0
        self.grants: dict[int, Grant] = {}
        self._by_worker: dict[bytes, Grant] = {}
        #: Units held by actors, which nobody can recall.
        self._held_by_actors: Units = {}

    # ------------------------------------------------------------------ the queue

    def submit(self, request: Request, now: float) -> None:
        """Queue a request.  One with the key of a waiting request replaces it."""
        self.cancel(request.key)
        self._number += 1
        request.order = (-request.depth, self._number)
        request.since = now
        request.next_warning = (
            now if not self.resources.feasible(request.units) else now + HELD_SECONDS
        )
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
        mine = [r for r in self.queue if r.holder == holder and not r.actor_id]
        for request in mine:
            self.cancel(request.key)
        return mine

    def runnable(self, now: float) -> list[Request]:
        """Return the requests that could be granted at this moment, all together, in order."""
        if not self.queue:
            return []
        scratch = self.resources.copy()
        granted: list[Request] = []
        # Shapes that did not fit: nothing is freed within this walk, so they will not later on.
        hopeless: set[tuple[tuple[str, int], ...]] = set()
        reserved: set[str] = set()
        for request in self.queue:
            units = request.units
            shape = tuple(units.items())
            if shape in hopeless:
                continue
            if (
                not (reserved and reserved.intersection(units))
                and scratch.acquire(units) is not None
            ):
                granted.append(request)
                continue
            hopeless.add(shape)
            if self._reserves(request, now):
                reserved.update(self._lacking(units, scratch))
        return granted

    def _reserves(self, request: Request, now: float) -> bool:
        waited = now - request.since - PATIENCE_SECONDS
        if waited < 0 or waited % (RESERVE_SECONDS + YIELD_SECONDS) >= RESERVE_SECONDS:
            return False
        return self._within_reach(request.units)

    def _within_reach(self, units: Units) -> bool:
        """Whether returned leases alone could make the request fit: actors give nothing back."""
        total, held = self.resources.total, self._held_by_actors
        return all(count <= total.get(name, 0) - held.get(name, 0) for name, count in units.items())

    @staticmethod
    def _lacking(units: Units, resources: NodeResources) -> list[str]:
        """The resources that a request lacks; all of them if only GPU instances do not suit."""
        short = [name for name, count in units.items() if count > resources.free.get(name, 0)]
        return short or list(units)

    # ------------------------------------------------------------------ grants

    def number_grants_from(self, number: int) -> None:
        """Give grants higher numbers than this, which no other node's have."""
        self._grant_number = max(self._grant_number, number)

    def grant(self, request: Request, worker_id: bytes) -> Grant | None:
        """Give the request this worker; return None, changing nothing, if it does not fit."""
        allocation = self.resources.acquire(request.units)
        if allocation is None:
            return None
        self.cancel(request.key)
        self._grant_number += 1
        self.granted += 1
        grant = Grant(self._grant_number, request, worker_id, allocation)
        self.grants[grant.grant_id] = grant
        self._by_worker[worker_id] = grant
        if request.actor_id:
            self._count_actor(request.units, 1)
        return grant

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
        self.resources.release(grant.allocation)
        if grant.request.actor_id:
            self._count_actor(grant.request.units, -1)

    def _count_actor(self, units: Units, sign: int) -> None:
        held = self._held_by_actors
        for name, count in units.items():
            held[name] = held.get(name, 0) + sign * count

    def blocked(self, worker_id: bytes) -> None:
        """The worker waits: its CPUs are free for others."""
        grant = self._by_worker.get(worker_id)
        if grant is not None:
            self.resources.block(grant.allocation)

    def resumed(self, worker_id: bytes) -> None:
        """The worker goes on: it takes its CPUs back."""
        grant = self._by_worker.get(worker_id)
        if grant is not None:
            self.resources.resume(grant.allocation)

    # ------------------------------------------------------------------ recalls

    def recalls(self) -> list[Grant]:
        """Return the leases to call in, each once, so that requests which wait can be served.

        Called when something waits although every runnable request has its worker or will get one.
        """
        if not self.queue or not self.grants:
            return []
        leases = [g for g in self.grants.values() if not g.request.actor_id]
        scratch = self.resources.copy()
        # How many leases each process will have once everything that was recalled has come back.
        held: dict[bytes, int] = {}
        for grant in leases:
            if grant.recalled:
                scratch.release(_twin(grant.allocation))
            else:
                held[grant.holder] = held.get(grant.holder, 0) + 1
        called: list[Grant] = []
        hopeless: set[tuple[bytes, tuple[tuple[str, int], ...]]] = set()
        for request in self.queue:
            who = (request.holder, tuple(request.units.items()))
            if who in hopeless:
                continue
            if not scratch.fits(request.units) and self._within_reach(request.units):
                called += self._recall_for(request, leases, held, scratch)
            if scratch.acquire(request.units) is None:
                hopeless.add(who)
            elif not request.actor_id:
                held[request.holder] = held.get(request.holder, 0) + 1
        return called

    def _recall_for(
        self, request: Request, leases: list[Grant], held: dict[bytes, int], scratch: NodeResources
    ) -> list[Grant]:
        called: list[Grant] = []
        # From whoever holds most: several callers end with equal shares.
        available = [grant for grant in leases if not grant.recalled]
        for grant in sorted(available, key=lambda g: -held[g.holder]):
            if scratch.fits(request.units):
                break
            if not self._contends(request, grant, held, scratch):
                continue
            grant.recalled = True
            held[grant.holder] -= 1
            scratch.release(_twin(grant.allocation))
            called.append(grant)
        return called

    def _contends(
        self, request: Request, grant: Grant, held: dict[bytes, int], scratch: NodeResources
    ) -> bool:
        """Whether the end of this lease helps the request, and its holder can be asked for it."""
        allocation = grant.allocation
        lacking = set(self._lacking(request.units, scratch))
        frees = {n for n in allocation.units if not (n == "CPU" and allocation.blocked)}
        if not lacking & frees:
            return False
        if request.actor_id:
            return True
        if grant.holder == request.holder:
            # Of the same shape it would only swap one lease for another.
            return request.units != grant.request.units
        mine = held.get(request.holder, 0)
        return mine == 0 or held[grant.holder] > mine + 1

    # ------------------------------------------------------------------ warnings

    def warnings(self, now: float) -> list[str]:
        """Return what the user should hear now of requests that wait and will go on waiting."""
        groups: dict[tuple[tuple[str, int], ...], list[Request]] = {}
        for request in self.queue:
            if request.next_warning <= now:
                request.next_warning = now + REMIND_SECONDS
                groups.setdefault(tuple(request.units.items()), []).append(request)
        texts = []
        for requests in groups.values():
            text = self._warning(requests)
            if text:
                texts.append(text)
        return texts

    def _warning(self, requests: list[Request]) -> str:
        units = requests[0].units
        who = _names(requests)
        exists = describe(self.resources.total)
        if not self.resources.feasible(units):
            return (
                f"{who} cannot start: asked for {describe(units)}, but this node has only {exists} "
                "in all. It waits until such resources exist; ask for less, or call "
                "init() with more."
            )
        if not self._within_reach(units):
            held = {name: count for name, count in self._held_by_actors.items() if count}
            return (
                f"{who} cannot start: asked for {describe(units)}, but of {exists} actors "
                f"hold {describe(held)}. It waits until some of them end."
            )
        return ""


def _order(request: Request) -> tuple[int, int]:
    return request.order


def _twin(allocation: Allocation) -> Allocation:
    """A copy to release on scratch resources."""
    twin = Allocation(allocation.units, allocation.gpus)
    twin.blocked = allocation.blocked
    twin.released = allocation.released
    return twin


def _names(requests: Iterable[Request]) -> str:
    """Return e.g. ``train, test (3 times)`` for the names of requests, shortened."""
    counts: dict[str, int] = {}
    for request in requests:
        kind = "actor" if request.actor_id else "task"
        name = f"{kind} {request.name}" if request.name else f"a {kind}"
        counts[name] = counts.get(name, 0) + 1
    parts = [name if n == 1 else f"{name} ({n} times)" for name, n in counts.items()]
    return ", ".join(parts[:5]) + (f" and {len(parts) - 5} more" if len(parts) > 5 else "")
