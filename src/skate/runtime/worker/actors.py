"""The caller's side of actors: handles' state, ordered calls, restarts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from skate.engine.base import STREAMING, ActorOptions, CallOptions, Code
from skate.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorError,
    ActorPlacementGroupRemovedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    PendingCallsLimitExceeded,
    RuntimeEnvSetupError,
    TaskError,
)
from skate.generators import ObjectRefGenerator
from skate.refs import ObjectRef
from skate.runtime.wire.messages import (
    ENVIRONMENT_KIND,
    NO_NODE_KIND,
    REMOVED_KIND,
    ActorStarted,
    ActorState,
    ArgSlot,
    CreateActor,
    GetNamedActor,
    KillActor,
    NamedActor,
    RefGrant,
    Task,
    WatchActor,
)
from skate.runtime.worker.arguments import pack
from skate.runtime.worker.cells import ActorCell, Cell, WeakActorCell
from skate.runtime.worker.links import FLUSH_AT
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.record import NOTHING, Record
from skate.runtime.worker.tasks import cancelled_error, open_stream
from skate.serialization import deserialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer


class ActorSpec(msgspec.Struct, array_like=True):
    """What the worker needs to become an actor; the daemon keeps it as opaque bytes."""

    class_payload: bytes
    class_name: str
    #: What ``find_actor`` returns, for the actor itself.
    handle: bytes
    arguments: bytes
    slots: list[ArgSlot]
    refs: list[RefGrant]
    chain: list[bytes]
    depth: int
    #: Concurrency groups by name, and how many calls of each run at the same time.
    groups: dict[str, int] = {}
    #: Calls run on an event loop.
    asynchronous: bool = False


spec_encoder = msgspec.msgpack.Encoder()
spec_decoder = msgspec.msgpack.Decoder(ActorSpec)


class ActorClient:
    """One actor as seen by one caller: a queue of calls and what is in flight, in order."""

    __slots__ = (
        "actor_id",
        "cause",
        "core",
        "error",
        "group_id",
        "in_flight",
        "keeps",
        "kind",
        "max_task_retries",
        "name",
        "peer",
        "queue",
        "restarts",
        "state",
        "unready",
        "worker_id",
    )

    def __init__(self, core: Core, actor_id: bytes) -> None:
        self.core = core
        self.actor_id = actor_id
        self.name = ""
        self.state = "pending"
        self.peer: Peer | None = None
        self.worker_id = b""
        self.restarts = -1
        self.queue: deque[Record] = deque()
        #: Calls whose arguments are not ready and that let others pass.
        self.unready: dict[bytes, Record] = {}
        self.in_flight: dict[bytes, Record] = {}
        self.cause = ""
        #: The placement group of an actor made here.
        self.group_id = b""
        #: As in ``WorkerDied``.
        self.kind = ""
        #: The serialized exception of a constructor that raised.
        self.error: bytes | None = None
        self.max_task_retries = 0
        #: The constructor's arguments, of an actor made here that is not restarted.
        self.keeps: list[Any] | None = None

    # All of these run with the lock held.

    def add(self, record: Record) -> None:
        """Queue a call and send what can be sent."""
        if record.waiting and record.options.out_of_order:
            self.unready[record.task_id] = record
            if self.state == "dead":
                self.fail_queue()
            return
        self.queue.append(record)
        self.advance()

    def advance(self, ready: Record | None = None) -> None:
        """Send calls in order, up to the first whose arguments are not ready.

        ``ready``: the arguments of this one have just become so.
        """
        if ready is not None and self.unready.pop(ready.task_id, None) is not None:
            self.queue.append(ready)
        if self.state != "alive":
            if self.state == "dead":
                self.fail_queue()
            return
        core = self.core
        peer = self.peer
        if peer is None or peer.connection is None:
            return
        idle = not self.in_flight
        sent = False
        queue = self.queue
        while queue:
            record = queue[0]
            if record.failed_argument is not None:
                queue.popleft()
                core.submitter.finish_failed(record, record.failed_argument)
                continue
            if record.waiting:
                break
            queue.popleft()
            self.in_flight[record.task_id] = record
            core.prepare(record, peer.process_id)
            core.links.send(peer, record.task)
            sent = True
        if not sent:
            return
        if idle or peer.queued >= FLUSH_AT:
            core.links.flush_peer(peer)
        else:
            core.pump.nudge()

    def check_pending(self, limit: int, method: str) -> None:
        """Refuse a call if too many of this process have not finished.

        Raises:
            PendingCallsLimitExceeded: there are ``limit`` of them.
        """
        pending = len(self.queue) + len(self.unready) + len(self.in_flight)
        if pending >= limit:
            raise PendingCallsLimitExceeded(
                f"{method}() was not called: {pending} calls of {self.name or 'the actor'} (actor"
                f" {self.actor_id.hex()}) by this process have not finished, and"
                f" max_pending_calls={limit}. Wait for some of them first (skate.wait)."
            )

    def answered(self, record: Record) -> None:
        """A call has come back."""
        self.in_flight.pop(record.task_id, None)

    def discard(self, record: Record) -> None:
        """Take a call off the queue if it is there."""
        if self.unready.pop(record.task_id, None) is None and record in self.queue:
            self.queue.remove(record)
            self.advance()

    def peer_of(self, record: Record) -> Peer | None:
        """Return where a call runs, if it was sent."""
        return self.peer if record.task_id in self.in_flight else None

    def died_error(self) -> bytes:
        """Return the exception for calls on a dead actor."""
        name = self.name or "the actor"
        actor_id = self.actor_id.hex()
        if self.kind == ENVIRONMENT_KIND:
            text = f"{name} (actor {actor_id}) could not be started: {self.cause}"
            return self.core.error(RuntimeEnvSetupError(text))
        if self.error is not None:
            error = deserialize(self.error)
            if isinstance(error, TaskError):
                return self.core.error(
                    ActorDiedError.in_constructor(name, error, actor_id=actor_id)
                )
        kind = self._death(self.kind)
        return self.core.error(
            kind(f"{name} (actor {actor_id}) is dead: {self.cause}", actor_id=actor_id)
        )

    @staticmethod
    def _death(kind: str) -> type[ActorError]:
        if kind == NO_NODE_KIND:
            return ActorUnschedulableError
        return ActorPlacementGroupRemovedError if kind == REMOVED_KIND else ActorDiedError

    def fail_queue(self) -> None:
        """No call will be sent any more."""
        if self.unready:
            self.queue.extend(self.unready.values())
            self.unready.clear()
        if self.queue:
            error = self.died_error()
            while self.queue:
                self.core.submitter.finish_failed(self.queue.popleft(), error)

    def update(self, message: ActorState) -> None:
        """The daemon has told a new state."""
        if self.state == "dead":
            return
        # A process may die and be replaced before we hear of either: what was in flight to
        # another life of the actor is lost all the same.
        if message.state != "alive" or message.worker_id != self.worker_id:
            self.lose_in_flight(message)
        self.cause = message.cause or self.cause
        self.error = message.error
        self.kind = message.kind
        self.state = message.state
        self.max_task_retries = message.max_task_retries
        self.restarts = message.restarts
        if message.state == "alive":
            self.worker_id = message.worker_id
            self.peer = self.core.links.peer(message.worker_id, message.worker_address)
            if self.peer.dead:
                # It is about to be reported dead, or ended; calls wait for what comes then.
                self.peer = None
            self.advance()
        elif message.state == "dead":
            self.fail_queue()

    def may_retry(self, record: Record) -> bool:
        """Whether a call that a dead process had may be sent to the next one."""
        limit = self.max_task_retries if record.retries is None else record.retries
        return limit < 0 or record.task.attempt < limit

    def lose_in_flight(self, message: ActorState) -> None:
        """Calls that a dead process had: send them again if they may be, fail the others."""
        records = list(self.in_flight.values())
        self.in_flight.clear()
        again: list[Record] = []
        submitter = self.core.submitter
        for record in records:
            if record.cancelled:
                submitter.finish_failed(record, self.core.error(cancelled_error(record)))
                continue
            if record.overdue is not None:
                submitter.pending.pop(record.task_id, None)
                submitter.end_overdue(record)
                continue
            if message.state != "dead" and self.may_retry(record):
                record.task.attempt += 1
                again.append(record)
                continue
            actor_id = self.actor_id.hex()
            cause = message.cause or self.cause or "its process died"
            text = (
                f"{self.name or 'the actor'} (actor {actor_id}) died before it had answered"
                f" {record.task.method}(): {cause}"
            )
            error = (
                self._death(message.kind)(text, actor_id=actor_id)
                if message.state == "dead"
                else ActorUnavailableError(
                    f"{text}; the actor is being restarted", actor_id=actor_id
                )
            )
            self.core.submitter.finish_failed(record, self.core.error(error))
        self.queue.extendleft(reversed(again))
        self.peer = None


class Actors:
    """All actors that this process has handles of."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._clients: dict[bytes, ActorClient] = {}
        #: Actors that end with this process.
        self.owned: set[bytes] = set()

    def client(self, actor_id: bytes) -> ActorClient:
        """Locked.  Return the client of an actor, asking the daemon for its state if it is new."""
        client = self._clients.get(actor_id)
        if client is None:
            client = self._clients[actor_id] = ActorClient(self.core, actor_id)
            self.core.links.send_node(WatchActor(actor_id))
        return client

    def create(
        self,
        code: Code,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        handle: bytes,
    ) -> Cell:
        """Start an actor; see ``Engine.create_actor``."""
        core = self.core
        payload = code.payload
        environment = core.environments.of(options)
        data, slot_cells, nested = pack(core, args, kwargs)
        running = core.executing
        namespace = options.namespace if options.namespace is not None else core.namespace
        strategy = options.strategy if options.strategy is not None else core.captured
        if strategy is not None:
            strategy.check_fits(options.resources)
        with core.lock:
            core.check_open()
            actor_id = core.ids.draw()
            cell = ActorCell(actor_id, core.address, core.finalized, options.detached)
            cell.keeps = [*slot_cells, *nested]
            client = ActorClient(core, actor_id)
            client.name = options.name or code.name
            client.max_task_retries = options.max_task_retries
            if strategy is not None:
                client.group_id = strategy.group_id
            if options.max_restarts == 0:
                client.keeps = cell.keeps
            self._clients[actor_id] = client
            if not options.detached:
                self.owned.add(actor_id)
            task = Task(actor_id, b"", data, 0, [], [], [], 0, "", actor_id, "", 0)
            record = Record(task, [])
            record.slot_cells = slot_cells
            record.nested = nested
            record.kept = None
            spec = ActorSpec(
                payload,
                code.name,
                handle,
                data,
                [],
                [],
                running.chain if running is not None else [],
                running.depth + 1 if running is not None else 0,
                options.concurrency_groups,
                options.asynchronous,
            )
            message = CreateActor(
                actor_id,
                code.name,
                options.name,
                namespace,
                options.resources,
                options.max_restarts,
                options.max_concurrency,
                b"",
                handle,
                options.detached,
                spec.depth,
                options.max_task_retries,
                environment,
                strategy,
            )

            def send(resolved: Record) -> None:
                if resolved.failed_argument is not None:
                    client.state = "dead"
                    client.error = resolved.failed_argument
                    client.fail_queue()
                    # For those to whom the handle was passed on.
                    core.links.send_node(ActorStarted(actor_id, resolved.failed_argument))
                    core.pump.nudge()
                    return
                # Borrows of actors are counted by the actor itself: who it will be is not known
                # yet, and this cell keeps the arguments until it is gone.
                core.prepare(resolved, None)
                spec.slots = resolved.task.slots
                spec.refs = resolved.task.refs
                message.spec = spec_encoder.encode(spec)
                core.links.send_node(message)
                core.pump.nudge()

            if record.slot_cells:
                core.resolve_arguments(record, send)
            else:
                send(record)
            core.links.flush()
        if options.name:
            self._await_name(client, options.name, namespace)
        return cell

    def _await_name(self, client: ActorClient, name: str, namespace: str) -> None:
        """Wait until the daemon has entered the actor's name, or refused it."""
        waiter = Waiter(1)

        def look() -> bool:
            waiter.done = client.restarts >= 0 or client.state == "dead"
            return waiter.done

        self.core.pump.any_waiters.append(waiter)
        try:
            look()
            self.core.block(waiter, None, look)
        finally:
            self.core.pump.any_waiters.remove(waiter)
        if client.state == "dead" and client.error is None and "exists" in client.cause:
            raise ActorAlreadyExistsError(client.cause)

    def call(
        self,
        actor: Cell,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> list[Any]:
        """Call a method; see ``Engine.submit_call``."""
        core = self.core
        data, slot_cells, nested = pack(core, args, kwargs)
        running = core.executing
        actor_id = actor.object_id
        with core.lock:
            core.check_open()
            client = self._clients.get(actor_id)
            if client is None:
                client = self.client(actor_id)
            if options.max_pending_calls:
                client.check_pending(options.max_pending_calls, method)
            task_id, cells = core.new_cells(options.num_returns)
            task = Task(
                task_id,
                b"",
                data,
                options.num_returns,
                NOTHING,
                NOTHING,
                running.chain if running is not None else NOTHING,
                running.depth + 1 if running is not None else 0,
                options.name,
                actor_id,
                method,
                0,
            )
            record = Record(task, cells)
            record.options = options
            record.home = client
            record.kept = actor
            if options.num_returns < 0:
                stream = open_stream(core, record, options.generator_backpressure)
            if options.timeout_s:
                record.terms().announce = True
            if options.concurrency_group:
                record.terms().group = options.concurrency_group
            # None: what the actor was made with, which this process may not know yet.
            record.retries = options.max_task_retries
            if running is not None:
                record.parent = running.task_id
            core.submitter.pending[task_id] = record
            if slot_cells or nested:
                record.slot_cells = slot_cells
                record.nested = nested
                core.resolve_arguments(record, client.advance)
            client.add(record)
        core.pump.activity += 1
        if core.pump.interrupted:
            core.pump.safe_point()
        if options.num_returns == STREAMING:
            return [ObjectRefGenerator(stream)]
        return [ObjectRef(cell) for cell in cells]

    def find(self, name: str, namespace: str | None) -> tuple[Cell, bytes] | None:
        """Look an actor up by name; see ``Engine.find_actor``."""
        core = self.core
        wanted = namespace if namespace is not None else core.namespace
        answer: NamedActor = core.ask(lambda number: GetNamedActor(number, name, wanted))
        if not answer.actor_id:
            return None
        return WeakActorCell(answer.actor_id, ""), answer.handle

    def kill(self, actor: Cell, no_restart: bool) -> None:
        """End an actor's process; see ``Engine.kill_actor``."""
        core = self.core
        with core.lock:
            core.links.send_node(KillActor(actor.object_id, no_restart, graceful=False))
            core.links.flush()
            client = self.client(actor.object_id)
            if not no_restart and client.state == "alive":
                # Calls from now on are for the next life, which the daemon will announce.
                client.update(
                    ActorState(
                        actor.object_id,
                        "restarting",
                        b"",
                        "",
                        0,
                        client.restarts,
                        "killed by skate.kill",
                        max_task_retries=client.max_task_retries,
                    )
                )
            if no_restart and client.state != "dead":
                self._bury(client, "killed by skate.kill")

    @staticmethod
    def _bury(client: ActorClient, cause: str, kind: str = "") -> None:
        client.update(
            ActorState(client.actor_id, "dead", b"", "", 0, client.restarts, cause, None, 0, kind)
        )

    def group_removed(self, group_id: bytes, cause: str) -> None:
        """Locked.  A placement group has ended: calls from now on are for the dead."""
        for client in self._clients.values():
            if client.group_id == group_id and client.state != "dead":
                self._bury(client, f"its placement group is gone: {cause}", REMOVED_KIND)

    def on_state(self, message: ActorState) -> None:
        """Locked.  The daemon tells the state of an actor that we watch."""
        client = self._clients.get(message.actor_id)
        if client is not None:
            client.update(message)
            self.core.pump.completions += 1
            if client.keeps is not None and message.state in ("alive", "dead"):
                # It borrows what it needs by now, and will not be constructed again.
                client.keeps.clear()
                client.keeps = None

    def forget(self, actor_id: bytes) -> None:
        """Locked.  Our last handle is gone."""
        self._clients.pop(actor_id, None)
        self.owned.discard(actor_id)

    def fail_all(self, cause: str) -> None:
        """Locked.  The session is over."""
        for client in self._clients.values():
            client.cause = client.cause or cause
            client.state = "dead"
            client.fail_queue()
