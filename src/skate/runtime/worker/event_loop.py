"""Async actors: all calls run on one event loop, in the main thread of the worker.

The loop's selector is the pump: while the loop has nothing to do its thread sits in the pump's
epoll, and handles what arrives itself.  A call costs no hop between threads, and all replies of one
turn of the loop leave together.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import selectors
import threading
import time
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVarTuple

from skate.runtime.worker.events import describe_error
from skate.runtime.worker.groups import ConcurrencyGroups
from skate.runtime.worker.invoke import Running, current_call, group_of
from skate.runtime.worker.producer import Producer, as_iterator, close
from skate.runtime.worker.pump import Waiter

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer

Arguments = TypeVarTuple("Arguments")

logger = logging.getLogger("skate")

#: Items of a plain generator between two turns of the loop.
ITEMS_PER_TURN = 32
#: When no call has ended for so many seconds while others wait for that, the daemon is told, in
#: seconds.
STALLED_SECONDS = 1.0
#: How long one look of a loop inside a blocking ``get`` takes at most, in seconds.
NESTED_SECONDS = 0.02


class _LoopDescriptors:
    """The descriptors that the event loop watches, as one source of the pump.

    Reported once until ``select`` has read it: while the loop is busy the background thread pumps,
    and would be told of the same descriptor again and again.
    """

    def __init__(self, selector: PumpSelector) -> None:
        self._selector = selector

    def fileno(self) -> int:
        return self._selector.fileno()

    def on_events(self, _mask: int) -> None:
        self._selector.fired = True
        self._selector.wake()


class PumpSelector(selectors.EpollSelector):
    """Waits in the pump for the loop's descriptors, for calls and for completions."""

    def __init__(self, core: Core, before_wait: Callable[[], None], after: Callable[[], None]):
        super().__init__()
        self._core = core
        self._before_wait = before_wait
        self._after = after
        self._source = _LoopDescriptors(self)
        self.fired = False
        self._waiter: Waiter | None = None
        #: Most seconds to wait; None: as long as the loop wants.
        self.longest: float | None = None
        with core.lock:
            core.pump.add(self._source, once=True)

    def wake(self) -> None:
        """Make ``select`` return."""
        waiter = self._waiter
        if waiter is not None:
            waiter.on_ready()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, as the base class does, and handle messages meanwhile."""
        pump = self._core.pump
        if timeout is not None and timeout <= 0:
            # The background thread leaves the pump to those that are busy pumping.
            pump.activity += 1
            if not pump.poll():
                with self._core.lock:
                    self._core.links.flush()
                pump.nudge()
        else:
            if self.longest is not None:
                timeout = self.longest if timeout is None else min(timeout, self.longest)
            deadline = None if timeout is None else time.monotonic() + timeout
            waiter = self._waiter = Waiter(1)
            # What these do may wake us again.
            if pump.callbacks:
                pump.run_callbacks()
            if self.fired:
                waiter.on_ready()
            self._before_wait()
            pump.block(waiter, deadline)
            self._waiter = None
        self._after()
        if not self.fired:
            return []
        self.fired = False
        events = super().select(0)
        with self._core.lock:
            pump.watch_again(self._source)
        return events


class ActorLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its own thread: callbacks from there need no wake-up."""

    def __init__(self, selector: PumpSelector) -> None:
        super().__init__(selector)
        self._pump_selector = selector
        self._ident = threading.get_ident()

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a callback from any thread."""
        if threading.get_ident() != self._ident:
            return super().call_soon_threadsafe(callback, *args, context=context)
        handle = self.call_soon(callback, *args, context=context)
        self._pump_selector.wake()
        return handle

    def run_nested(self, until: Callable[[], bool]) -> None:
        """Inside a callback that blocks: go on with the others until ``until()``."""
        task = asyncio.current_task(self)
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        self._pump_selector.longest = NESTED_SECONDS
        try:
            while not until():
                self._run_once()  # type: ignore[attr-defined]  # of BaseEventLoop
        finally:
            self._pump_selector.longest = None
            if task is not None:
                asyncio.tasks._enter_task(self, task)


class AsyncCalls:
    """Runs the calls of an async actor."""

    def __init__(self, executor: Executor, limits: Mapping[str, int]) -> None:
        self._executor = executor
        self._core = executor.core
        self.groups: ConcurrencyGroups[tuple[Task, Peer]] = ConcurrencyGroups(limits)
        self.running: set[Running] = set()
        #: Threaded actors may have calls beyond the limits.
        self.beyond: frozenset[Running] = frozenset()
        #: Calls that were admitted, by id; None until they run.
        self._tasks: dict[bytes, asyncio.Task[None] | None] = {}
        self._cancelling: set[bytes] = set()
        #: Links of the calls that block the loop.
        self._blocking: list[Running] = []
        self._is_open = False
        self._waits = False
        #: Calls that have ended, and how many those were when the queues were looked at.
        self._ended = self._ended_before = 0
        self._looks_at_queues = False
        #: The daemon was told that calls wait for the end of others.
        self._is_stalled = False
        self._warned = False
        self._selector = PumpSelector(executor.core, self._before_wait, self._after_wait)
        self.loop = ActorLoop(self._selector)

    def coroutines(self) -> dict[bytes, Any]:
        """Return the coroutines of the calls that run, by the calls' ids."""
        tasks = list(self._tasks.items())
        return {task_id: task.get_coro() for task_id, task in tasks if task is not None}

    # ------------------------------------------------------------------ the loop

    def construct(self, running: Running, construct: Callable[[], None]) -> None:
        """Run the constructor on the loop, so that it may start tasks of its own."""

        async def run() -> None:
            current_call.set(running)
            try:
                construct()
            except (SystemExit, KeyboardInterrupt) as error:
                # The loop would let them through and leave itself in disorder.
                failures.append(error)

        failures: list[BaseException] = []
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(run())
        if failures:
            raise failures[0]

    def run(self) -> None:
        """Run calls until the actor ends."""
        self._is_open = True
        while True:
            try:
                self.loop.run_forever()
            except SystemExit:
                # In a task that user code has started; in a call it is caught there.
                self._executor.leave_actor("a task of its event loop has ended it (SystemExit)")
                return
            except KeyboardInterrupt:
                continue
            return

    def _before_wait(self) -> None:
        """The loop has nothing to do until something arrives."""
        executor, core = self._executor, self._core
        with core.lock:
            if self._is_open and executor.has_queued:
                self._selector.wake()
                return
            executor.expect_calls(self._selector.wake)
            self._waits = bool(executor.resources) and core.awaiting.pending > 0
            if self._waits:
                executor.blocking.begin_wait()

    def _after_wait(self) -> None:
        executor = self._executor
        executor.expect_calls(None)
        if self._waits:
            self._waits = False
            with self._core.lock:
                executor.blocking.end_wait()
        if self._is_open:
            executor.start_queued()
            if executor.is_exiting and (executor.exits_at_once or not self._tasks):
                self.loop.stop()

    # ------------------------------------------------------------------ calls

    def start(self, task: Task, peer: Peer) -> None:
        """Start a call as soon as its group allows."""
        group = group_of(task)
        if group not in self.groups:
            self._executor.refuse_group(task, peer, self.groups.limits)
        elif self.groups.admit(group, (task, peer)):
            self._begin(task, peer)
        elif not self._looks_at_queues:
            self._look_at_queues_later()

    def _begin(self, task: Task, peer: Peer) -> None:
        self._tasks[task.task_id] = None
        self._tasks[task.task_id] = self.loop.create_task(self._run(task, peer))

    async def _run(self, task: Task, peer: Peer) -> None:
        task_id = task.task_id
        if task_id in self._cancelling:
            self._cancelling.discard(task_id)
            with self._core.lock:
                self._executor.reply_unstarted(task, peer)
        else:
            running = Running(task, peer, ())
            running.thread = self._core.pump.main or 0
            current_call.set(running)
            self.running.add(running)
            await self._invoke(running, task, peer)
            self.running.discard(running)
        del self._tasks[task_id]
        self._ended += 1
        if self._is_stalled:
            self._set_stalled(False)
        following = self.groups.leave(group_of(task))
        if following is not None:
            self._begin(*following)
        elif self._executor.is_exiting and not self._tasks:
            self.loop.stop()

    async def _invoke(self, running: Running, task: Task, peer: Peer) -> None:
        executor = self._executor
        invoker = executor.invoker
        running.started = time.perf_counter()
        executor.announce(task, peer)
        error_type = error_message = ""
        try:
            try:
                if task.slots:
                    result = await invoker.call_on_loop(running)
                else:
                    result = invoker.call(running)
                if type(result) is types.CoroutineType:
                    result = await result
                if task.num_returns < 0:
                    result = await self._produce(task, peer, result, running.name)
            except Exception as error:
                if executor.post_mortem is not None:
                    executor.post_mortem(error)
                raise
            finally:
                finished = time.perf_counter()
                executor.left(running)
            duration = int((finished - running.started) * 1e6)
            parts = invoker.reply_at_once(task, peer, result, duration, running.name)
            if parts is not None:
                del result  # if that was the last of it, it makes room for the copy
                await invoker.reply_values_on_loop(task, peer, parts, duration, running.name)
        except BaseException as error:
            duration = int((finished - running.started) * 1e6)
            error_type, error_message = describe_error(error)
            cancelled = (
                isinstance(error, asyncio.CancelledError) and task.task_id in self._cancelling
            )
            executor.reply_error(task, peer, error, duration, running.name, cancelled)
        self._cancelling.discard(task.task_id)
        self._core.events.ran(running, finished, error_type, error_message)
        invoker.flush_output()

    async def _produce(self, task: Task, peer: Peer, items: Any, name: str) -> int:
        """Send the items of a generator, plain or async, and return how many there are."""
        producers = self._executor.producers
        if isinstance(items, types.AsyncGeneratorType) or hasattr(items, "__anext__"):
            producer = producers.begin(task, peer)
            try:
                async for item in items:
                    await producer.send_on_loop(item)
                    await self._make_room(producer)
                    if producer.dropped:
                        await items.aclose()
                        break
            finally:
                producers.end(task)
            return producer.count
        iterator = as_iterator(items, name)
        producer = producers.begin(task, peer)
        try:
            for item in iterator:
                await producer.send_on_loop(item)
                await self._make_room(producer)
                if producer.dropped:
                    close(iterator)
                    break
                if producer.count % ITEMS_PER_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            producers.end(task)
        return producer.count

    async def _make_room(self, producer: Producer) -> None:
        while producer.is_full():
            future = self.loop.create_future()
            with self._core.lock:
                if not producer.is_full():
                    return
                producer.waiter = _Wakes(self.loop, future)
            await future

    # ------------------------------------------------------------------ calls that wait for others

    def suspended(self) -> dict[bytes, asyncio.Task[None]]:
        """Return the tasks of the calls, by the calls' ids."""
        return {task_id: task for task_id, task in list(self._tasks.items()) if task is not None}

    def is_own_timer(self, callback: object) -> bool:
        """Whether a timer of the loop is the one with which queues are looked at."""
        return getattr(callback, "__self__", None) is self

    def _look_at_queues_later(self) -> None:
        self._looks_at_queues = True
        self._ended_before = self._ended
        self.loop.call_later(STALLED_SECONDS, self._look_at_queues)

    def _look_at_queues(self) -> None:
        """Calls that await refs may wait for the queued ones: the daemon finds out."""
        self._looks_at_queues = False
        if self.groups.queued:
            stalls = self._ended == self._ended_before and self._core.awaiting.pending > 0
            if stalls and not self._is_stalled:
                self._set_stalled(True)
            self._look_at_queues_later()
        elif self._is_stalled:
            self._set_stalled(False)

    def _set_stalled(self, is_stalled: bool) -> None:
        blocking = self._executor.blocking
        self._is_stalled = is_stalled
        with self._core.lock:
            if is_stalled:
                blocking.begin_wait()
            else:
                blocking.end_wait()
            self._core.pump.nudge()

    # ------------------------------------------------------------------ cancelling

    def withdraw(self, task_id: bytes) -> tuple[Task, Peer] | None:
        """Locked.  Take a call back that waits for others of its group."""
        return self.groups.withdraw(lambda call: call[0].task_id == task_id)

    def interrupt(self, task_id: bytes) -> None:
        """Locked.  Cancel a call that was admitted."""
        self._cancelling.add(task_id)
        self.loop.call_soon_threadsafe(self._cancel, task_id)

    def _cancel(self, task_id: bytes) -> None:
        if any(running.task_id == task_id for running in self.running):
            task = self._tasks.get(task_id)
            if task is not None:
                task.cancel()

    def runs(self, task_id: bytes) -> bool:
        """Whether a call was admitted and has not ended."""
        return task_id in self._tasks

    # ------------------------------------------------------------------ blocking inside the loop

    def blocks_loop(self, by_user: bool) -> bool:
        """Whether the calling code runs on the loop and is about to block it.

        Warns once if the user may have meant something else; waiting for room in the store cannot
        be helped.
        """
        if (
            threading.get_ident() != self._core.pump.main
            or not self._is_open
            or not self.loop.is_running()
        ):
            return False
        if by_user and not self._warned:
            self._warned = True
            logger.warning(
                "a blocking skate.get() or skate.wait() inside an async actor stops all of its"
                " calls until it returns: use 'await ref' or 'await asyncio.gather(*refs)' instead"
            )
        return True

    @property
    def blocking(self) -> list[Running]:
        """The calls that block the loop, the last one on top of the others."""
        return list(self._blocking)

    def begin_blocking(self) -> Running | None:
        """A call blocks the loop."""
        running = current_call.get()
        if running is not None:
            self._blocking.append(running)
        return running

    def end_blocking(self, running: Running | None) -> None:
        """The call goes on."""
        if running is not None:
            self._blocking.remove(running)

    def is_needed(self) -> bool:
        """Whether a call that blocks the loop may wait for another call of this actor."""
        links = {running.link for running in self._blocking}
        if not links:
            return False
        blocking = set(self._blocking)
        return any(
            not links.isdisjoint(running.task.chain) for running in self.running - blocking
        ) or self._executor.queue_needs(links)

    def close(self, at_once: bool) -> None:
        """Nothing to wait for: the loop has ended, or it has to."""


class _Wakes:
    """Completes a future of the loop when a producer has room."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: ActorLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self._future = future

    def on_ready(self) -> None:
        self._loop.call_soon_threadsafe(self._complete)

    def _complete(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
