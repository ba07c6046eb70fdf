"""The worker's side: run what callers push, in order, in the main thread, and answer in batches."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.exceptions import TaskCancelledError, TaskError
from skate.ids import nth
from skate.runtime.wire.messages import (
    ActorStarted,
    BeginLease,
    Blocked,
    Cancel,
    DefineFunction,
    RefGrant,
    Reply,
    ReplyValues,
    Resumed,
    Returned,
    StartActor,
    Steal,
    Task,
    TaskFailed,
    Unblocked,
    Value,
)
from skate.runtime.worker.actors import spec_decoder
from skate.runtime.worker.cells import PENDING
from skate.runtime.worker.objects import INLINE_MAX
from skate.runtime.worker.output import NamedOutput
from skate.runtime.worker.pump import Waiter
from skate.serialization import (
    deserialize,
    deserialize_arguments,
    fill_slots,
    loads_code,
    serialize,
)

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: Finished replies are sent when they have waited this many seconds, even if tasks are queued.
REPLY_DELAY = 0.001


class Running:
    """The call that a thread executes, for those it submits and for ``get_runtime_context``."""

    __slots__ = ("blocked_seconds", "chain", "depth", "name", "peer", "task", "task_id")

    def __init__(self, task: Task, peer: Peer | None) -> None:
        self.task = task
        #: Who called; None for a constructor.
        self.peer = peer
        self.task_id = task.task_id
        self.name = task.name
        self.depth = task.depth
        #: The chain of the calls that this one makes.
        self.chain = [*task.chain, task.task_id] if task.actor_id else task.chain
        self.blocked_seconds = 0.0


class Executor:
    """Runs tasks, or one actor."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._queue: deque[tuple[Task, Peer] | Callable[[], None]] = deque()
        self._functions: dict[bytes, tuple[str, bytes, Any]] = {}
        self._idle: Waiter | None = None
        #: Stack of calls of the main thread: more than one when re-entrant calls run.
        self._stack: list[Running] = []
        self._main = threading.get_ident()
        #: Callers that were told that we block.
        self._told: set[Peer] = set()
        self._blocked = False
        self._cancelling: bytes | None = None
        self._flushed_at = 0.0
        self._exiting = False
        self.actor: Any = None
        self.actor_id = b""
        self.actor_name = ""
        self.actor_class = ""
        self.actor_handle = b""
        self.restarts = 0
        self.resources: dict[str, float] = {}
        self.gpu_ids: list[int] = []
        #: Standard output and error of this process.
        self.outputs: tuple[NamedOutput, ...] = ()

    # ------------------------------------------------------------------ messages (locked)

    def on_begin_lease(self, _peer: Peer, message: BeginLease) -> None:
        """Locked.  The caller's next tasks run under this lease."""
        self._queue.append(lambda: self._begin(message.resources, message.gpu_ids))
        self._notify()

    def _begin(self, resources: dict[str, float], gpu_ids: list[int]) -> None:
        self.resources = resources
        self.gpu_ids = gpu_ids
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpu_ids))

    def on_define(self, _peer: Peer, message: DefineFunction) -> None:
        """Locked.  A function that tasks will call."""
        if message.function_id not in self._functions:
            self._functions[message.function_id] = (message.name, message.payload, None)

    def on_task(self, peer: Peer, task: Task) -> None:
        """Locked.  A task or an actor call."""
        if self._blocked and not task.actor_id:
            self._told.add(peer)
            self._hand_back(peer, [task], True)
            return
        self._queue.append((task, peer))
        self._notify()

    def _notify(self) -> None:
        idle = self._idle
        if idle is not None:
            idle.on_ready()

    def on_start_actor(self, message: StartActor) -> None:
        """Locked.  The daemon wants this worker to become an actor."""
        self._queue.append(lambda: self._start_actor(message))
        self._notify()

    def on_exit(self) -> None:
        """Locked.  Finish what is queued, then exit."""
        self._queue.append(self._exit)
        self._notify()

    def _exit(self) -> None:
        self._exiting = True

    def on_steal(self, peer: Peer, message: Steal) -> None:
        """Locked.  The caller wants tasks back that have not started, the youngest first."""
        taken: list[Task] = []
        kept: list[Any] = []
        while self._queue and len(taken) < message.count:
            item = self._queue.pop()
            if isinstance(item, tuple) and item[1] is peer and not item[0].actor_id:
                taken.append(item[0])
            else:
                kept.append(item)
        self._queue.extend(reversed(kept))
        taken.reverse()
        self._hand_back(peer, taken, self._blocked)

    def _hand_back(self, peer: Peer, tasks: list[Task], blocked: bool) -> None:
        for task in tasks:
            self._decline(task)
        core = self.core
        core.links.send(peer, Returned([task.task_id for task in tasks], blocked))
        core.pump.nudge()

    def _decline(self, task: Task) -> None:
        """Take the refs of a task that will not run here, and drop them at once."""
        objects = self.core.objects
        objects.accept_all(task.refs)
        for slot in task.slots:
            if slot.value.location is not None:
                objects.accept(slot.object_id, slot.owner_address)
            objects.accept_all(slot.value.refs)

    def on_cancel(self, peer: Peer, message: Cancel) -> None:
        """Locked.  Drop a queued task, or interrupt the running one."""
        for item in self._queue:
            if isinstance(item, tuple) and item[0].task_id == message.task_id:
                self._queue.remove(item)
                self._decline(item[0])
                self._reply_cancelled(item[0], peer, 0)
                return
        if not any(running.task_id == message.task_id for running in self._stack):
            return
        if message.force:
            os.kill(os.getpid(), signal.SIGKILL)
        self._cancelling = message.task_id
        signal.pthread_kill(self._main, signal.SIGINT)

    def handle_interrupt(self, _signum: int, _frame: object) -> None:
        """SIGINT in a worker: raise KeyboardInterrupt in the task that is being cancelled."""
        if self._cancelling is None or not self._stack:
            return
        if self.core.lock_is_mine():
            self.core.pump.interrupted = KeyboardInterrupt()
            return
        if self._stack[-1].task_id == self._cancelling:
            raise KeyboardInterrupt

    # ------------------------------------------------------------------ the main loop

    def run(self) -> None:
        """Execute what arrives until told to exit."""
        queue = self._queue
        core = self.core
        while not self._exiting:
            if not queue:
                waiter = Waiter(1)
                with core.lock:
                    if queue:
                        continue
                    self._idle = waiter
                core.pump.block(waiter)
                self._idle = None
                continue
            try:
                item = queue.popleft()
            except IndexError:  # stolen meanwhile
                continue
            if isinstance(item, tuple):
                self._execute(*item)
                core.pump.activity += 1
            else:
                core.pump.busy()
                item()
        with core.lock:
            core.links.flush()

    def _execute(self, task: Task, peer: Peer) -> None:
        if task.exact:
            with self.core.lock:
                self.core.links.flush()
        running = Running(task, peer)
        self.core.pump.interrupted = None
        self._stack.append(running)
        started = time.perf_counter()
        try:
            try:
                function = self._function(task, running)
                args, kwargs = self._arguments(task)
                result = function(*args, **kwargs)
                del args, kwargs
            finally:
                self._stack.pop()
            elapsed = time.perf_counter()
            duration = int((elapsed - started - running.blocked_seconds) * 1e6)
            self._reply(task, peer, result, duration, running.name)
        except BaseException as error:
            elapsed = time.perf_counter()
            duration = int((elapsed - started - running.blocked_seconds) * 1e6)
            self._reply_error(task, peer, error, duration, running.name)
            del error
        for output in self.outputs:
            if output.pending:
                output.flush()
        if elapsed - self._flushed_at > REPLY_DELAY:
            self._flushed_at = elapsed
            with self.core.lock:
                self.core.links.flush()

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
        objects = self.core.objects
        values: list[Any] = []
        cells: list[Any] = []
        with self.core.lock:
            held = objects.accept_all(task.refs)
            for slot in task.slots:
                held.extend(objects.accept_all(slot.value.refs))
                cell = None
                if slot.value.location is not None:
                    cell = objects.accept(slot.object_id, slot.owner_address)
                    if cell.status == PENDING:
                        objects.fill(cell, Value(None, slot.value.location))
                cells.append(cell)
        for slot, cell in zip(task.slots, cells, strict=True):
            values.append(
                objects.load(cell) if cell is not None else deserialize(slot.value.data or b"")
            )
        args, kwargs = deserialize_arguments(task.arguments)
        if values:
            args, kwargs = fill_slots(args, kwargs, values)
        del held
        return args, kwargs

    def _name_output(self, name: str) -> None:
        for output in self.outputs:
            output.name = name

    # ------------------------------------------------------------------ answers

    def _reply(self, task: Task, peer: Peer, result: Any, duration: int, name: str) -> None:
        core = self.core
        count = task.num_returns
        if count == 1:
            serialized = serialize(result)
            if not serialized.refs and serialized.size <= INLINE_MAX:
                data = serialized.to_bytes()
                with core.lock:
                    core.links.send(peer, Reply(task.task_id, data, duration))
                return
            values = [core.objects.value_of(serialized, task.task_id, peer.process_id)]
        elif count == 0:
            values = []
        else:
            parts = _split_result(result, count, name)
            values = [
                core.objects.value_of(serialize(part), nth(task.task_id, index), peer.process_id)
                for index, part in enumerate(parts)
            ]
        with core.lock:
            core.links.send(peer, ReplyValues(task.task_id, values, duration))

    def _reply_error(
        self, task: Task, peer: Peer, error: BaseException, duration: int, name: str
    ) -> None:
        if self._cancelling == task.task_id:
            self._cancelling = None
            if isinstance(error, KeyboardInterrupt):
                with self.core.lock:
                    self._reply_cancelled(task, peer, duration)
                return
        if isinstance(error, SystemExit) and task.actor_id:
            # An actor that exits on purpose: the call gets an error, the process ends.
            self._exiting = True
        failure = TaskError.from_exception(name, error, os.getpid(), self.core.node_id.hex())
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        payload = self.core.error(failure)
        # The traceback refers to the task's frames, and they to its arguments.
        traceback.clear_frames(error.__traceback__)
        with self.core.lock:
            self.core.links.send(peer, TaskFailed(task.task_id, payload, kinds, False, duration))

    def _reply_cancelled(self, task: Task, peer: Peer, duration: int) -> None:
        name = task.name or task.method
        if not name and task.function_id in self._functions:
            name = self._functions[task.function_id][0]
        payload = self.core.error(TaskCancelledError(f"{name}() was cancelled"))
        self.core.links.send(peer, TaskFailed(task.task_id, payload, [], True, duration))
        self.core.pump.nudge()

    # ------------------------------------------------------------------ actors

    def _start_actor(self, message: StartActor) -> None:
        core = self.core
        spec = spec_decoder.decode(message.spec)
        self.actor_id = message.actor_id
        self.actor_name = message.name
        self.actor_class = spec.class_name
        self.actor_handle = spec.handle
        self.restarts = message.restarts
        self._begin(message.resources, message.gpu_ids)
        self._name_output(spec.class_name)
        task = Task(
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
        failure: bytes | None = None
        self._stack.append(Running(task, None))
        try:
            with core.lock:
                # Nobody counted these refs for us, see ``Actors.create``.
                grants = list(spec.refs)
                for slot in spec.slots:
                    grants.extend(slot.value.refs)
                    if slot.value.location is not None:
                        grants.append(RefGrant(slot.object_id, slot.owner_address))
                held = [core.objects.borrow(grant) for grant in grants]
                core.links.flush()
            # The creator lets go of the arguments when it hears that the actor is alive.
            for grant in grants:
                core.objects.await_borrowed(grant.object_id)
            cls = loads_code(spec.class_payload)
            args, kwargs = self._constructor_arguments(task)
            del held
            self.actor = cls(*args, **kwargs)
        except BaseException as error:
            failure = core.error(
                TaskError.from_exception(task.name, error, os.getpid(), core.node_id.hex())
            )
        finally:
            self._stack.pop()
        with core.lock:
            core.links.send_node(ActorStarted(message.actor_id, failure))
            core.links.flush()

    def _constructor_arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        objects = self.core.objects
        values: list[Any] = []
        for slot in task.slots:
            if slot.value.location is None:
                values.append(deserialize(slot.value.data or b""))
                continue
            cell = objects.resolve(slot.object_id, slot.owner_address)
            with self.core.lock:
                if cell.status == PENDING:
                    objects.fill(cell, Value(None, slot.value.location))
            values.append(objects.load(cell))
        args, kwargs = deserialize_arguments(task.arguments)
        return fill_slots(args, kwargs, values) if values else (args, kwargs)

    # ------------------------------------------------------------------ blocking

    @property
    def running(self) -> Running | None:
        """The call that the current thread, or failing that the main thread, executes."""
        stack = self._stack
        return stack[-1] if stack else None

    def block(
        self, waiter: Waiter, deadline: float | None, step: Callable[[], bool] | None
    ) -> bool:
        """Wait inside a task: give the CPU back, hand back queued tasks, run re-entrant calls."""
        core = self.core
        if threading.get_ident() != self._main or not self._stack:
            return core.pump.block(waiter, deadline, step)
        started = time.perf_counter()
        running = self._stack[-1]
        outermost = not self._blocked
        if outermost:
            with core.lock:
                self._blocked = True
                self._return_queued()
                core.links.send_node(Blocked())

        def turn() -> bool:
            if step is not None and step():
                return True
            return bool(self._queue) and self._reentrant() is not None

        try:
            while not waiter.done:
                if self._queue:
                    self._run_reentrant()
                core.pump.block(waiter, deadline, turn)
                if deadline is not None and time.monotonic() >= deadline:
                    break
            return waiter.done
        finally:
            running.blocked_seconds += time.perf_counter() - started
            if outermost:
                with core.lock:
                    self._blocked = False
                    core.links.send_node(Resumed())
                    for peer in self._told:
                        core.links.send(peer, Unblocked())
                    self._told.clear()
                core.pump.nudge()

    def _return_queued(self) -> None:
        """Locked.  Hand tasks queued behind a blocked one back to their callers."""
        tasks: dict[Peer, list[Task]] = {}
        kept: list[Any] = []
        for item in self._queue:
            if isinstance(item, tuple) and not item[0].actor_id:
                tasks.setdefault(item[1], []).append(item[0])
            else:
                kept.append(item)
        self._queue.clear()
        self._queue.extend(kept)
        # The caller of the blocked task itself has to stop pushing, too.
        callers = set(tasks)
        callers.update(
            running.peer
            for running in self._stack
            if running.peer is not None and not running.task.actor_id
        )
        for peer in callers:
            self._told.add(peer)
            self._hand_back(peer, tasks.get(peer, []), True)

    def _reentrant(self) -> tuple[Task, Peer] | None:
        """Return a queued call that the blocked ones wait for."""
        waiting = {running.task_id for running in self._stack}
        for item in list(self._queue):
            if isinstance(item, tuple) and not waiting.isdisjoint(item[0].chain):
                return item
        return None

    def _run_reentrant(self) -> None:
        """Run calls that the blocked ones wait for, each after those of its caller before it."""
        while (found := self._reentrant()) is not None:
            earlier: list[tuple[Task, Peer]] = []
            with self.core.lock:
                for item in list(self._queue):
                    if isinstance(item, tuple) and item[1] is found[1]:
                        earlier.append(item)
                        self._queue.remove(item)
                    if item is found:
                        break
            for task, peer in earlier:
                self._execute(task, peer)


def _split_result(result: Any, count: int, name: str) -> list[Any]:
    try:
        parts = list(result)
    except TypeError:
        raise ValueError(
            f"{name} has num_returns={count} but returned {type(result).__name__}, not a sequence"
        ) from None
    if len(parts) != count:
        raise ValueError(f"{name} has num_returns={count} but returned {len(parts)} values")
    return parts


def flush_output() -> None:
    """Write out what user code has printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
