"""What waits for a worker: requests for leases and homes of actors, or for a group's bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from skate.engine.base import Strategy
from skate.runtime.amounts import GPU, Units, add_units, to_units
from skate.runtime.node.bundles import Place
from skate.runtime.wire.cluster import PlaceActor
from skate.runtime.wire.messages import Job, RequestLease

#: An actor's or a placement group's id, or a process and its number for a lease request.
Key: TypeAlias = bytes | tuple[bytes, int]

#: Begins the kind of those workers that are for requests with GPUs.
_WITH_GPUS = b"GPU "

#: What a request asks for and where: two of one shape fit or do not fit alike.
Shape: TypeAlias = tuple[Place | None, tuple[tuple[tuple[str, int], ...], ...]]


class Request:
    """Somebody wants a worker: a lease, or a home for an actor.  Or the bundles of a group."""

    __slots__ = (
        "actor_id",
        "actor_order",
        "attracted_to",
        "bound_to",
        "bundles",
        "depth",
        "environment",
        "group_id",
        "holder",
        "job",
        "key",
        "message",
        "name",
        "next_warning",
        "order",
        "origin",
        "parts",
        "place",
        "request_id",
        "retriable",
        "shape",
        "since",
        "stays",
        "strategy",
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
        strategy: Strategy | None = None,
    ) -> None:
        """Raise ValueError if the resources make no sense."""
        self._set(holder, [to_units(resources)], depth, name, strategy)
        #: The holder's number for it, if it asks for a lease.
        self.request_id = request_id
        #: Not empty: the request is an actor's.
        self.actor_id = actor_id
        #: Names the runtime environment that the worker has to be in.
        self.environment = environment
        #: Names the request for ``cancel``.
        self.key: Key = actor_id or (holder, request_id)

    @classmethod
    def for_lease(cls, holder: bytes, message: RequestLease) -> Request:
        """Return the request that a process has sent; raise ValueError as above."""
        request = cls(
            holder,
            message.resources,
            message.depth,
            message.name,
            message.request_id,
            environment=message.environment,
            strategy=message.strategy,
        )
        request.message = message
        request.job = message.job
        request.retriable = message.retriable
        return request

    @classmethod
    def for_actor(cls, order: PlaceActor) -> Request:
        """Return the request of an actor; raise ValueError as above."""
        actor = order.actor
        request = cls(
            order.owner,
            actor.resources,
            actor.depth,
            f"{actor.class_name} ({actor.name!r})" if actor.name else actor.class_name,
            actor_id=actor.actor_id,
            environment=actor.environment,
            strategy=actor.strategy,
        )
        request.actor_order = order
        request.job = actor.job
        request.retriable = actor.max_restarts < 0 or order.restarts < actor.max_restarts
        return request

    @classmethod
    def for_group(
        cls, holder: bytes, group_id: bytes, bundles: Mapping[int, Units], name: str
    ) -> Request:
        """Return the request for the bundles (by index) of a placement group on this node."""
        request = cls.__new__(cls)
        request._set(holder, list(bundles.values()), 0, name, None)
        request.request_id = 0
        request.actor_id = b""
        request.environment = b""
        request.key = request.group_id = group_id
        request.bundles = bundles
        return request

    def _set(
        self,
        holder: bytes,
        parts: list[Units],
        depth: int,
        name: str,
        strategy: Strategy | None,
    ) -> None:
        #: The process that asks.
        self.holder = holder
        #: What has to fit together, each part for itself: GPUs are not shared between parts.
        self.parts = parts
        self.units: Units = parts[0] if len(parts) == 1 else add_units(parts)
        #: What was asked for besides resources.
        self.strategy = strategy
        #: None: anywhere on the node outside of placement groups.
        self.place: Place | None = None
        if strategy is not None and strategy.group_id:
            self.place = (strategy.group_id, strategy.bundle)
        self.shape: Shape = (self.place, tuple(tuple(part.items()) for part in parts))
        self.depth = depth
        self.name = name
        #: Not empty: it asks for no worker but for ``bundles``.
        self.group_id = b""
        self.bundles: Mapping[int, Units] = {}
        #: What to start, if it is an actor's; else what the holder has said.
        self.actor_order: PlaceActor | None = None
        self.message: RequestLease | None = None
        #: Whose work it is, where several drivers share the node.
        self.job: Job | None = None
        #: The node that has sent it here; empty if it is our own.
        self.origin = b""
        #: It may wait here although it comes from another node.
        self.stays = True
        #: The node that it would rather be served on.
        self.attracted_to = b""
        #: The only other node on which it may be served.
        self.bound_to = b""
        #: Whether what it is for may be ended and started again.
        self.retriable = True
        self.since = 0.0
        self.order = (0, 0)
        self.next_warning = 0.0

    @property
    def kind(self) -> str:
        """What it is for, in words for the user."""
        return "actor" if self.actor_id else "placement group" if self.group_id else "task"

    @property
    def is_lease(self) -> bool:
        """Whether what it is granted can be called in."""
        return not self.actor_id and not self.group_id

    @property
    def use(self) -> tuple[object, ...]:
        """What tells the leases of one process apart: tasks of one use run on any of them."""
        return self.shape, self.environment, self.strategy, self.retriable

    @property
    def worker_kind(self) -> bytes:
        """What workers may serve it: those of its job, in its runtime environment.

        Those for GPUs run nothing else: CUDA looks once for the devices of its process, so who has
        looked for them in a task without GPUs finds none later.
        """
        kind = self.environment if self.job is None else self.job.driver_id + self.environment
        return _WITH_GPUS + kind if self.units.get(GPU) else kind
