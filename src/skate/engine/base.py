"""The seam between the public API and what executes it.

``Engine`` is the whole contract.  ``inline`` runs everything in the calling process, ``native`` on
processes of this machine; one conformance suite (``tests/conformance``) runs on all engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from skate import serialization
from skate.refs import ObjectRef

#: ``num_returns`` of calls that return an ``ObjectRefGenerator`` ...
STREAMING = -1
#: ... or a ref of a ``DynamicObjectRefGenerator``.
DYNAMIC = -2


@dataclass(slots=True, frozen=True)
class Strategy:
    """Where a task or actor is to run: in a placement group, on one node, spread over the nodes.

    Without one, wherever there is room first.
    """

    #: Not empty: in a bundle of this placement group.
    group_id: bytes = b""
    #: -1: in any bundle.
    bundle: int = -1
    #: What it submits runs in the group, too, unless that says otherwise.
    capture: bool = False
    #: What the group consists of, for checks and for those inside who ask.
    bundles: tuple[dict[str, float], ...] = field(default=(), compare=False)
    #: Not empty: on this node, ...
    node_id: bytes = b""
    #: ... or, if that is gone, elsewhere.
    soft: bool = False
    #: On the node with the least to do.
    spread: bool = False

    def inherited(self) -> Strategy | None:
        """Return where what is submitted inside runs that does not say; None: anywhere."""
        return replace(self, bundle=-1) if self.capture else None

    def check_fits(self, resources: Mapping[str, float]) -> None:
        """Refuse what could never run in the bundles that are named.

        Raises:
            ValueError: no bundle is large enough.
        """
        if not self.group_id:
            return
        chosen = self.bundles if self.bundle < 0 else self.bundles[self.bundle : self.bundle + 1]
        for bundle in chosen:
            if all(amount <= bundle.get(name, 0.0) for name, amount in resources.items()):
                return
        where = f"bundle {self.bundle}" if self.bundle >= 0 else "any bundle"
        raise ValueError(
            f"what needs {dict(resources)} does not fit {where} of its placement group, which has"
            f" the bundles {list(self.bundles)}: ask for less, or make a larger bundle"
        )


#: Said explicitly: not in the placement group of the caller.
ANYWHERE = Strategy()


@dataclass(slots=True)
class TaskOptions:
    """What ``@remote`` and ``.options`` say of a task, checked and with defaults filled in."""

    #: ``STREAMING`` or ``DYNAMIC`` for the items of a generator.
    num_returns: int = 1
    #: How many items of a generator may wait for their consumer; 0: without limit.
    generator_backpressure: int = 0
    #: ``CPU``, ``GPU``, ``memory`` (bytes) and custom names; zero amounts are left out.
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    max_retries: int = 3
    #: True: retry after any exception of the task; a tuple: after these, as ``module.qualname``.
    retry_exceptions: bool | tuple[str, ...] = False
    #: How long it may run; 0: without limit.
    timeout_s: float = 0.0
    #: After so many calls a worker runs no further tasks; 0: without limit.
    max_calls: int = 0
    name: str = ""
    #: None: as the caller, if that captures what it submits; otherwise anywhere.
    strategy: Strategy | None = None
    #: A checked runtime environment, to be merged into that of the caller.
    runtime_env: Mapping[str, Any] | None = None
    #: Two places for the engine to keep what it derives from these options.
    scheduling_key: Any = None
    environment: Any = None


@dataclass(slots=True)
class ActorOptions:
    """What ``@remote`` and ``.options`` say of an actor."""

    resources: dict[str, float] = field(default_factory=dict)
    name: str = ""
    #: None: the namespace of the session.
    namespace: str | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int = 1
    #: How many calls of each concurrency group run at the same time.
    concurrency_groups: dict[str, int] = field(default_factory=dict)
    #: It has methods that are coroutines: its calls run on an event loop.
    asynchronous: bool = False
    #: How many calls of one caller may be unfinished; 0: without limit.
    max_pending_calls: int = 0
    #: A call whose arguments are not ready lets others of the same caller pass.
    out_of_order: bool = False
    detached: bool = False
    #: As in ``TaskOptions``.
    runtime_env: Mapping[str, Any] | None = None
    environment: Any = None
    strategy: Strategy | None = None


@dataclass(slots=True)
class CallOptions:
    """What ``@method`` and ``.options`` say of one actor call."""

    num_returns: int = 1
    generator_backpressure: int = 0
    #: None: as the actor's options say.
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[str, ...] = False
    timeout_s: float = 0.0
    #: "": the default group.
    concurrency_group: str = ""
    #: As in the options of the actor.
    max_pending_calls: int = 0
    out_of_order: bool = False
    name: str = ""


@dataclass(slots=True)
class SessionConfig:
    """What ``init`` was told, checked and with defaults filled in."""

    #: All that the node has: ``CPU``, ``GPU``, ``memory`` (bytes) and custom names.
    resources: dict[str, float]
    #: How many bytes of shared memory objects may take.
    object_store_memory: int
    #: Modules that workers have imported before they start.
    preload: list[str]
    namespace: str
    #: A number of ``logging``.
    logging_level: int
    log_to_driver: bool
    #: Serve metrics to Prometheus on this port; 0: any that is free, -1: not at all.
    metrics_port: int = -1
    metrics_host: str = "127.0.0.1"
    #: Where objects go that do not fit; "": some local disk.
    spill_uri: str = ""
    #: Workers are ended when a larger share of the machine's memory is in use; 1.0: never.
    memory_usage_threshold: float = 0.95
    #: Calls that raise wait for a debugger.
    post_mortem: bool = False
    #: Calls that wait so many seconds are reported; None: never.
    hang_warning_s: float | None = None
    #: "local": a session of its own on this machine.
    address: str = "local"
    #: A checked runtime environment for everything that does not say otherwise.
    runtime_env: Mapping[str, Any] | None = None


class Code:
    """A function or class that travels: pickled at most once per process, named by its content."""

    __slots__ = ("_pickled", "name", "stats", "target")

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target
        name = getattr(target, "__qualname__", None) or repr(target)
        #: For error messages and log lines: ``Counter.add``, without the functions around it.
        self.name: str = name.rsplit("<locals>.", 1)[-1]
        # Id and payload in one attribute, because several threads may submit the first calls.
        self._pickled: tuple[bytes, bytes] | None = None
        #: A place for the engine to keep what it has measured of the calls.
        self.stats: Any = None

    @property
    def payload(self) -> bytes:
        """The pickled function or class."""
        return (self._pickled or self._pickle())[1]

    @property
    def code_id(self) -> bytes:
        """16 bytes that depend on nothing but ``payload``."""
        return (self._pickled or self._pickle())[0]

    def _pickle(self) -> tuple[bytes, bytes]:
        import hashlib  # 2 ms that ``import skate`` need not take

        payload = serialization.dumps_code(self.target)
        code_id = hashlib.blake2b(payload, digest_size=16).digest()
        # The first one counts: pickles of one function may differ.
        if self._pickled is None:
            self._pickled = (code_id, payload)
        return self._pickled


@dataclass(slots=True, frozen=True)
class Context:
    """Where the calling code runs, in raw form; ``get_runtime_context`` dresses it up."""

    node_id: bytes
    worker_id: bytes
    job_id: str
    namespace: str
    #: Empty in the driver.
    task_id: bytes = b""
    task_name: str = ""
    actor_id: bytes = b""
    actor_name: str = ""
    #: How often the current actor has been restarted.
    restarts: int = 0
    attempt: int = 0
    assigned_resources: Mapping[str, float] = field(default_factory=dict)
    gpu_ids: Sequence[int | str] = ()
    is_driver: bool = True
    #: The runtime environment that the caller runs in, or that a driver gives its tasks.
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    #: What the current task or actor was placed with.
    strategy: Strategy | None = None


@dataclass(slots=True)
class PlacementGroupInfo:
    """What is known of one placement group."""

    group_id: bytes
    name: str
    namespace: str
    strategy: str
    #: "pending", "created" or "removed".
    state: str
    bundles: list[dict[str, float]]
    #: The node of each bundle, empty unless the group is created.
    nodes: list[bytes]
    #: Why it is pending or removed, for the user.
    reason: str
    detached: bool


class PlacementGroups(Protocol):
    """What an engine does for ``skate.util.placement_group``."""

    def create(
        self, bundles: Sequence[dict[str, float]], strategy: str, name: str, detached: bool
    ) -> bytes:
        """Ask for a group and return its id at once.

        Raises:
            ValueError: a group of that name exists in the namespace.
        """

    def ready(self, group_id: bytes, value: object) -> ObjectRef[Any]:
        """Return a ref that becomes ``value`` when the group is created, or fails if it ends."""

    def remove(self, group_id: bytes) -> None:
        """End the group and what runs in it."""

    def find(self, group_id: bytes = b"", name: str = "") -> list[PlacementGroupInfo]:
        """Return the group of that id or name, or all."""


class Completions(Protocol):
    """Refs in the order in which their values come."""

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Wait for the next ref and return it; None if ``timeout`` seconds have passed."""

    async def take_soon(self) -> ObjectRef[Any]:
        """Do the same in an event loop, without a limit."""

    def close(self) -> None:
        """Nobody takes the others."""


