"""The caller's side of actors: making, finding, calling and killing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from skate.engine.base import STREAMING, ActorOptions, CallOptions, Code
from skate.exceptions import ActorAlreadyExistsError
from skate.generators import ObjectRefGenerator
from skate.refs import ObjectRef
from skate.runtime.wire.messages import (
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
from skate.runtime.worker.actor_client import ActorClient
from skate.runtime.worker.arguments import pack
from skate.runtime.worker.cells import ActorCell, Cell, WeakActorCell
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.record import NOTHING, Record
from skate.runtime.worker.tasks import open_stream

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


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
