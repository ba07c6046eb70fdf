"""Actors whose calls run in several threads."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skate.runtime.worker.groups import ConcurrencyGroups
from skate.runtime.worker.invoke import Running, current_call, group_of

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer


class ThreadedCalls:
    """Runs calls in a pool of threads, as many of each concurrency group as it allows."""

    def __init__(self, executor: Executor, class_name: str, limits: Mapping[str, int]) -> None:
        self._executor = executor
        self._core = executor.core
        self._groups: ConcurrencyGroups[tuple[Task, Peer]] = ConcurrencyGroups(limits)
        self._pool = concurrent.futures.ThreadPoolExecutor(
            sum(limits.values()), thread_name_prefix=class_name
        )
        #: The calls that the threads run.
        self.running: set[Running] = set()

    def start(self, task: Task, peer: Peer) -> None:
        """Run a call as soon as its group allows."""
        group = group_of(task)
        if group not in self._groups:
            self._executor.refuse_group(task, peer, self._groups.limits)
            return
        with self._core.lock:
            admitted = self._groups.admit(group, (task, peer))
        if admitted:
            self._pool.submit(self._run, task, peer)

    def _run(self, task: Task, peer: Peer) -> None:
        group = group_of(task)
        found: tuple[Task, Peer] | None = (task, peer)
        while found is not None:
            self._run_one(*found)
            with self._core.lock:
                found = self._groups.leave(group)

    def _run_one(self, task: Task, peer: Peer) -> None:
        running = Running(task, peer, ())
        running.thread = threading.get_ident()
        current_call.set(running)
        self.running.add(running)

        def leave() -> None:
            current_call.set(None)
            self.running.discard(running)

        self._executor.invoke(running, task, peer, leave)
        with self._core.lock:
            self._core.links.flush()

    def withdraw(self, task_id: bytes) -> tuple[Task, Peer] | None:
        """Locked.  Take a call back that waits for others of its group."""
        return self._groups.withdraw(lambda call: call[0].task_id == task_id)

    def coroutines(self) -> dict[bytes, Any]:
        """There are none: each call has a thread."""
        return {}

    def runs(self, task_id: bytes) -> bool:
        """Whether a call has started and not ended."""
        return any(running.task_id == task_id for running in list(self.running))

    def interrupt(self, task_id: bytes) -> None:
        """Locked.  Threads cannot be interrupted: the call goes on."""

    def close(self, at_once: bool) -> None:
        """Wait for the calls to end, unless the actor has to end at once."""
        if at_once:
            with self._core.lock:
                self._groups.clear()
        self._pool.shutdown(wait=not at_once, cancel_futures=at_once)
