"""Looks at memory every now and then and ends the workers that the guard chooses."""

from __future__ import annotations

import logging
import os
import time

import msgspec

from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.looking import Looking
from skate.runtime.node.loop import Loop
from skate.runtime.node.memory import MemoryReader, largest_processes, private_bytes, table
from skate.runtime.node.memory_guard import Candidate, Idle, MemoryGuard, Reading, explain
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.wire.messages import OUT_OF_MEMORY_KIND
from skate.runtime.wire.state import LIVE_TASKS, Inspection, TaskRow

logger = logging.getLogger(__name__)

#: Seconds between two looks while something runs: at 10 GB/s a process takes 2.5 GB meanwhile.
LOOK_SECONDS = 0.25
#: The same while nothing does.
IDLE_SECONDS = 1.0
#: The user hears of workers that were ended at most this often, in seconds.
TELL_SECONDS = 30.0
#: Seconds that workers have to say since when they run what they run, and rows that each may send.
ANSWER_SECONDS = 0.25
MOST_ROWS = 100

_rows_decoder = msgspec.msgpack.Decoder(list[TaskRow])


class MemoryWatch:
    """The memory guard of a node."""

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        dispatcher: Dispatcher,
        looking: Looking,
        threshold: float,
    ) -> None:
        """``threshold`` as for ``MemoryGuard``; 1.0 and more: never end anybody."""
        self._loop = loop
        self._workers = workers
        self._dispatcher = dispatcher
        self._looking = looking
        self._guard = MemoryGuard(threshold)
        self._reader = MemoryReader()
        self._silent_until = 0.0
        #: Workers were asked what they run, and have not all answered.
        self._asking = False
        if threshold < 1.0:
            loop.call_later(LOOK_SECONDS, self._look)

    def worker_ended(self, worker_id: bytes) -> None:
        """A worker is gone."""
        self._guard.worker_ended(worker_id, self._loop.now())

    def _look(self) -> None:
        busy = bool(self._dispatcher.scheduler.grants)
        self._loop.call_later(LOOK_SECONDS if busy else IDLE_SECONDS, self._look)
        now = self._loop.now()
        idle = self._dispatcher.pool.idle_workers()
        if self._asking or self._guard.is_quiet(now) or not (busy or idle):
            return
        reading = self._guard.exceeded(self._reader.read(self._guard.threshold))
        if reading is None or self._end_idle(idle, now):
            return
        if self._guard.is_urgent(reading):
            self._end_one(reading, {})
        else:
            self._ask(reading)

    def _end_idle(self, idle: list[bytes], now: float) -> bool:
        """Let idle workers go; return whether there are any that are worth it."""
        workers = (self._workers.by_id[worker_id] for worker_id in idle)
        sizes = [Idle(worker.worker_id, private_bytes(worker.pid)) for worker in workers]
        chosen = self._guard.choose_idle(sizes, now)
        for worker_id in chosen:
            logger.info("memory is short: idle worker %s is let go", worker_id.hex())
            self._dispatcher.let_go(worker_id)
        return bool(chosen)

    def _ask(self, reading: Reading) -> None:
        """Ask workers when their calls have begun, then end one of them."""
        candidates = self._candidates({})
        if not candidates:
            return
        self._asking = True

        def answered(inspection: Inspection) -> None:
            self._asking = False
            running: dict[bytes, TaskRow] = {}
            for page in inspection.pages:
                for row in _rows_decoder.decode(page.rows):
                    known = running.get(page.process_id)
                    if row.state == "RUNNING" and (known is None or known.started < row.started):
                        running[page.process_id] = row
            self._end_one(reading, running)

        self._looking.ask_for_us(
            LIVE_TASKS,
            MOST_ROWS,
            ANSWER_SECONDS,
            answered,
            processes=[candidate.worker_id for candidate in candidates],
        )

    def _end_one(self, reading: Reading, running: dict[bytes, TaskRow]) -> None:
        """End a worker; ``running``: what is known of what they run."""
        victim = self._guard.choose(self._candidates(running), self._loop.now())
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

    def _candidates(self, running: dict[bytes, TaskRow]) -> list[Candidate]:
        candidates = []
        unix_time = time.time() - self._loop.now()
        for grant in self._dispatcher.scheduler.grants.values():
            worker = self._workers.by_id.get(grant.worker_id)
            if worker is None or worker.cause or not worker.pid:
                continue
            request = grant.request
            name, since = request.name, grant.since
            row = running.get(grant.worker_id)
            # What an actor has goes with it, whatever it does at the moment.
            if row is not None and not request.actor_id:
                name, since = row.name, max(row.started - unix_time, since)
            candidates.append(
                Candidate(
                    grant.worker_id,
                    worker.pid,
                    f"{request.kind} {name}",
                    request.holder,
                    request.retriable,
                    since,
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
