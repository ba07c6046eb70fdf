"""This process's answers to those who look inside: what it has submitted, runs, and holds.

Nothing is written down for this while tasks run: the answers are made from the tables that are
there anyway, when somebody asks.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from skate.runtime.wire.filters import matches
from skate.runtime.wire.state import (
    EVENTS,
    LIVE_TASKS,
    OBJECTS,
    STACKS,
    TASKS,
    StateQuery,
    StateReply,
    TaskRow,
)
from skate.runtime.wire.waits import WAITS
from skate.runtime.worker.held_objects import held_objects

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.invoke import Running
    from skate.runtime.worker.record import Record

#: Objects that a task waits for, named in its row.
WAITS_NAMED = 10

_encoder = msgspec.msgpack.Encoder()


class Looking:
    """Answers ``StateQuery``."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def on_query(self, message: StateQuery) -> None:
        """Locked.  The daemon asks."""
        if message.what in (TASKS, LIVE_TASKS):
            if message.what == TASKS:
                # What has finished is the daemon's to tell, and this goes first.
                self.core.events.flush()
            if message.filters:
                self._reply_matching(message, self._tasks())
            else:
                # Of a hundred thousand pending ones only those that are sent are looked at.
                rows = list(itertools.islice(self._tasks(), max(message.limit, 0)))
                self._reply(message, rows, self._count_tasks())
        elif message.what == EVENTS:
            self.core.events.flush()
            self._reply(message, [], 0)
        elif message.what == OBJECTS:
            # Walks all objects of the process: not under the lock.
            self.core.pump.callbacks.append(
                lambda: self._reply_matching(message, held_objects(self.core))
            )
        elif message.what == WAITS:
            from skate.runtime.worker.waits import Waits

            self._reply(message, [Waits(self.core, self._running, self._pending).page()], 1)
        elif message.what == STACKS:
            # Reads source files, likewise.
            self.core.pump.callbacks.append(lambda: self._reply_stacks(message))
        else:
            self.core.own_metrics.flush()
            self._reply_all(message, self.core.own_metrics.tasks())

    def _reply_all(self, message: StateQuery, rows: list[Any]) -> None:
        self._reply(message, rows[: message.limit], len(rows))

    def _reply_stacks(self, message: StateQuery) -> None:
        # With asyncio, which processes without event loop need not load before.
        from skate.runtime.worker.stacks import stacks

        self._reply_all(message, stacks(self.core))

    def _reply_matching(self, message: StateQuery, rows: Iterable[Any]) -> None:
        filters = message.filters
        chosen: list[Any] = []
        total = 0
        for row in rows:
            if filters and not matches(row, filters):
                continue
            total += 1
            if total <= message.limit:
                chosen.append(row)
        self._reply(message, chosen, total)

    def _reply(self, message: StateQuery, rows: list[Any], total: int) -> None:
        core = self.core
        answer = StateReply(message.query_id, _encoder.encode(rows), total)
        with core.lock:
            if core.closed:
                return
            core.links.send_node(answer)
            core.links.flush()

    # ------------------------------------------------------------------ tasks

    def _tasks(self) -> Iterable[TaskRow]:
        """Locked.  What runs here, then what was submitted here and has not finished."""
        clock = time.time() - time.perf_counter()
        executor = self.core.executor
        if executor is not None:
            for running in executor.running_calls():
                yield self._running(running, clock)
        for record in self.core.submitter.pending.values():
            yield self._pending(record, clock)

    def _count_tasks(self) -> int:
        executor = self.core.executor
        running = len(executor.running_calls()) if executor is not None else 0
        return running + len(self.core.submitter.pending)

    def _running(self, running: Running, clock: float) -> TaskRow:
        task = running.task
        return TaskRow(
            task.task_id,
            task.attempt,
            running.name,
            "RUNNING",
            _type(task.task_id, task.actor_id),
            task.actor_id,
            worker_id=self.core.process_id,
            pid=os.getpid(),
            started=running.started + clock,
            blocked=running.blocked,
            depth=task.depth,
        )

    def _pending(self, record: Record, clock: float) -> TaskRow:
        task = record.task
        row = TaskRow(
            task.task_id,
            task.attempt,
            record.name,
            "PENDING_NODE_ASSIGNMENT",
            _type(task.task_id, task.actor_id),
            task.actor_id,
            parent_task_id=record.parent,
            created=record.since + clock,
            depth=task.depth,
        )
        if task.actor_id:
            client = record.home
            row.name = task.name or f"{client.name or 'actor'}.{task.method}"
            if client.peer_of(record) is not None:
                row.state = "SUBMITTED_TO_WORKER"
                row.worker_id, row.pid = client.worker_id, client.peer.pid
        else:
            row.resources = record.home.resources
            lease = record.lease
            if lease is not None:
                row.state = "SUBMITTED_TO_WORKER"
                row.worker_id, row.pid = lease.peer.process_id, lease.pid
        if record.waiting and record.on_resolved is not None:
            row.state = "PENDING_ARGS_AVAIL"
            missing = [cell.object_id for cell in record.slot_cells if not cell.status]
            row.waits_for = missing[:WAITS_NAMED]
        return row


def _type(task_id: bytes, actor_id: bytes) -> str:
    if not actor_id:
        return "NORMAL_TASK"
    return "ACTOR_CREATION_TASK" if task_id == actor_id else "ACTOR_TASK"
