"""Calls that wait in ``get`` or ``wait``: what becomes of the CPU and of what queues behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.runtime.wire.messages import Blocked, Resumed, Unblocked
from skate.runtime.worker.interrupts import ThreadedCall
from skate.runtime.worker.threaded import ThreadedCalls

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer
    from skate.runtime.worker.pump import Waiter


class Blocking:
    """The waits inside the calls of one worker."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        #: How many calls of the main thread's stack wait: nothing that queues behind them can run.
        self.count = 0
        #: Callers that were told that we block.
        self._told: set[Peer] = set()
        #: Threads that wait, those that user code has started included.
        self._waiting = 0

    def refuse(self, peer: Peer, task: Task) -> None:
        """Locked.  A task has arrived behind a call that waits: somebody else has to run it."""
        self._told.add(peer)
        self._executor.hand_back(peer, [task], True)

    def block(
        self, waiter: Waiter, deadline: float | None, step: Callable[[], bool] | None
    ) -> bool:
        """Wait inside a call: give the CPU back, hand back queued tasks, run re-entrant calls."""
        executor = self._executor
        core = executor.core
        running = executor.running
        # Without a call on the stack it is about to send an answer, and waits for room for that.
        is_main = threading.get_ident() == core.pump.main and (
            bool(executor.stack) or executor.concurrent is None
        )
        started = time.perf_counter()
        threaded: ThreadedCall | None = None
        outer: Waiter | None = None
        if running is not None:
            running.blocked = True
            # Not in other threads that act for this call.
            if isinstance(running, ThreadedCall) and running.thread == threading.get_ident():
                threaded = running
                outer = threaded.begin_wait(waiter)
        calls = executor.async_calls
        in_loop = calls is not None and calls.blocks_loop(waiter.by_user)
        pump = core.pump
        around = pump.main_waiter
        defers = is_main and not in_loop
        if defers:
            # What a signal raises must not come between the two halves of the books kept here.
            pump.main_waiter = waiter
        with core.lock:
            self.begin_wait()
            if threaded is not None and isinstance(executor.concurrent, ThreadedCalls):
                executor.concurrent.look_for_awaited()
            if is_main:
                self.count += 1
                if self.count == 1:
                    executor.refuses_tasks = True
                    self._return_queued()

        def turn() -> bool:
            if step is not None and step():
                return True
            return bool(executor.queue) and self._reentrant() is not None

        if is_main:
            look: Callable[[], bool] | None = turn
        elif threaded is not None:
            look = threaded.watched(step)
        else:
            look = step
        try:
            if in_loop:
                return self._block_loop(waiter, deadline, step)
            if threaded is not None:
                threaded.raise_if_wanted()
            while not waiter.done:
                if is_main and executor.queue:
                    # The user's code again.
                    pump.main_waiter = around
                    self._run_reentrant()
                    pump.main_waiter = waiter
                pump.block(waiter, deadline, look)
                if threaded is not None:
                    threaded.raise_if_wanted()
                if deadline is not None and time.monotonic() >= deadline:
                    break
        finally:
            if threaded is not None:
                threaded.end_wait(outer)
            if running is not None:
                running.blocked = False
                core.events.waited(started, running.task_id, running.name, running.thread)
                if is_main or executor.concurrent is not None:
                    running.blocked_seconds += time.perf_counter() - started
            with core.lock:
                self.end_wait()
                if is_main:
                    self.count -= 1
                    if self.count == 0:
                        executor.refuses_tasks = executor.retirement.begun
                        for peer in self._told:
                            core.links.send(peer, Unblocked())
                        self._told.clear()
            pump.nudge()
            if defers:
                pump.main_waiter = around
        if is_main:
            pump.safe_point()
        return waiter.done

    def begin_wait(self) -> None:
        """Locked.  Somebody in this process waits for others."""
        self._waiting += 1
        if self._waiting == 1:
            # Other threads may still compute; one CPU used twice is better than a deadlock.
            self._executor.core.links.send_node(Blocked())

    def end_wait(self) -> None:
        """Locked.  It goes on."""
        self._waiting -= 1
        if self._waiting == 0:
            self._executor.core.links.send_node(Resumed())

    def _block_loop(
        self, waiter: Waiter, deadline: float | None, step: Callable[[], bool] | None
    ) -> bool:
        """Wait inside a call of an async actor; others run only if it may wait for them."""
        calls, pump = self._executor.async_calls, self._executor.core.pump
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
        executor = self._executor
        tasks: dict[Peer, list[Task]] = {}
        kept: list[Any] = []
        for item in executor.queue:
            if isinstance(item, tuple) and not item[0].actor_id:
                tasks.setdefault(item[1], []).append(item[0])
            else:
                kept.append(item)
        executor.queue.clear()
        executor.queue.extend(kept)
        # The caller of the blocked task itself has to stop pushing, too.
        callers = set(tasks)
        callers.update(
            running.peer
            for running in executor.stack
            if running.peer is not None and not running.task.actor_id
        )
        for peer in callers:
            self._told.add(peer)
            executor.hand_back(peer, tasks.get(peer, []), True)

    def _reentrant(self) -> tuple[Task, Peer] | None:
        """Return a queued call that the blocked ones may wait for."""
        waiting = {running.link for running in self._executor.stack}
        for item in list(self._executor.queue):
            if isinstance(item, tuple) and not waiting.isdisjoint(item[0].chain):
                return item
        return None

    def _run_reentrant(self) -> None:
        """Run calls that the blocked ones wait for, each after those of its caller before it."""
        while (found := self._reentrant()) is not None:
            earlier: list[tuple[Task, Peer]] = []
            with self._executor.core.lock:
                for item in list(self._executor.queue):
                    if isinstance(item, tuple) and item[1] is found[1]:
                        earlier.append(item)
                        self._executor.queue.remove(item)
                    if item is found:
                        break
            for task, peer in earlier:
                self._executor.execute(task, peer)
