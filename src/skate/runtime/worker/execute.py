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
    Blocked,
    Cancel,
    DefineFunction,
    KillActor,
    Resumed,
    Returned,
    StartActor,
    Steal,
    StillNeeded,
    StreamDropped,
    Task,
    TaskStarted,
    Unblocked,
)
from skate.runtime.worker.actors import spec_decoder
from skate.runtime.worker.events import describe_error
from skate.runtime.worker.gpus import GPU_VARIABLE, visible_gpus
from skate.runtime.worker.groups import DEFAULT
from skate.runtime.worker.invoke import Invoker, Running, current_call, group_of
from skate.runtime.worker.producer import Producers
from skate.runtime.worker.pump import Waiter
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
        self._queue: deque[tuple[Task, Peer] | Callable[[], None]] = deque()
        #: Ends the wait for the next call.
        self._idle: Callable[[], None] | None = None
        self._main = threading.get_ident()
        #: Calls of the main thread: more than one when re-entrant calls run.
        self._stack: list[Running] = []
        #: Runs the calls of an actor that runs several at the same time; which one a piece of code
        #: belongs to is in ``current_call``.
        self._concurrent: ThreadedCalls | AsyncCalls | None = None
        #: The same, if it is an async actor.
        self._async: AsyncCalls | None = None
        #: Callers that were told that we block.
        self._told: set[Peer] = set()
        #: Threads that wait, those that user code has started included.
        self._waiting = 0
        #: How many calls of the main thread's stack wait: nothing that queues behind them can run.
        self._blocked = 0
        #: Calls to interrupt.
        self._cancelling: set[bytes] = set()
        #: The main thread has taken a call off the queue and not put it on the stack yet ...
        self._popping = False
        #: ... and these were cancelled meanwhile, or are no longer here.
        self._doomed: set[bytes] = set()
        self._flushed_at = 0.0
        self.is_exiting = False
        #: Not even the calls that run are waited for.
        self.exits_at_once = False
        self.resources: dict[str, float] = {}
        #: The GPUs that the node was given, as it was told of them; None: all there are.
        self._given_gpus = os.environ.get(GPU_VARIABLE)
        self.gpu_ids: list[int | str] = []
        self.strategy: Strategy | None = None

    # ------------------------------------------------------------------ messages (locked)

    def on_begin_lease(self, _peer: Peer, message: BeginLease) -> None:
        """Locked.  The caller's next tasks run under this lease."""
        self._queue.append(lambda: self._begin(message))
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
        if self._blocked and not task.actor_id:
            self._told.add(peer)
            self._hand_back(peer, [task], True)
            return
        self._queue.append((task, peer))
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
        self._queue.append(lambda: self._start_actor(message))
        self._notify()

    def on_exit(self) -> None:
        """Locked.  Finish what is queued, then exit; but not while others need this process."""
        if not self.invoker.actor_id and self.core.is_needed:
            self.core.links.send_node(StillNeeded())
            return
        self._queue.append(self._exit)
        self._notify()

    def _exit(self) -> None:
        self.is_exiting = True

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
        self._hand_back(peer, taken, self._blocked > 0)

    def _hand_back(self, peer: Peer, tasks: list[Task], blocked: bool) -> None:
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

    def on_cancel(self, peer: Peer, message: Cancel) -> None:
        """Locked.  Drop a queued task, or interrupt the running one."""
        if self._unqueue(message.task_id, peer):
            return
        task_id = message.task_id
        calls = self._concurrent
        if not any(running.task_id == task_id for running in self._stack) and (
            calls is None or not calls.runs(task_id)
        ):
            if self._popping:
                self._doomed.add(task_id)
            return
        if message.recursive:
            self.core.submitter.cancel_children(task_id, message.force)
        if message.force:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls is not None:
            calls.interrupt(task_id)
            return
        self._cancelling.add(task_id)
        signal.pthread_kill(self._main, signal.SIGINT)

    def _unqueue(self, task_id: bytes, peer: Peer) -> bool:
        """Take a call off the queue and say that it was cancelled; return whether it was there."""
        for item in list(self._queue):
            if isinstance(item, tuple) and item[0].task_id == task_id:
                try:
                    self._queue.remove(item)
                except ValueError:  # the main thread was faster
                    return False
                self.reply_unstarted(*item)
                return True
        calls = self._concurrent
        waiting = calls.withdraw(task_id) if calls is not None else None
        if waiting is not None:
            self.reply_unstarted(*waiting)
        return waiting is not None

    def reply_unstarted(self, task: Task, peer: Peer) -> None:
        """Locked.  Say that a call was cancelled before it started."""
        self._decline(task)
        self.invoker.reply_cancelled(task, peer, 0)

    def on_stream_dropped(self, peer: Peer, message: StreamDropped) -> None:
        """Locked.  Nobody wants the items of a generator: it does not start, or it is closed."""
        task_id = message.task_id
        if self.producers.on_dropped(message) or self._unqueue(task_id, peer):
            return
        calls = self._concurrent
        if (
            self._popping
            or any(running.task_id == task_id for running in self._stack)
            or (calls is not None and calls.runs(task_id))
        ):
            self.producers.drop_early(task_id)

    def handle_interrupt(self, _signum: int, _frame: object) -> None:
        """SIGINT in a worker: raise KeyboardInterrupt in the task that is being cancelled."""
        if self._stack and self._stack[-1].task_id in self._cancelling:
            self.core.pump.interrupt(KeyboardInterrupt())

    # ------------------------------------------------------------------ the main loop

    def run(self) -> None:
        """Execute what arrives until told to exit."""
        queue = self._queue
        core = self.core
        while not self.is_exiting:
            if self._async is not None:
                self._async.run()
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
            self._popping = True
            try:
                item = queue.popleft()
            except IndexError:  # stolen meanwhile
                continue
            if not isinstance(item, tuple):
                self._popping = False
                core.pump.busy()
                item()
            elif self._concurrent is not None:
                self._start_concurrent(*item)
            else:
                self._execute(*item)
                core.pump.activity += 1
        if self._concurrent is not None:
            self._concurrent.close(self.exits_at_once)
        with core.lock:
            core.events.flush()
            core.own_metrics.flush()
            core.links.flush()

    def _execute(self, task: Task, peer: Peer) -> None:
        running = Running(task, peer, self._stack)
        self.core.pump.interrupted = None
        # First of all: a Cancel that arrives from here on finds it.
        self._stack.append(running)
        self._popping = False
        if self._doomed and self._is_doomed(task, peer):
            return
        if task.exact:
            with self.core.lock:
                self.core.links.flush()
        finished = self.invoke(running, task, peer, self._stack.pop)
        if finished - self._flushed_at > REPLY_DELAY:
            self._flushed_at = finished
            with self.core.lock:
                self.core.links.flush()

    def _start_concurrent(self, task: Task, peer: Peer) -> None:
        calls = self._concurrent
        assert calls is not None
        calls.start(task, peer)
        self._popping = False
        if self._doomed:
            with self.core.lock:
                doomed = list(self._doomed)
                self._doomed.clear()
                for task_id in doomed:
                    self.on_cancel(peer, Cancel(task_id, False))

    @property
    def has_queued(self) -> bool:
        """Whether something waits for the main thread."""
        return bool(self._queue)

    def expect_calls(self, wake: Callable[[], None] | None) -> None:
        """Call ``wake`` when something is queued."""
        self._idle = wake

    def start_queued(self) -> None:
        """Start all that is queued: for the event loop of an async actor."""
        queue = self._queue
        while queue and not self.exits_at_once:
            self._popping = True
            item = queue.popleft()
            if isinstance(item, tuple):
                self._start_concurrent(*item)
            else:
                self._popping = False
                item()

    def queue_needs(self, links: Collection[bytes]) -> bool:
        """Whether a queued call comes from one of these calls."""
        wanted = set(links)
        return any(
            isinstance(item, tuple) and not wanted.isdisjoint(item[0].chain)
            for item in list(self._queue)
        )

    def _is_doomed(self, task: Task, peer: Peer) -> bool:
        """A call is about to start: return whether it was cancelled just before."""
        doomed = task.task_id in self._doomed
        self._doomed.clear()
        if doomed:
            self._stack.pop()
            with self.core.lock:
                self.reply_unstarted(task, peer)
        return doomed

    def running_calls(self) -> list[Running]:
        """Return the calls that run now."""
        calls = self._concurrent
        return [*self._stack, *calls.running] if calls is not None else list(self._stack)

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
        started = running.started = time.perf_counter()
        self.announce(task, peer)
        error_type = error_message = ""
        try:
            try:
                result = invoker.call(running)
                if task.num_returns < 0:
                    result = self.producers.run(task, peer, result, running.name)
            finally:
                finished = time.perf_counter()
                leave()
            duration = int((finished - started - running.blocked_seconds) * 1e6)
            invoker.reply(task, peer, result, duration, running.name)
            if self._cancelling:
                self._cancelling.discard(task.task_id)
        except BaseException as error:
            duration = int((finished - started - running.blocked_seconds) * 1e6)
            error_type, error_message = describe_error(error)
            cancelled = task.task_id in self._cancelling and isinstance(error, KeyboardInterrupt)
            self._cancelling.discard(task.task_id)
            self.reply_error(task, peer, error, duration, running.name, cancelled)
        self.core.events.ran(running, finished, error_type, error_message)
        invoker.flush_output()
        return finished

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
        try:
            if spec.asynchronous:
                from skate.runtime.worker.event_loop import AsyncCalls  # it imports asyncio: 35 ms

                self._concurrent = self._async = AsyncCalls(self, limits)
                self._async.construct(running, lambda: self.invoker.construct(task, spec))
            else:
                self._stack.append(running)
                try:
                    self.invoker.construct(task, spec)
                finally:
                    self._stack.pop()
        except BaseException as error:
            failure = error
        described = describe_error(failure) if failure is not None else ("", "")
        self.core.events.ran(running, time.perf_counter(), *described)
        if self._async is None and (message.max_concurrency > 1 or spec.groups):
            self._concurrent = ThreadedCalls(self, spec.class_name, limits)
        self.invoker.report_start(message.actor_id, failure)

    # ------------------------------------------------------------------ blocking

    @property
    def running(self) -> Running | None:
        """The call that the current thread, or failing that the main thread, executes."""
        if self._concurrent is not None:
            return current_call.get()
        stack = self._stack
        return stack[-1] if stack else None

    def block(
        self, waiter: Waiter, deadline: float | None, step: Callable[[], bool] | None
    ) -> bool:
        """Wait inside a call: give the CPU back, hand back queued tasks, run re-entrant calls."""
        core = self.core
        running = self.running
        is_main = threading.get_ident() == self._main and bool(self._stack)
        started = time.perf_counter()
        if running is not None:
            running.blocked = True
        in_loop = self._async is not None and self._async.blocks_loop()
        with core.lock:
            self.begin_wait()
            if is_main:
                self._blocked += 1
                if self._blocked == 1:
                    self._return_queued()

        def turn() -> bool:
            if step is not None and step():
                return True
            return bool(self._queue) and self._reentrant() is not None

        try:
            if in_loop:
                return self._block_loop(waiter, deadline, step)
            while not waiter.done:
                if is_main and self._queue:
                    self._run_reentrant()
                core.pump.block(waiter, deadline, turn if is_main else step)
                if deadline is not None and time.monotonic() >= deadline:
                    break
            return waiter.done
        finally:
            if running is not None:
                running.blocked = False
                core.events.waited(started, running.task_id, running.name, running.thread)
                if is_main or self._concurrent is not None:
                    running.blocked_seconds += time.perf_counter() - started
            with core.lock:
                self.end_wait()
                if is_main:
                    self._blocked -= 1
                    if self._blocked == 0:
                        for peer in self._told:
                            core.links.send(peer, Unblocked())
                        self._told.clear()
            core.pump.nudge()

    def begin_wait(self) -> None:
        """Locked.  Somebody in this process waits for others."""
        self._waiting += 1
        if self._waiting == 1:
            # Other threads may still compute; one CPU used twice is better than a deadlock.
            self.core.links.send_node(Blocked())

    def end_wait(self) -> None:
        """Locked.  It goes on."""
        self._waiting -= 1
        if self._waiting == 0:
            self.core.links.send_node(Resumed())

    def _block_loop(
        self, waiter: Waiter, deadline: float | None, step: Callable[[], bool] | None
    ) -> bool:
        """Wait inside a call of an async actor; others run only if it may wait for them."""
        calls, pump = self._async, self.core.pump
        assert calls is not None
        blocking = calls.begin_blocking()

        def passed() -> bool:
            return deadline is not None and time.monotonic() >= deadline

        def turn() -> bool:
            return (step is not None and step()) or calls.is_needed()

        try:
            while not waiter.done and not passed():
                if calls.is_needed():
                    calls.loop.run_nested(
                        lambda: (step is not None and step()) or waiter.done or passed()
                    )
                else:
                    pump.block(waiter, deadline, turn)
            return waiter.done
        finally:
            calls.end_blocking(blocking)

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
        """Return a queued call that the blocked ones may wait for."""
        waiting = {running.link for running in self._stack}
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


def flush_output() -> None:
    """Write out what user code has printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
