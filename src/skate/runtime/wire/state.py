"""Looking inside: questions to the processes of a session, and the rows of their answers.

Whoever looks (a driver, a task, a tool) asks the daemon (``Inspect``).  That asks its processes
(``StateQuery``), waits for their answers for a bounded time, and passes these on unread: pages of
rows, encoded by the process that has them and decoded by the one that asked.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from skate.runtime.wire.logs import LogRange
from skate.runtime.wire.parts import Message

#: Field, operator and value, as checked by ``skate.state``.
Filter: TypeAlias = tuple[str, str, str | int | float | bool | None]

#: What processes can be asked for.
TASKS = "tasks"
#: Tasks that have not ended: the daemon adds nothing of what it has kept.
LIVE_TASKS = "live tasks"
OBJECTS = "objects"
EVENTS = "events"
STACKS = "stacks"
METRICS = "metrics"
#: Begins the name of a table that the daemons have themselves.
TABLE = "table "

# --------------------------------------------------------------------------- node link


class StateQuery(Message, tag=210):
    """Daemon to process: tell what you know of this."""

    query_id: int
    what: str
    #: At most so many rows.
    limit: int
    #: Rows that cannot match are better left out at once, so that ``limit`` cuts off few others.
    filters: list[Filter]


class StateReply(Message, tag=211):
    """Answer to ``StateQuery``."""

    query_id: int
    #: A MessagePack array of rows.
    rows: bytes
    #: How many there are, those beyond the limit included.
    total: int


class Inspect(Message, tag=212):
    """To the daemon: ask processes, answer within ``timeout`` seconds."""

    request_id: int
    what: str
    limit: int
    filters: list[Filter]
    timeout: float
    #: Ids of the processes to ask; empty: all.
    processes: list[bytes]
    #: The part of a log, if ``what`` is that: only its node is asked.
    log: LogRange | None = None


class Page(msgspec.Struct, array_like=True, gc=False):
    """The answer of one process."""

    node_id: bytes
    process_id: bytes
    pid: int
    #: "driver", "worker" or "node".
    kind: str
    rows: bytes
    total: int


class Missing(msgspec.Struct, array_like=True, gc=False):
    """A process that has not answered, and why."""

    node_id: bytes
    process_id: bytes
    pid: int
    kind: str
    reason: str


class Inspection(Message, tag=213):
    """Answer to ``Inspect``."""

    request_id: int
    pages: list[Page]
    missing: list[Missing]


class AskNode(Message, tag=216):
    """Daemon to daemon: ask your processes this, and add what you know yourself."""

    number: int
    question: Inspect


class NodeAnswered(Message, tag=217):
    """Answer to ``AskNode``."""

    number: int
    pages: list[Page]
    missing: list[Missing]


class EventsFlushed(Message, tag=214):
    """What a process has done lately (a MessagePack array of one ``EventBatch``), for the daemon
    to keep: the process may end before somebody asks."""

    batch: bytes
    count: int
    #: Tasks that have ended in this process since the last one, and those of them that raised.
    finished: int = 0
    failed: int = 0


class MetricsFlushed(Message, tag=215):
    """Where all metrics of a process's user code stand (a MessagePack array of ``MetricRow``)."""

    rows: bytes


StateMessage: TypeAlias = (
    StateQuery | StateReply | Inspect | Inspection | EventsFlushed | MetricsFlushed
)

# --------------------------------------------------------------------------- rows


class TaskRow(msgspec.Struct, array_like=True, gc=False):
    """A task or actor call, as its owner or its executor sees it.  Times are Unix times, in
    seconds, 0.0: not yet."""

    task_id: bytes
    attempt: int
    name: str
    #: As in Ray: "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER", "RUNNING",
    #: "FINISHED", "FAILED".
    state: str
    #: "NORMAL_TASK", "ACTOR_TASK" or "ACTOR_CREATION_TASK".
    type: str
    actor_id: bytes
    #: The task that submitted it, if its owner says so.
    parent_task_id: bytes = b""
    #: Where it runs, ran, or was sent to.
    worker_id: bytes = b""
    pid: int = 0
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    #: It waits in ``get`` or ``wait``.
    blocked: bool = False
    error_type: str = ""
    error_message: str = ""
    #: The scheduling key: what it needs.
    resources: dict[str, float] = {}
    #: Objects that it waits for, the first few.
    waits_for: list[bytes] = []
    depth: int = 0


class ObjectRow(msgspec.Struct, array_like=True, gc=False):
    """An object, as one of the processes that hold it sees it."""

    object_id: bytes
    #: -1: not known, because it is not there yet.
    size: int
    #: "pending", "inline", "memory", "failed", or "owner": the value was not asked for.
    location: str
    #: Whether this process is its owner.
    owned: bool
    #: ``ObjectRef`` objects of user code.
    local_refs: int = 0
    #: Arrays and other views of shared memory keep it.
    views: bool = False
    #: Calls that have not finished and take it as an argument.
    pending_tasks: int = 0
    #: Objects that contain a ref of it.
    captured_in: int = 0
    #: Refs inside pickles that Skate has not made keep it for ever.
    pinned: bool = False
    #: Processes that the owner has handed refs to, and how many refs.
    borrowers: dict[bytes, int] = {}
    #: File and line that made it, if it is in shared memory.
    call_site: str = ""
    #: The call that makes it.
    task_name: str = ""
    is_actor: bool = False


class Event(msgspec.Struct, array_like=True, gc=False):
    """Something that took time.  Processes write plain tuples of this shape: one per task."""

    #: "task", "wait" or what the daemon does: "spill", "restore", "transfer".
    kind: str
    name: str
    #: By the clock of ``time.perf_counter``; see ``EventBatch.clock``.
    started: float
    ended: float
    task_id: bytes
    attempt: int
    actor_id: bytes
    #: 0: the main thread.
    thread: int
    error_type: str
    error_message: str


class EventBatch(msgspec.Struct, array_like=True, gc=False):
    """Events of one process, oldest first."""

    process_id: bytes
    pid: int
    #: Add this to the times of the events to get Unix times.
    clock: float
    #: Events that did not fit into the ring before these.
    dropped: int
    events: list[Event]


class Stack(msgspec.Struct, array_like=True, gc=False):
    """What one thread of a process does."""

    thread: str
    #: As ``traceback.format_stack`` prints it, outermost call first.
    text: str
    #: The task that it runs, if any.
    task_name: str
    task_id: bytes


class MetricRow(msgspec.Struct, array_like=True, gc=False):
    """One series of a metric: its name, tags, and what it stands at."""

    name: str
    #: "counter", "gauge" or "histogram".
    kind: str
    description: str
    tags: dict[str, str]
    #: The value; of a histogram the sum of what was observed.
    value: float
    #: Of a histogram: upper bounds, and how many observations each bucket has (one more than
    #: bounds).
    bounds: list[float] = []
    counts: list[int] = []
