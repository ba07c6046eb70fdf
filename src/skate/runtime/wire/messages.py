"""Every message that travels between two processes of a session, as typed structs.

Two links exist.  *Peer* messages go directly between drivers and workers, *node* messages between a
process and the node daemon of its host.  User data (arguments, results, functions) is opaque
``bytes`` in all of them: only the process that runs user code ever unpickles it.
"""

from __future__ import annotations

from typing import TypeAlias

from skate.runtime.wire.actors import ActorStarted as ActorStarted
from skate.runtime.wire.actors import ActorState as ActorState
from skate.runtime.wire.actors import CreateActor as CreateActor
from skate.runtime.wire.actors import GetNamedActor as GetNamedActor
from skate.runtime.wire.actors import KillActor as KillActor
from skate.runtime.wire.actors import NamedActor as NamedActor
from skate.runtime.wire.actors import StartActor as StartActor
from skate.runtime.wire.actors import WatchActor as WatchActor
from skate.runtime.wire.calls import CancelObject as CancelObject
from skate.runtime.wire.calls import Retiring as Retiring
from skate.runtime.wire.calls import StreamDropped as StreamDropped
from skate.runtime.wire.calls import StreamEnded as StreamEnded
from skate.runtime.wire.calls import StreamItems as StreamItems
from skate.runtime.wire.calls import StreamTaken as StreamTaken
from skate.runtime.wire.calls import StreamValues as StreamValues
from skate.runtime.wire.calls import TaskStarted as TaskStarted
from skate.runtime.wire.calls import Terms as Terms
from skate.runtime.wire.calls import WorkerRetires as WorkerRetires
from skate.runtime.wire.debug import AtBreakpoint as AtBreakpoint
from skate.runtime.wire.debug import LeftBreakpoint as LeftBreakpoint
from skate.runtime.wire.environments import FindPackages as FindPackages
from skate.runtime.wire.environments import PackageData as PackageData
from skate.runtime.wire.environments import PackagesMissing as PackagesMissing
from skate.runtime.wire.environments import PackageStored as PackageStored
from skate.runtime.wire.environments import PrepareEnvironment as PrepareEnvironment
from skate.runtime.wire.environments import ReadPackage as ReadPackage
from skate.runtime.wire.environments import StorePackage as StorePackage
from skate.runtime.wire.leases import BeginLease as BeginLease
from skate.runtime.wire.leases import CancelLeaseRequest as CancelLeaseRequest
from skate.runtime.wire.leases import LeaseGranted as LeaseGranted
from skate.runtime.wire.leases import LeaseRefused as LeaseRefused
from skate.runtime.wire.leases import RecallLease as RecallLease
from skate.runtime.wire.leases import RequestLease as RequestLease
from skate.runtime.wire.leases import ReturnLease as ReturnLease
from skate.runtime.wire.lineage import ReportLost as ReportLost
from skate.runtime.wire.membership import ClusterResources as ClusterResources
from skate.runtime.wire.membership import Job as Job
from skate.runtime.wire.parts import PROTOCOL_VERSION as PROTOCOL_VERSION
from skate.runtime.wire.parts import ArgSlot as ArgSlot
from skate.runtime.wire.parts import Location as Location
from skate.runtime.wire.parts import Message as Message
from skate.runtime.wire.parts import RefGrant as RefGrant
from skate.runtime.wire.parts import Value as Value
from skate.runtime.wire.placement import CreatePlacementGroup as CreatePlacementGroup
from skate.runtime.wire.placement import FindPlacementGroups as FindPlacementGroups
from skate.runtime.wire.placement import PlacementGroupsFound as PlacementGroupsFound
from skate.runtime.wire.placement import PlacementGroupState as PlacementGroupState
from skate.runtime.wire.placement import RemovePlacementGroup as RemovePlacementGroup
from skate.runtime.wire.placement import WatchPlacementGroup as WatchPlacementGroup
from skate.runtime.wire.state import EventsFlushed as EventsFlushed
from skate.runtime.wire.state import Inspect as Inspect
from skate.runtime.wire.state import Inspection as Inspection
from skate.runtime.wire.state import MetricsFlushed as MetricsFlushed
from skate.runtime.wire.state import StateQuery as StateQuery
from skate.runtime.wire.state import StateReply as StateReply
from skate.runtime.wire.store import AcquireSegment as AcquireSegment
from skate.runtime.wire.store import GiveBackSegment as GiveBackSegment
from skate.runtime.wire.store import LocateObject as LocateObject
from skate.runtime.wire.store import MapSegment as MapSegment
from skate.runtime.wire.store import ObjectFreed as ObjectFreed
from skate.runtime.wire.store import ObjectLocated as ObjectLocated
from skate.runtime.wire.store import ObjectStored as ObjectStored
from skate.runtime.wire.store import ObjectsUsed as ObjectsUsed
from skate.runtime.wire.store import RequestRoom as RequestRoom
from skate.runtime.wire.store import RoomAnswer as RoomAnswer
from skate.runtime.wire.store import SegmentAnswer as SegmentAnswer
from skate.runtime.wire.store import SegmentRetired as SegmentRetired
from skate.runtime.wire.store import StoreRequest as StoreRequest

