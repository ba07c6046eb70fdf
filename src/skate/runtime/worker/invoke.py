"""One call in a worker: find the function, bring the arguments, call, answer."""

from __future__ import annotations

import contextvars
import os
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.exceptions import SkateError, TaskCancelledError, TaskError
from skate.ids import nth
from skate.runtime.wire.connection import MAX_PAYLOAD
from skate.runtime.wire.messages import (
    ActorStarted,
    DefineFunction,
    RefGrant,
    Reply,
    ReplyValues,
    StartActor,
    StreamEnded,
    Task,
    TaskFailed,
    Value,
)
from skate.runtime.worker.actors import ActorSpec
from skate.runtime.worker.objects import INLINE_MAX, failure
from skate.runtime.worker.output import NamedOutput
from skate.serialization import (
    Serialized,
    deserialize,
    deserialize_arguments,
    fill_slots,
    loads_code,
    serialize,
)

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer


class Running:
    """The call that a thread executes, for those it submits and for ``get_runtime_context``."""

    __slots__ = (
        "blocked",
        "blocked_seconds",
        "chain",
        "depth",
        "link",
        "name",
        "peer",
        "started",
        "task",
        "task_id",
        "thread",
    )

    def __init__(self, task: Task, peer: Peer | None, stack: Sequence[Running]) -> None:
        self.task = task
        #: Who called; None for a constructor.
        self.peer = peer
        self.task_id = task.task_id
        self.name = task.name
        self.depth = task.depth
        #: This call in chains: of which actor, and which call.
        self.link = task.actor_id + task.task_id
        #: The chain of the calls that this one makes.  Earlier calls of the same actor have ended
        #: unless they are on the stack; without leaving them out the chain of an actor that calls
        #: itself again and again would grow for ever.
        self.chain = task.chain
        if task.actor_id:
            actor_id = task.actor_id
            waiting = {running.link for running in stack}
            kept = [link for link in task.chain if link[:16] != actor_id or link in waiting]
            self.chain = [*kept, self.link]
        self.blocked_seconds = 0.0
        #: When it began, by ``perf_counter``.
        self.started = 0.0
        #: It waits in ``get`` or ``wait``.
        self.blocked = False
        #: The thread that runs it; 0: the main thread.
        self.thread = 0


#: What runs in this thread of a threaded actor, or in this call of an async one.
current_call: contextvars.ContextVar[Running | None] = contextvars.ContextVar(
    "current_call", default=None
)


def group_of(task: Task) -> str:
    """Return the concurrency group of a call, "" for the default one."""
    return task.terms.group if task.terms is not None else ""


