"""Actors whose calls run in several threads.

A call whose group is full waits, but not for one that waits for it: then a further thread runs it,
beyond the limit, as the blocked thread of other actors would.  Whether a blocked call really waits
for another is not known (see "Re-entrant calls" in the architecture), so one such call computes at
a time: children that were only started do not all run at once.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skate.runtime.worker.groups import ConcurrencyGroups
from skate.runtime.worker.interrupts import ThreadedCall
from skate.runtime.worker.invoke import current_call, group_of

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer

#: Most calls beyond the limits, blocked ones included: how deep an actor may call itself.
MOST_BEYOND = 10_000


class ThreadedCalls:
    """Runs calls in a pool of threads, as many of each concurrency group as it allows."""

    def __init__(self, executor: Executor, class_name: str, limits: Mapping[str, int]) -> None:
        self._executor = executor
        self._core = executor.core
        self.groups: ConcurrencyGroups[tuple[Task, Peer]] = ConcurrencyGroups(limits)
        self._class_name = class_name
        self._pool = self._make_pool(sum(limits.values()))
        #: Calls that were admitted and have not ended.
        self._admitted: set[ThreadedCall] = set()
        #: Those of them that the limits would not have admitted, and their threads, if any were
        #: needed.
        self.beyond: set[ThreadedCall] = set()
        self._further: concurrent.futures.ThreadPoolExecutor | None = None

    def _make_pool(self, size: int) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(size, thread_name_prefix=self._class_name)

    @property
    def running(self) -> list[ThreadedCall]:
        """The calls that the threads run."""
        return [call for call in list(self._admitted) if call.thread]

    def start(self, task: Task, peer: Peer) -> None:
        """Run a call as soon as its group allows."""
        group = group_of(task)
        if group not in self.groups:
            self._executor.refuse_group(task, peer, self.groups.limits)
            return
        with self._core.lock:
            call = self._admit(task, peer) if self.groups.admit(group, (task, peer)) else None
            if call is None and task.chain:
                self.look_for_awaited()
        if call is not None:
            self._pool.submit(self._run, call)

    def _admit(self, task: Task, peer: Peer) -> ThreadedCall:
        """Locked.  From here on a cancellation reaches the call."""
        call = ThreadedCall(self._core, task, peer)
        self._admitted.add(call)
        return call

    def _run(self, first: ThreadedCall) -> None:
        group = group_of(first.task)
        call: ThreadedCall | None = first
        while call is not None:
            self._run_one(call)
            with self._core.lock:
                following = self.groups.leave(group)
                call = self._admit(*following) if following is not None else None

    def look_for_awaited(self) -> None:
        """Locked.  Run a queued call beyond the limits, if blocked ones may wait for it.

        To be called when a call has been queued or blocks.
        """
        if not self.groups.queued or not all(call.blocked for call in self.beyond):
            return
        blocked = {call.link for call in self._admitted if call.blocked}
        found = self.groups.withdraw(lambda queued: not blocked.isdisjoint(queued[0].chain))
        if found is None:
            return
        call = self._admit(*found)
        self.beyond.add(call)
        if self._further is None:
            self._further = self._make_pool(MOST_BEYOND)
        self._further.submit(self._run_beyond, call)

    def _run_beyond(self, call: ThreadedCall) -> None:
        self._run_one(call)
        with self._core.lock:
            self.beyond.discard(call)
            self.look_for_awaited()

    def _run_one(self, call: ThreadedCall) -> None:
        task, peer = call.task, call.peer
        assert peer is not None
        current_call.set(call)

        def leave() -> None:
            current_call.set(None)
            self._admitted.discard(call)

        if call.begin():
            self._executor.invoke(call, task, peer, leave)
        else:
            leave()
            with self._core.lock:
                self._executor.reply_unstarted(task, peer)
        with self._core.lock:
            self._core.links.flush()

    def withdraw(self, task_id: bytes) -> tuple[Task, Peer] | None:
        """Locked.  Take a call back that waits for others of its group."""
        return self.groups.withdraw(lambda call: call[0].task_id == task_id)

    def coroutines(self) -> dict[bytes, Any]:
        """There are none: each call has a thread."""
        return {}

    def runs(self, task_id: bytes) -> bool:
        """Whether a call was admitted and has not ended."""
        return any(call.task_id == task_id for call in list(self._admitted))

    def interrupt(self, task_id: bytes) -> None:
        """Locked.  Raise KeyboardInterrupt in a call that was admitted, or have it not start."""
        # A call that was given up and is tried again may be there twice.
        for call in list(self._admitted):
            if call.task_id == task_id:
                call.want()

    def close(self, at_once: bool) -> None:
        """Wait for the calls to end, unless the actor has to end at once."""
        if at_once:
            with self._core.lock:
                self.groups.clear()
        self._pool.shutdown(wait=not at_once, cancel_futures=at_once)
        if self._further is not None:
            self._further.shutdown(wait=not at_once, cancel_futures=at_once)
