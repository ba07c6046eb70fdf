"""Messages about actors, between processes and the daemons that keep the directory."""

from __future__ import annotations

from skate.engine.base import Strategy
from skate.runtime.wire.membership import Job
from skate.runtime.wire.parts import Message


class CreateActor(Message, tag=51):
    """Make an actor.  The daemon keeps the specification for restarts and answers with
    ``ActorState``, which it sends again whenever the state changes."""

    actor_id: bytes
    class_name: str
    #: "" for an actor without a name.
    name: str
    namespace: str
    resources: dict[str, float]
    max_restarts: int  # -1: without limit
    max_concurrency: int
    #: The pickled class and its constructor's arguments; only the worker looks inside.
    spec: bytes
    #: Opaque to the daemon: what ``get_actor`` needs to build a handle.
    handle: bytes
    detached: bool
    depth: int
    #: For callers; the daemon passes it on in ``ActorState``.
    max_task_retries: int = 0
    #: As in ``RequestLease``.
    environment: bytes = b""
    strategy: Strategy | None = None
    job: Job | None = None


class ActorState(Message, tag=52):
    """``state``: "pending", "alive", "restarting" or "dead"."""

    actor_id: bytes
    state: str
    worker_id: bytes
    worker_address: str
    pid: int
    #: How often the actor has been restarted so far; tells two lives of one actor apart.
    restarts: int
    #: Why it is dead or restarting, for the user.
    cause: str
    #: A pickled exception if the constructor raised.
    error: bytes | None = None
    max_task_retries: int = 0
    #: As in ``WorkerDied``.
    kind: str = ""


class WatchActor(Message, tag=53):
    """I hold a handle: tell me the actor's state now and whenever it changes."""

    actor_id: bytes


class KillActor(Message, tag=54):
    """``no_restart`` as in ``kill``; ``graceful``: the last handle is gone, let it finish."""

    actor_id: bytes
    no_restart: bool
    graceful: bool
    #: Why it ends gracefully, for the user, if its last handle is not gone.
    cause: str = ""


class StartActor(Message, tag=55):
    """Daemon to worker: become this actor."""

    actor_id: bytes
    spec: bytes
    resources: dict[str, float]
    gpu_ids: list[int]
    restarts: int
    name: str
    namespace: str
    max_concurrency: int
    strategy: Strategy | None = None


class ActorStarted(Message, tag=56):
    """Worker to daemon: the constructor returned, or raised ``error``."""

    actor_id: bytes
    error: bytes | None


class GetNamedActor(Message, tag=58):
    request_id: int
    name: str
    namespace: str


class NamedActor(Message, tag=59):
    """Answer to ``GetNamedActor``; ``actor_id`` is empty if there is none."""

    request_id: int
    actor_id: bytes
    handle: bytes