#: The ``kind`` of deaths and refusals: a placement group has ended, ...
REMOVED_KIND = "placement group removed"
#: ... or a runtime environment could not be prepared; another request tries again, ...
ENVIRONMENT_KIND = "environment failed"
#: ... or the node that it is bound to does not exist, ...
NO_NODE_KIND = "no such node"
#: ... or the worker was ended to save memory.
OUT_OF_MEMORY_KIND = "out of memory"

# --------------------------------------------------------------------------- both links


class Hello(Message, tag=1):
    """First message on every connection, in both directions."""

    process_id: bytes
    pid: int
    address: str
    version: int = PROTOCOL_VERSION


# --------------------------------------------------------------------------- peer link


class DefineFunction(Message, tag=11):
    """A pickled function, sent once per connection before the first task that calls it."""

    function_id: bytes
    name: str
    payload: bytes


class Task(Message, tag=12):
    """One call of a function, or of an actor's method if ``actor_id`` is not empty."""

    task_id: bytes
    function_id: bytes
    #: ``(args, kwargs)`` as written by ``skate.serialization``; slots stand where refs stood.
    arguments: bytes
    #: Or ``STREAMING`` or ``DYNAMIC``.
    num_returns: int
    #: Top-level refs, in the order of their slots.
    slots: list[ArgSlot]
    #: Refs nested inside the arguments.
    refs: list[RefGrant]
    #: The actor calls (actor id, then task id) that may wait, directly or through others, for this
    #: task; see "Re-entrant calls" in ``docs/architecture.md``.
    chain: list[bytes]
    #: Nesting depth: 0 for calls of the driver.
    depth: int
    name: str
    actor_id: bytes
    method: str
    attempt: int
    #: Send all earlier replies before this task starts, so that if the worker dies it is known
    #: which tasks have finished: for tasks that must not run twice.
    exact: bool = False
    terms: Terms | None = None


class Reply(Message, tag=13):
    """A task returned one small value without refs in it: by far the most frequent reply."""

    task_id: bytes
    data: bytes
    #: How long the task ran, in microseconds, time blocked in ``get`` left out.
    duration: int


class ReplyValues(Message, tag=14):
    """A task returned something else than one small plain value."""

    task_id: bytes
    values: list[Value]
    duration: int


class TaskFailed(Message, tag=15):
    """A task raised; ``error`` is the pickled ``TaskError`` (or ``TaskCancelledError``)."""

    task_id: bytes
    error: bytes
    #: Types in the exception's MRO as ``module.qualname``, so that callers can match
    #: ``retry_exceptions`` without unpickling.
    types: list[str]
    cancelled: bool
    duration: int


class Steal(Message, tag=16):
    """Give back up to ``count`` tasks of mine that have not started (the youngest first)."""

    count: int


class Returned(Message, tag=17):
    """Tasks handed back unstarted, because they were stolen or the worker blocks in ``get``."""

    task_ids: list[bytes]
    blocked: bool


class Unblocked(Message, tag=18):
    """The worker that had said ``Returned(blocked=True)`` runs again."""


class Cancel(Message, tag=19):
    """Drop the task if it has not started, interrupt it (or, forced, the process) if it has."""

    task_id: bytes
    force: bool
    #: Cancel what the task has submitted as well.
    recursive: bool = True


class FetchObject(Message, tag=20):
    """Tell me the value of an object that you own, as soon as there is one."""

    object_id: bytes


class ObjectValue(Message, tag=21):
    """Answer to ``FetchObject``."""

    object_id: bytes
    value: Value


class AddBorrower(Message, tag=22):
    """I handed a ref of yours to ``borrower``, once; I keep mine until you acknowledge."""

    object_id: bytes
    borrower: bytes


class BorrowerAdded(Message, tag=23):
    """Answer to ``AddBorrower``."""

    object_id: bytes
    borrower: bytes


