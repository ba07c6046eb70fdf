"""Starting workers for requests that wait for one, and giving up on those that do not start."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from skate.runtime.node import session_dir
from skate.runtime.node.environments import Environments
from skate.runtime.node.loop import Loop
from skate.runtime.node.pool import Pool
from skate.runtime.node.requests import Request
from skate.runtime.node.workers import Worker, Workers

logger = logging.getLogger(__name__)

#: How much of the log of a worker that could not start is shown, in bytes.
TAIL_SIZE = 2000


class WorkerStarts:
    """Forks as many workers as the pool says, and remembers why the last of them failed."""

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        pool: Pool,
        environments: Environments,
        on_given_up: Callable[[bytes, bytes, str], None],
    ) -> None:
        """``on_given_up(kind, environment, reason)``: workers of a kind do not start."""
        self._loop = loop
        self._workers = workers
        self._pool = pool
        self._environments = environments
        self._on_given_up = on_given_up
        self._last_failure = ""

    def fork(self, kind: bytes, waiting: list[Request]) -> None:
        """Start workers of a kind for those who wait for one."""
        environment = waiting[0].environment if waiting else b""
        job = waiting[0].job if waiting else None
        prepared = self._environments.table.ready.get(environment)
        for _ in range(self._pool.to_fork(len(waiting), kind)):
            try:
                worker_id = self._workers.fork(prepared, job, kind)
            except OSError as error:
                self._last_failure = str(error)
                logger.warning("cannot fork a worker: %s", error)
                if self._pool.failed(kind):
                    self._give_up(kind, environment)
                break
            self._pool.forked(worker_id, self._loop.now(), kind)

    def forked(self, worker: Worker) -> None:
        """A worker's process exists: its time to start runs from now on, imports left out."""
        if worker.worker_id in self._pool.starting:
            self._pool.forked(worker.worker_id, self._loop.now())

    def ended(self, worker: Worker, cause: str) -> None:
        """A worker is gone: it may have been about to start."""
        worker_id = worker.worker_id
        if worker_id in self._pool.starting:
            text = session_dir.tail(worker.log_path, TAIL_SIZE)
            self._last_failure = f"{cause}" + (f"; it said:\n{text}" if text else "")
            logs = os.path.dirname(worker.log_path)
            if not os.path.isdir(logs):
                directory = os.path.dirname(logs)
                self._last_failure += f"; somebody has removed the session's directory {directory}"
            logger.warning("worker %s did not start: %s", worker_id.hex(), self._last_failure)
        if self._pool.ended(worker_id):
            self._give_up(worker.serves, worker.environment)

    def _give_up(self, kind: bytes, environment: bytes) -> None:
        where = " in this runtime environment" if environment else ""
        reason = f"worker processes cannot be started{where}: {self._last_failure}"
        self._on_given_up(kind, environment, reason)

    def end_overdue(self, now: float) -> None:
        """End workers that take too long to start."""
        for worker_id in self._pool.overdue(now):
            worker = self._workers.by_id[worker_id]
            # Without a pid it waits for the zygote, which may have much to import.
            if worker.pid:
                self._workers.kill(worker, "did not start in time")
