"""The worker's side: run what callers push, in order, and answer in batches.

The main thread does it all.  Actors that run several calls at the same time have them run in
threads (``threaded.py``) or on an event loop (``event_loop.py``).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from skate.engine.base import Strategy
from skate.exceptions import ActorDiedError
from skate.runtime.wire.messages import (
    BeginLease,
    DefineFunction,
    KillActor,
    Returned,
    StartActor,
    Steal,
    StillNeeded,
    Task,
    TaskStarted,
)
from skate.runtime.worker.actors import spec_decoder
from skate.runtime.worker.blocking import Blocking
from skate.runtime.worker.cancellation import Cancellation
from skate.runtime.worker.events import describe_error
from skate.runtime.worker.gpus import GPU_VARIABLE, visible_gpus
from skate.runtime.worker.groups import DEFAULT
from skate.runtime.worker.interrupts import ThreadedCall
from skate.runtime.worker.invoke import Invoker, Running, current_call, group_of
from skate.runtime.worker.producer import Producers
from skate.runtime.worker.pump import Waiter
from skate.runtime.worker.retirement import Retirement
from skate.runtime.worker.threaded import ThreadedCalls

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.event_loop import AsyncCalls
    from skate.runtime.worker.links import Peer

#: Finished replies are sent when they have waited this many seconds, even if tasks are queued.
REPLY_DELAY = 0.001


class Executor:
    """Runs tasks, or one actor."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.invoker = Invoker(core)
        self.producers = Producers(core)
        self.blocking = Blocking(self)
        self.retirement = Retirement(self)
        self.cancellation = Cancellation(self)
        self.queue: deque[tuple[Task, Peer] | Callable[[], None]] = deque()
        #: Ends the wait for the next call.
        self._idle: Callable[[], None] | None = None
        self.main = threading.get_ident()
        #: Calls of the main thread: more than one when re-entrant calls run.
        self.stack: list[Running] = []
        #: Runs the calls of an actor that runs several at the same time; which one a piece of code
        #: belongs to is in ``current_call``.
        self.concurrent: ThreadedCalls | AsyncCalls | None = None
        #: The same, if it is an async actor.
        self.async_calls: AsyncCalls | None = None
        #: The main thread has taken a call off the queue and not put it on the stack yet.
        self.popping = False
        self._flushed_at = 0.0
        #: Tasks that arrive are handed back: this process blocks or retires.
        self.refuses_tasks = False
        self.is_exiting = False
        #: Not even the calls that run are waited for.
        self.exits_at_once = False
        #: Looks at what a call has raised before the caller is told; see ``Debugger``.
        self.post_mortem: Callable[[BaseException], None] | None = None
        #: Calls that have a debugger, and what to do when they end.
        self.debugged: dict[Running, Callable[[], None]] = {}
        self.resources: dict[str, float] = {}
        #: The GPUs that the node was given, as it was told of them; None: all there are.
        self._given_gpus = os.environ.get(GPU_VARIABLE)
        self.gpu_ids: list[int | str] = []
        self.strategy: Strategy | None = None

    # ------------------------------------------------------------------ messages (locked)

    def on_begin_lease(self, _peer: Peer, message: BeginLease) -> None:
        """Locked.  The caller's next tasks run under this lease."""
        self.queue.append(lambda: self._begin(message))
        self._notify()

    def _begin(self, held: BeginLease | StartActor) -> None:
        """What runs from now on holds this."""
        strategy = held.strategy
        self.resources = held.resources
        self.gpu_ids = visible_gpus(held.gpu_ids, self._given_gpus)
        self.strategy = strategy
        self.core.captured = None if strategy is None else strategy.inherited()
        if not self.core.environments.sets_devices:
            os.environ[GPU_VARIABLE] = ",".join(map(str, self.gpu_ids))

    def on_define(self, _peer: Peer, message: DefineFunction) -> None:
        """Locked.  A function that tasks will call."""
        self.invoker.define(message)

    def on_task(self, peer: Peer, task: Task) -> None:
        """Locked.  A task or an actor call."""
        if self.refuses_tasks and not task.actor_id:
            if self.retirement.begun:
                self.retirement.refuse(peer, [task])
            else:
                self.blocking.refuse(peer, task)
            return
        self.queue.append((task, peer))
        self._notify()

    def _notify(self) -> None:
        idle = self._idle
        if idle is not None:
            idle()
            return
        waiter = self.core.pump.main_waiter
        if waiter is not None:
            # It may have to run this within the call that waits, and another thread may be pumping.
            waiter.wake()

    def on_start_actor(self, message: StartActor) -> None:
        """Locked.  The daemon wants this worker to become an actor."""
        self.queue.append(lambda: self._start_actor(message))
        self._notify()

    def on_exit(self) -> None:
        """Locked.  Finish what is queued, then exit; but not while others need this process."""
        if not self.invoker.actor_id and self.core.is_needed:
            self.core.links.send_node(StillNeeded())
            return
        self.queue.append(self._exit)
        self._notify()

    def _exit(self) -> None:
        self.is_exiting = True

    def on_steal(self, peer: Peer, message: Steal) -> None:
        """Locked.  The caller wants tasks back that have not started, the youngest first."""
        taken: list[Task] = []
        kept: list[Any] = []
        while self.queue and len(taken) < message.count:
            item = self.queue.pop()
            if isinstance(item, tuple) and item[1] is peer and not item[0].actor_id:
                taken.append(item[0])
            else:
                kept.append(item)
        self.queue.extend(reversed(kept))
        taken.reverse()
        self.hand_back(peer, taken, self.blocking.count > 0)

    def hand_back(self, peer: Peer, tasks: list[Task], blocked: bool) -> None:
        """Locked.  Return tasks that have not started to their caller."""
        for task in tasks:
            self._decline(task)
        core = self.core
        core.links.send(peer, Returned([task.task_id for task in tasks], blocked))
        core.pump.nudge()

    def _decline(self, task: Task) -> None:
        """Take the refs of a task that will not run here, and drop them at once."""
        ownership = self.core.ownership
        ownership.accept_all(task.refs)
        for slot in task.slots:
            if slot.value.data is None:
                ownership.accept(slot.object_id, slot.owner_address)
            ownership.accept_all(slot.value.refs)

    def reply_unstarted(self, task: Task, peer: Peer) -> None:
        """Locked.  Say that a call was cancelled before it started."""
        self._decline(task)
        self.invoker.reply_cancelled(task, peer, 0)

    # ------------------------------------------------------------------ the main loop

    def run(self) -> None:
        """Execute what arrives until told to exit."""
        queue = self.queue
        core = self.core
        while not self.is_exiting:
            if self.async_calls is not None:
                self.async_calls.run()
                break
            if not queue:
                waiter = Waiter(1)
                with core.lock:
                    if queue:
                        continue
                    self._idle = waiter.on_ready
                core.pump.block(waiter)
                self._idle = None
                continue
            self.popping = True
            try:
                item = queue.popleft()
            except IndexError:  # stolen meanwhile
                continue
            if not isinstance(item, tuple):
                self.popping = False
                core.pump.busy()
                item()
            elif self.concurrent is not None:
                self._start_concurrent(*item)
            else:
                self.execute(*item)
                core.pump.activity += 1
        if self.concurrent is not None:
            self.concurrent.close(self.exits_at_once)
        with core.lock:
            core.events.flush()
            core.own_metrics.flush()
            core.links.flush()

    def execute(self, task: Task, peer: Peer) -> None:
        """Run one call in the main thread."""
        running = Running(task, peer, self.stack)
        # A cancellation that came too late for the call before.
        self.core.pump.interrupted.pop(signal.SIGINT, None)
        # First of all: a Cancel that arrives from here on finds it.
        self.stack.append(running)
        self.popping = False
        if self.cancellation.doomed and self.cancellation.is_doomed(task, peer):
            return
        if task.exact:
            with self.core.lock:
                self.core.links.flush()
        finished = self.invoke(running, task, peer, self.stack.pop)
        if finished - self._flushed_at > REPLY_DELAY:
            self._flushed_at = finished
            with self.core.lock:
                self.core.links.flush()

    def _start_concurrent(self, task: Task, peer: Peer) -> None:
        calls = self.concurrent
        assert calls is not None
        calls.start(task, peer)
        self.popping = False
        if self.cancellation.doomed:
            self.cancellation.catch_up(peer)

    @property
    def has_queued(self) -> bool:
        """Whether something waits for the main thread."""
        return bool(self.queue)

    def expect_calls(self, wake: Callable[[], None] | None) -> None:
        """Call ``wake`` when something is queued."""
        self._idle = wake

    def start_queued(self) -> None:
        """Start all that is queued: for the event loop of an async actor."""
        queue = self.queue
        while queue and not self.exits_at_once:
            self.popping = True
            item = queue.popleft()
            if isinstance(item, tuple):
                self._start_concurrent(*item)
            else:
                self.popping = False
                item()

    def queue_needs(self, links: Collection[bytes]) -> bool:
        """Whether a queued call comes from one of these calls."""
        wanted = set(links)
        return any(
            isinstance(item, tuple) and not wanted.isdisjoint(item[0].chain)
            for item in list(self.queue)
        )

    def running_calls(self) -> list[Running]:
        """Return the calls that run now."""
        calls = self.concurrent
        return [*self.stack, *calls.running] if calls is not None else list(self.stack)

    @property
    def is_concurrent(self) -> bool:
        """Whether calls do not wait for the end of those before them."""
        return self.concurrent is not None

    def calls_in_thread(self, ident: int) -> list[Running]:
        """Return the calls whose frames are in the stack of a thread, the innermost last."""
        if self.async_calls is not None and ident == self.main:
            return self.async_calls.blocking
        if self.concurrent is not None:
            return [call for call in self.concurrent.running if call.thread == ident]
        return list(self.stack) if ident == self.main else []

    def coroutines(self) -> dict[bytes, Any]:
        """Return the coroutines of calls that run on an event loop, by the calls' ids."""
        calls = self.concurrent
        return calls.coroutines() if calls is not None else {}

    def queued_ids(self) -> list[bytes]:
        """Return the ids of the calls that nobody has looked at."""
        return [item[0].task_id for item in list(self.queue) if isinstance(item, tuple)]

    def refuse_group(self, task: Task, peer: Peer, known: Mapping[str, int]) -> None:
        """Answer a call that names a concurrency group which the actor does not have."""
        names = ", ".join(repr(name) for name in known if name) or "none"
        name = f"{self.invoker.actor_class}.{task.method}"
        error = ValueError(
            f"{name} was called in the concurrency group {group_of(task)!r}, but the actor has"
            f" {names}: declare it in concurrency_groups when the actor is made"
        )
        with self.core.lock:
            self._decline(task)
        self.invoker.reply_error(task, peer, error, 0, name)

    def announce(self, task: Task, peer: Peer) -> None:
        """A call starts: tell its caller, if it wants to know."""
        terms = task.terms
        if terms is not None and terms.announce:
            core = self.core
            with core.lock:
                core.links.send(
                    peer, TaskStarted(task.task_id, task.attempt, os.getpid(), core.node_id)
                )
                core.links.flush_peer(peer)

    def invoke(
        self, running: Running, task: Task, peer: Peer, leave: Callable[[], object]
    ) -> float:
        """Call, answer, and return when the call ended, as of ``perf_counter``."""
        invoker = self.invoker
        interrupted = self.cancellation.interrupted
        started = running.started = time.perf_counter()
        self.announce(task, peer)
        error_type = error_message = ""
        try:
            try:
                if isinstance(running, ThreadedCall):
                    result = running.shield(self._call, peer)
                else:
                    result = self._call(running, peer)
            except Exception as error:
                if self.post_mortem is not None:
                    self.post_mortem(error)
                raise
            finally:
                finished = time.perf_counter()
                leave()
                if self.debugged:
                    self.left(running)
            duration = int((finished - started - running.blocked_seconds) * 1e6)
            parts = invoker.reply_at_once(task, peer, result, duration, running.name)
            if parts is not None:
                invoker.reply_values(task, peer, parts, duration, running.name)
            if interrupted:
                interrupted.discard(task.task_id)
        except BaseException as error:
            duration = int((finished - started - running.blocked_seconds) * 1e6)
            error_type, error_message = describe_error(error)
            cancelled = isinstance(error, KeyboardInterrupt) and (
                task.task_id in interrupted
                or (isinstance(running, ThreadedCall) and running.wanted)
            )
            interrupted.discard(task.task_id)
            self.reply_error(task, peer, error, duration, running.name, cancelled)
            if cancelled and self.cancellation.tore_import:
                self.retirement.begin(peer)
        self.core.events.ran(running, finished, error_type, error_message)
        invoker.flush_output()
        if task.terms is not None and task.terms.max_calls:
            self.retirement.count(task, peer)
        return finished

    def _call(self, running: Running, peer: Peer) -> Any:
        task = running.task
        result = self.invoker.call(running)
        if task.num_returns < 0:
            return self.producers.run(task, peer, result, running.name)
        return result

    def left(self, running: Running) -> None:
        """A call has ended: so has its debugger."""
        end = self.debugged.pop(running, None)
        if end is not None:
            end()

    def reply_error(
        self,
        task: Task,
        peer: Peer,
        error: BaseException,
        duration: int,
        name: str,
        cancelled: bool,
    ) -> None:
        """Answer a call that raised; ``cancelled``: because it was told to stop."""
        if cancelled:
            self.invoker.reply_cancelled(task, peer, duration)
            return
        if isinstance(error, SystemExit) and task.actor_id:
            cause = f"{name}() has ended it (exit_actor or SystemExit)"
            actor_id = self.invoker.actor_id.hex()
            self.invoker.reply_failed(
                task,
                peer,
                ActorDiedError(f"the actor {actor_id} is dead: {cause}", actor_id=actor_id),
                duration,
            )
            self.leave_actor(cause)
            return
        self.invoker.reply_error(task, peer, error, duration, name)

    def leave_actor(self, cause: str) -> None:
        """The actor exits on purpose: nothing else is run, and it is not restarted."""
        with self.core.lock:
            self.core.links.send_node(
                KillActor(self.invoker.actor_id, no_restart=True, graceful=True, cause=cause)
            )
            self.exits_at_once = self.is_exiting = True
            self._notify()
        self.core.pump.wake()

    def _start_actor(self, message: StartActor) -> None:
        spec = spec_decoder.decode(message.spec)
        task = self.invoker.become(message, spec)
        self._begin(message)
        failure: BaseException | None = None
        running = Running(task, None, ())
        running.started = time.perf_counter()
        limits = {DEFAULT: message.max_concurrency, **spec.groups}

        def construct() -> None:
            try:
                self.invoker.construct(task, spec)
            except Exception as error:
                if self.post_mortem is not None:
                    self.post_mortem(error)
                raise
            finally:
                self.left(running)

        try:
            if spec.asynchronous:
                from skate.runtime.worker.event_loop import AsyncCalls  # it imports asyncio: 35 ms

                self.concurrent = self.async_calls = AsyncCalls(self, limits)
                self.async_calls.construct(running, construct)
            else:
                self.stack.append(running)
                try:
                    construct()
                finally:
                    self.stack.pop()
        except BaseException as error:
            failure = error
        described = describe_error(failure) if failure is not None else ("", "")
        self.core.events.ran(running, time.perf_counter(), *described)
        if self.async_calls is None and (message.max_concurrency > 1 or spec.groups):
            self.concurrent = ThreadedCalls(self, spec.class_name, limits)
        self.invoker.report_start(message.actor_id, failure)

    @property
    def running(self) -> Running | None:
        """The call that the current thread, or failing that the main thread, executes."""
        if self.concurrent is not None:
            return current_call.get()
        stack = self.stack
        return stack[-1] if stack else None


def flush_output() -> None:
    """Write out what user code has printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