class ReleaseBorrow(Message, tag=24):
    """I have dropped a ref of yours which I was handed ``count`` times."""

    object_id: bytes
    count: int


PeerMessage: TypeAlias = (
    Hello
    | BeginLease
    | DefineFunction
    | Task
    | Reply
    | ReplyValues
    | TaskFailed
    | Steal
    | Returned
    | Unblocked
    | Cancel
    | FetchObject
    | ObjectValue
    | AddBorrower
    | BorrowerAdded
    | ReleaseBorrow
    | ReportLost
    | StreamItems
    | StreamValues
    | StreamEnded
    | StreamTaken
    | StreamDropped
    | TaskStarted
    | CancelObject
    | Retiring
)


# --------------------------------------------------------------------------- node link


class Register(Message, tag=40):
    """A driver or worker introduces itself to its node daemon, after ``Hello``."""

    #: "driver", "worker" or "tool": one that only looks, and owns nothing.
    kind: str
    address: str
    #: Of a driver, where several may share the node.
    job: Job | None = None


class Registered(Message, tag=41):
    """Answer to ``Register``."""

    node_id: bytes
    #: Total resources of the cluster: how many leases of a kind can be granted at all.
    resources: dict[str, float]
    namespace: str
    job_id: str
    log_dir: str
    #: Of the node: how many bytes of shared memory objects may take.
    object_store_memory: int = 0


class Blocked(Message, tag=48):
    """This worker waits in ``get`` or ``wait``: its CPUs are free for others."""


class Resumed(Message, tag=49):
    """This worker has stopped waiting."""


class WorkerDied(Message, tag=50):
    """Broadcast to every process of the node."""

    process_id: bytes
    pid: int
    #: For the user, e.g. ``killed by SIGKILL`` or ``exited with code 3``.
    cause: str
    log_path: str
    #: What it was ended for, one of the constants ``..._KIND``, or "".
    kind: str = ""


class ExitWorker(Message, tag=57):
    """Daemon to worker: finish what you run, then exit."""


class StateRequest(Message, tag=60):
    """``what``: "nodes", "cluster_resources", "available_resources", "workers", "actors", "jobs",
    "demands", "store"."""

    request_id: int
    what: str


class StateAnswer(Message, tag=61):
    request_id: int
    rows: list[dict[str, str | int | float | bool | dict[str, float] | list[dict[str, float]]]]


class LogLines(Message, tag=65):
    """Output of a worker for the driver.  ``stream``: 1 stdout, 2 stderr."""

    pid: int
    name: str
    stream: int
    lines: list[str]


class Warn(Message, tag=66):
    """Something the user of this driver ought to know; logged there."""

    text: str


class PeerLost(Message, tag=69):
    """My connection to a worker has ended, but I have not heard that it died."""

    process_id: bytes
    #: Why there is none, if there has never been one.
    reason: str = ""


class StillNeeded(Message, tag=70):
    """Worker to daemon, instead of exiting: I own what others may still reach."""


class Shutdown(Message, tag=67):
    """Driver to daemon: end the session, or (of several drivers) what is mine of it."""


class ShutdownDone(Message, tag=68):
    """Every process of the session but the daemon is gone and all output was sent."""


NodeMessage: TypeAlias = (
    Hello
    | Register
    | Registered
    | RequestLease
    | LeaseGranted
    | LeaseRefused
    | CancelLeaseRequest
    | ReturnLease
    | RecallLease
    | Blocked
    | Resumed
    | WorkerDied
    | CreateActor
    | ActorState
    | WatchActor
    | KillActor
    | StartActor
    | ActorStarted
    | ExitWorker
    | GetNamedActor
    | NamedActor
    | StateRequest
    | StateAnswer
    | ObjectStored
    | ObjectFreed
    | LocateObject
    | ObjectLocated
    | ObjectsUsed
    | RequestRoom
    | RoomAnswer
    | SegmentRetired
    | LogLines
    | Warn
    | PeerLost
    | StillNeeded
    | WorkerRetires
    | CreatePlacementGroup
    | RemovePlacementGroup
    | WatchPlacementGroup
    | PlacementGroupState
    | FindPlacementGroups
    | PlacementGroupsFound
    | Shutdown
    | ShutdownDone
    | ClusterResources
    | EventsFlushed
    | Inspect
    | Inspection
    | MetricsFlushed
    | StateQuery
    | StateReply
    | AtBreakpoint
    | LeftBreakpoint
    | PrepareEnvironment
    | FindPackages
    | PackagesMissing
    | StorePackage
    | PackageStored
    | ReadPackage
    | PackageData
)
