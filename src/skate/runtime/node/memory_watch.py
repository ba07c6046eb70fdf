"""Looks at memory every now and then and ends the workers that the guard chooses."""

from __future__ import annotations

import logging
import os

from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.loop import Loop
from skate.runtime.node.memory import MemoryReader, largest_processes, table
from skate.runtime.node.memory_guard import Candidate, MemoryGuard, explain
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.wire.messages import OUT_OF_MEMORY_KIND

logger = logging.getLogger(__name__)

#: Seconds between two looks while something runs: at 10 GB/s a process takes 2.5 GB meanwhile.
LOOK_SECONDS = 0.25
#: The same while nothing does.
IDLE_SECONDS = 1.0
#: The user hears of workers that were ended at most this often, in seconds.
TELL_SECONDS = 30.0


class MemoryWatch:
    """The memory guard of a node."""

    def __init__(
        self, loop: Loop, workers: Workers, dispatcher: Dispatcher, threshold: float
    ) -> None:
        """``threshold`` as for ``MemoryGuard``; 1.0 and more: never end anybody."""
        self._loop = loop
        self._workers = workers
        self._dispatcher = dispatcher
        self._guard = MemoryGuard(threshold)
        self._reader = MemoryReader()
        self._silent_until = 0.0
        if threshold < 1.0:
            loop.call_later(LOOK_SECONDS, self._look)

    def worker_ended(self, worker_id: bytes) -> None:
        """A worker is gone."""
        self._guard.worker_ended(worker_id, self._loop.now())

    def _look(self) -> None:
        busy = bool(self._dispatcher.scheduler.grants)
        self._loop.call_later(LOOK_SECONDS if busy else IDLE_SECONDS, self._look)
        if not busy:
            return
        reading = self._guard.exceeded(self._reader.read())
        if reading is None:
            return
        victim = self._guard.choose(self._candidates(), self._loop.now())
        if victim is None:
            return
        processes = largest_processes(self._names())
        cause = explain(reading, self._guard.threshold, victim, table(processes))
        logger.warning("worker %d is %s", victim.pid, cause)
        self._tell(f"the worker (pid {victim.pid}) of {victim.name} was {cause}")
        self._dispatcher.end_for_memory(victim.worker_id, cause, OUT_OF_MEMORY_KIND)

    def _tell(self, text: str) -> None:
        """Tell the user, who may otherwise wonder why everything is so slow."""
        now = self._loop.now()
        if now >= self._silent_until:
            self._silent_until = now + TELL_SECONDS
            self._dispatcher.on_warning(text)

    def _candidates(self) -> list[Candidate]:
        candidates = []
        for grant in self._dispatcher.scheduler.grants.values():
            worker = self._workers.by_id.get(grant.worker_id)
            if worker is None or worker.cause or not worker.pid:
                continue
            request = grant.request
            candidates.append(
                Candidate(
                    grant.worker_id,
                    worker.pid,
                    f"{request.kind} {request.name}",
                    request.holder,
                    request.retriable,
                    grant.since,
                )
            )
        return candidates

    def _names(self) -> dict[int, str]:
        names = {os.getpid(): "node daemon of this session"}
        for worker in self._workers.by_id.values():
            if worker.pid:
                names[worker.pid] = self._name(worker)
        return names

    def _name(self, worker: Worker) -> str:
        grant = self._dispatcher.scheduler.grant_of(worker.worker_id)
        if grant is None:
            return "idle worker of this session"
        return f"worker of this session: {grant.request.kind} {grant.request.name}"