class Engine(Protocol):
    """Executes tasks and actors.  All methods may be called from any thread."""

    @property
    def placement_groups(self) -> PlacementGroups:
        """Placement groups of this session."""

    @property
    def session_dir(self) -> str:
        """Where the session keeps sockets and logs; "" if it has no files."""

    def submit_task(
        self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        """Start one call of a function; return ``options.num_returns`` refs at once.

        For ``STREAMING`` it is one ``ObjectRefGenerator``, for ``DYNAMIC`` one ref.
        """

    def create_actor(
        self,
        code: Code,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        handle: bytes,
    ) -> Any:
        """Start an actor and return its cell.  ``handle`` is stored for ``find_actor``.

        Raises:
            ActorAlreadyExistsError: an actor of that name exists in the namespace.
        """

    def submit_call(
        self,
        actor: Any,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> list[Any]:
        """Call a method of the actor of cell ``actor``; calls of one caller run in this order."""

    def find_actor(self, name: str, namespace: str | None) -> tuple[Any, bytes] | None:
        """Return cell and ``handle`` of a named actor; the cell does not keep the actor alive."""

    def own_actor(self) -> tuple[Any, bytes] | None:
        """Return the same of the actor that the caller runs in, or None."""

    def kill_actor(self, actor: Any, no_restart: bool) -> None:
        """End the actor's process at once."""

    def put(self, value: object) -> ObjectRef[Any]:
        """Store a value."""

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """Return the values, in order; raise as soon as one has failed (of several the first)."""

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """Return one value, or raise its exception."""

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split refs into ready ones (at most ``num_returns``) and others, both in their order."""

    def completions(self, refs: Sequence[ObjectRef[Any]]) -> Completions:
        """Return refs in the order in which their values come."""

    def cancel(self, ref: Any, force: bool, recursive: bool) -> None:
        """Stop the task that makes ``ref`` (or is this generator) if it has not finished."""

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return rows: "nodes", "cluster_resources", "available_resources", "workers", "actors"...

        A table that the engine does not have is empty.
        """

    def inspect(
        self,
        what: str,
        limit: int,
        filters: Sequence[Any],
        timeout: float,
        processes: Sequence[bytes],
        log: Any | None = None,
    ) -> Any:
        """Ask all processes of the session (or some) what they know; return an ``Inspection``.

        ``log``: a ``LogRange``, to read part of a log of any node.

        Raises:
            NotSupportedError: The engine has no processes to ask.
        """

    def context(self) -> Context:
        """Return where the caller runs."""

    def portable(self, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        """Return a checked runtime environment without paths, for use in other processes."""

    def shutdown(self) -> None:
        """End everything that this engine started."""
