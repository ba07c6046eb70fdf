"""What daemons say to each other.

A node daemon serves its own drivers and workers; what it cannot serve itself it hands on to the
daemon of another node, and the answer comes back the same way.  Every daemon has one connection to
each other one, so that what one sends another arrives in order.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from skate.runtime.wire.environments import PackageData as PackageData
from skate.runtime.wire.environments import ReadPackage as ReadPackage
from skate.runtime.wire.messages import (
    ActorStarted,
    CreateActor,
    CreatePlacementGroup,
    FindPlacementGroups,
    GetNamedActor,
    Hello,
    Job,
    KillActor,
    Message,
    NodeMessage,
    PlacementGroupState,
    RemovePlacementGroup,
    RequestLease,
    WatchActor,
    WatchPlacementGroup,
    WorkerDied,
)
from skate.runtime.wire.placement import BundlesReserved as BundlesReserved
from skate.runtime.wire.placement import ReleaseBundles as ReleaseBundles
from skate.runtime.wire.placement import ReserveBundles as ReserveBundles
from skate.runtime.wire.state import AskNode as AskNode
from skate.runtime.wire.state import NodeAnswered as NodeAnswered
from skate.runtime.wire.transfers import (
    CarryChunks as CarryChunks,
)
from skate.runtime.wire.transfers import (
    ChunkFailed as ChunkFailed,
)
from skate.runtime.wire.transfers import (
    CopyNoted as CopyNoted,
)
from skate.runtime.wire.transfers import (
    FreeCopy as FreeCopy,
)
from skate.runtime.wire.transfers import (
    NoteCopy as NoteCopy,
)
from skate.runtime.wire.transfers import (
    ObjectChunk as ObjectChunk,
)
from skate.runtime.wire.transfers import (
    PullChunk as PullChunk,
)

# --------------------------------------------------------------------------- who is there


class NodeInfo(msgspec.Struct, array_like=True):
    """A node, as it introduces itself."""

    node_id: bytes
    #: ``host:port`` of its daemon.
    address: str
    hostname: str
    pid: int
    #: Units (1/10000) of everything it has.
    total: dict[str, int]
    object_store_memory: int
    node_socket: str
    store_socket: str
    #: Given by the head, 0 being the head itself; names the node in the numbers of its leases.
    number: int = 0


class ProcessInfo(msgspec.Struct, array_like=True):
    """A driver or worker of some node."""

    process_id: bytes
    pid: int
    #: "driver" or "worker".
    kind: str
    #: None for a worker that has not been given one.
    job: Job | None = None


class JoinCluster(Message, tag=140):
    """New node to head."""

    node: NodeInfo


class Welcome(Message, tag=141):
    """Head to new node: your number, and whom else to introduce yourself to."""

    number: int
    others: list[NodeInfo]


class Introduce(Message, tag=142):
    """Between any two nodes, in both directions: who I am and which processes I have."""

    node: NodeInfo
    free: dict[str, int]
    processes: list[ProcessInfo]


class NodeStatus(Message, tag=143):
    """What a node has free; sent when it changes, and as a sign of life."""

    free: dict[str, int]


class NodeLeft(Message, tag=144):
    """Head to all: the node is gone, and all its processes with it."""

    node_id: bytes
    #: For the user.
    cause: str


class NodeUnreachable(Message, tag=145):
    """Node to head: my connection to this other node has ended."""

    node_id: bytes


class Leaving(Message, tag=146):
    """Node to head: I am about to end, in good order."""

    cause: str


class ProcessJoined(Message, tag=147):
    """A process of mine has registered."""

    process: ProcessInfo


class ProcessDied(Message, tag=148):
    """A process of mine is gone."""

    death: WorkerDied


# --------------------------------------------------------------------------- relaying


class Relay(Message, tag=149):
    """This process of mine says this to you."""

    process_id: bytes
    message: NodeMessage


class Deliver(Message, tag=151):
    """Say this to that process of yours."""

    process_id: bytes
    message: NodeMessage


class KillProcess(Message, tag=152):
    """End a worker of yours at once."""

    process_id: bytes
    cause: str


class FlushOutput(Message, tag=167):
    """A driver of mine leaves: send what its workers have printed so far, then answer."""

    driver_id: bytes


class OutputFlushed(Message, tag=168):
    """Answer to ``FlushOutput``."""

    driver_id: bytes


class StopProcess(Message, tag=153):
    """Let a worker of yours finish what it has, then end."""

    process_id: bytes


# --------------------------------------------------------------------------- redirecting


class ForwardLease(Message, tag=154):
    """A request of a process of mine which I cannot serve now.

    ``stay``: I can never serve it, so let it wait with you.  Otherwise ``RequestBounced`` it if it
    does not fit at once.
    """

    holder: bytes
    request: RequestLease
    stay: bool


class PlaceActor(Message, tag=150):
    """Head to node: give this actor a worker.  ``stay`` as in ``ForwardLease``."""

    actor: CreateActor
    #: The process whose end is the actor's end.
    owner: bytes
    #: How often it has been restarted.
    restarts: int
    stay: bool = False


class RequestBounced(Message, tag=155):
    """Answer to both of them: it does not fit here, or fits elsewhere."""

    #: Of a lease.
    holder: bytes
    request_id: int
    #: Of an actor.
    actor_id: bytes
    free: dict[str, int]


class DequeueActor(Message, tag=156):
    """Head to node: the actor needs no worker any more."""

    actor_id: bytes


class ActorGranted(Message, tag=157):
    """Node to head: the actor is about to start in this worker."""

    actor_id: bytes
    worker_id: bytes
    address: str
    pid: int


class ActorRefused(Message, tag=158):
    """Node to head: no worker can be had for the actor."""

    actor_id: bytes
    cause: str
    #: As in ``WorkerDied``.
    kind: str = ""


ClusterMessage: TypeAlias = (
    PullChunk
    | CarryChunks
    | ObjectChunk
    | ChunkFailed
    | NoteCopy
    | CopyNoted
    | FreeCopy
    | ReadPackage
    | PackageData
    | Hello
    | JoinCluster
    | Welcome
    | Introduce
    | NodeStatus
    | NodeLeft
    | NodeUnreachable
    | Leaving
    | ProcessJoined
    | ProcessDied
    | Relay
    | Deliver
    | KillProcess
    | FlushOutput
    | OutputFlushed
    | StopProcess
    | ForwardLease
    | PlaceActor
    | RequestBounced
    | DequeueActor
    | ActorGranted
    | ActorRefused
    | AskNode
    | NodeAnswered
    | ReserveBundles
    | BundlesReserved
    | ReleaseBundles
    | WatchPlacementGroup
    | PlacementGroupState
)

cluster_decoder: msgspec.msgpack.Decoder[list[ClusterMessage]] = msgspec.msgpack.Decoder(
    list[ClusterMessage]
)

#: What the head answers for the whole cluster.
FOR_THE_HEAD: frozenset[type] = frozenset(
    (
        CreateActor,
        WatchActor,
        KillActor,
        ActorStarted,
        GetNamedActor,
        CreatePlacementGroup,
        RemovePlacementGroup,
        WatchPlacementGroup,
        FindPlacementGroups,
    )
)