class Invoker:
    """The functions that callers have sent, or the actor that this process is."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._functions: dict[bytes, tuple[str, bytes, Any]] = {}
        self.actor: Any = None
        self.actor_id = b""
        self.actor_name = ""
        self.actor_class = ""
        self.actor_handle = b""
        self.restarts = 0
        #: Standard output and error of this process.
        self.outputs: tuple[NamedOutput, ...] = ()

    def define(self, message: DefineFunction) -> None:
        """Keep a function that tasks will call; it is unpickled when the first one does."""
        if message.function_id not in self._functions:
            self._functions[message.function_id] = (message.name, message.payload, None)

    def _name_output(self, name: str) -> None:
        for output in self.outputs:
            output.name = name

    def flush_output(self) -> None:
        """Send lines that a task has begun and not ended."""
        for output in self.outputs:
            if output.pending:
                output.flush()

    # ------------------------------------------------------------------ the call

    def call(self, running: Running) -> Any:
        """Call what the task names and return its result."""
        task = running.task
        function = self._function(task, running)
        args, kwargs = self._arguments(task)
        return function(*args, **kwargs)

    async def call_on_loop(self, running: Running) -> Any:
        """Do the same on an event loop, which goes on while arguments are brought here."""
        task = running.task
        function = self._function(task, running)
        cells, held = self._cells(task)
        values = [None if cell is None else await self.core.awaiting.future(cell) for cell in cells]
        args, kwargs = self._fill(task, values)
        del held
        return function(*args, **kwargs)

    def _function(self, task: Task, running: Running) -> Any:
        if task.actor_id:
            method = task.method
            running.name = running.name or f"{self.actor_class}.{method}"
            if task.actor_id != self.actor_id or self.actor is None:
                raise RuntimeError("this process does not hold the actor that was called")
            if method == "__ray_ready__":
                return lambda: True
            return getattr(self.actor, method)
        name, payload, function = self._functions[task.function_id]
        running.name = running.name or name
        self._name_output(running.name)
        if function is None:
            function = loads_code(payload)
            self._functions[task.function_id] = (name, b"", function)
        return function

    def _arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not task.slots and not task.refs:
            return deserialize_arguments(task.arguments)
        cells, held = self._cells(task)
        filled = self._fill(task, self._load(cells))
        del held
        return filled

    def _load(self, cells: list[Any]) -> list[Any]:
        load = self.core.objects.load
        return [None if cell is None else load(cell) for cell in cells]

    def _cells(self, task: Task) -> tuple[list[Any], list[Any]]:
        """Return a cell for each slot whose value is not in it, None for the others, and cells to
        keep until the arguments are unpickled."""
        objects, ownership = self.core.objects, self.core.ownership
        cells: list[Any] = []
        with self.core.lock:
            held = ownership.accept_all(task.refs)
            for slot in task.slots:
                if slot.value.data is None:
                    cell = ownership.accept(slot.object_id, slot.owner_address)
                    if slot.value.location is not None:
                        objects.fill(cell, slot.value)
                    cells.append(cell)
                else:
                    held.extend(ownership.accept_all(slot.value.refs))
                    cells.append(None)
        return cells, held

    def _fill(self, task: Task, loaded: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Unpickle the arguments; ``loaded`` has the values of those slots that have cells."""
        values = [
            value if slot.value.data is None else value_in(slot.value)
            for slot, value in zip(task.slots, loaded, strict=True)
        ]
        args, kwargs = deserialize_arguments(task.arguments)
        return fill_slots(args, kwargs, values) if values else (args, kwargs)

    # ------------------------------------------------------------------ the answer

    def reply_at_once(
        self, task: Task, peer: Peer, result: Any, duration: int, name: str
    ) -> list[Serialized] | None:
        """Send what a task returned if it is small; of a generator, how many items it had.

        Other results are returned, for ``reply_values``.

        Raises:
            SerializationError: it cannot be pickled.
            ValueError: it is not ``num_returns`` values.
        """
        core = self.core
        count = task.num_returns
        if count == 1:
            serialized = serialize(result)
            if serialized.refs or serialized.size > INLINE_MAX:
                return [serialized]
            data = serialized.to_bytes()
            with core.lock:
                core.links.send(peer, Reply(task.task_id, data, duration))
            return None
        if count < 0:
            with core.lock:
                core.links.send(peer, StreamEnded(task.task_id, result, duration))
            return None
        return [serialize(part) for part in _split_result(result, count, name)]

    def reply_values(
        self, task: Task, peer: Peer, parts: list[Serialized], duration: int, name: str
    ) -> None:
        """Send large results, results with refs, and several of them.

        Raises:
            ObjectStoreFullError: there is no room.
        """
        value_of = self.core.objects.value_of
        receiver = peer.process_id
        values = [
            value_of(part, nth(task.task_id, index), receiver, name)
            for index, part in enumerate(parts)
        ]
        self._send_values(task, peer, values, duration)

    async def reply_values_on_loop(
        self, task: Task, peer: Peer, parts: list[Serialized], duration: int, name: str
    ) -> None:
        """Do the same on an event loop, which goes on while there is no room."""
        value_of = self.core.objects.value_on_loop
        receiver = peer.process_id
        values = []
        for index, part in enumerate(parts):
            values.append(await value_of(part, nth(task.task_id, index), receiver, name))
        self._send_values(task, peer, values, duration)

    def _send_values(self, task: Task, peer: Peer, values: list[Value], duration: int) -> None:
        with self.core.lock:
            self.core.links.send(peer, ReplyValues(task.task_id, values, duration))

    def reply_error(
        self, task: Task, peer: Peer, error: BaseException, duration: int, name: str
    ) -> None:
        """Send what a task raised."""
        node = self.core.node_id.hex()
        try:
            failure = TaskError.from_exception(name, error, os.getpid(), node)
            payload = self.core.error(failure)
            if len(payload) > MAX_PAYLOAD:
                raise OverflowError(f"it is {len(payload)} bytes large")
        except BaseException as second:  # the code of an exception's class may do anything
            text = f"{type(error).__name__}, which cannot be sent: {type(second).__name__}\n"
            payload = self.core.error(TaskError(name, text, pid=os.getpid(), node=node))
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        # The traceback refers to the task's frames, and they to its arguments.
        traceback.clear_frames(error.__traceback__)
        with self.core.lock:
            self.core.links.send(peer, TaskFailed(task.task_id, payload, kinds, False, duration))

    def reply_failed(self, task: Task, peer: Peer, error: SkateError, duration: int) -> None:
        """Send an exception of ours instead of a result."""
        payload = self.core.error(error)
        with self.core.lock:
            self.core.links.send(peer, TaskFailed(task.task_id, payload, [], False, duration))

    def reply_cancelled(self, task: Task, peer: Peer, duration: int) -> None:
        """Say that a task was cancelled."""
        name = task.name or task.method
        if not name and task.function_id in self._functions:
            name = self._functions[task.function_id][0]
        payload = self.core.error(TaskCancelledError(f"{name}() was cancelled"))
        with self.core.lock:
            self.core.links.send(peer, TaskFailed(task.task_id, payload, [], True, duration))
            self.core.pump.nudge()

    # ------------------------------------------------------------------ actors

    def become(self, message: StartActor, spec: ActorSpec) -> Task:
        """Take on an actor's identity; return the call of its constructor."""
        self.actor_id = message.actor_id
        self.actor_name = message.name
        self.actor_class = spec.class_name
        self.actor_handle = spec.handle
        self.restarts = message.restarts
        self._name_output(spec.class_name)
        return Task(
            message.actor_id,
            b"",
            spec.arguments,
            0,
            spec.slots,
            spec.refs,
            spec.chain,
            spec.depth,
            f"{spec.class_name}.__init__",
            message.actor_id,
            "__init__",
            message.restarts,
        )

    def construct(self, task: Task, spec: ActorSpec) -> None:
        """Run the actor's constructor."""
        core = self.core
        objects, ownership = core.objects, core.ownership
        cells: list[Any] = []
        with core.lock:
            # Nobody counted these refs for us, see ``Actors.create``.
            grants = list(spec.refs)
            for slot in spec.slots:
                grants.extend(slot.value.refs)
                if slot.value.data is None:
                    grants.append(RefGrant(slot.object_id, slot.owner_address))
            held = [ownership.borrow(grant) for grant in grants]
            for slot in spec.slots:
                if slot.value.data is not None:
                    cells.append(None)
                    continue
                cell = ownership.find(slot.object_id, slot.owner_address)
                if slot.value.location is not None:
                    objects.fill(cell, Value(None, slot.value.location))
                cell.contained = [
                    ownership.find(grant.object_id, grant.owner_address)
                    for grant in slot.value.refs
                ]
                cells.append(cell)
            core.links.flush()
        # The creator lets go of the arguments when it hears that the actor is alive.
        for grant in grants:
            ownership.await_borrowed(grant.object_id)
        cls = loads_code(spec.class_payload)
        args, kwargs = self._fill(task, self._load(cells))
        del held
        self.actor = cls(*args, **kwargs)

    def report_start(self, actor_id: bytes, error: BaseException | None) -> None:
        """Tell the daemon how the constructor ended."""
        core = self.core
        failure = None
        if error is not None:
            name = f"{self.actor_class}.__init__"
            failure = core.error(
                TaskError.from_exception(name, error, os.getpid(), core.node_id.hex())
            )
        with core.lock:
            core.links.send_node(ActorStarted(actor_id, failure))
            core.links.flush()


def value_in(value: Value) -> Any:
    """Return an argument that came with its call, or raise what the object failed with.

    It may have failed after the call was found to be ready: lost with a node, a moment ago.
    """
    assert value.data is not None
    if value.error:
        raise failure(value.data)
    return deserialize(value.data)


def _split_result(result: Any, count: int, name: str) -> list[Any]:
    if count == 0:
        return []
    try:
        parts = list(result)
    except TypeError:
        raise ValueError(
            f"{name} has num_returns={count} but returned {type(result).__name__}, not a sequence"
        ) from None
    if len(parts) != count:
        raise ValueError(f"{name} has num_returns={count} but returned {len(parts)} values")
    return parts
