"""Time limits of calls (``timeout_s``), kept by the caller.

The worker says when a call with a limit starts; the caller's clock counts from there.  So a worker
that hears nothing any more, because C code of a task holds the interpreter, is ended all the same.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from skate.exceptions import TaskTimeoutError
from skate.runtime.wire.calls import TaskStarted
from skate.runtime.wire.messages import Cancel, PeerLost

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer
    from skate.runtime.worker.record import Record

#: A task that was interrupted and goes on is ended by force after so many seconds.
GRACE_SECONDS = 1.0
#: So many entries of calls that have ended are no reason to tidy up.
FEW = 1000


class Overdue:
    """A call that has run longer than it may, and where it does."""

    __slots__ = ("forced", "node_id", "pid", "seconds")

    def __init__(self, pid: int, node_id: bytes, seconds: float) -> None:
        self.pid = pid
        self.node_id = node_id
        self.seconds = seconds
        #: It did not react: its process was killed.
        self.forced = False

    def error(self, record: Record) -> TaskTimeoutError:
        """Return what its refs raise."""
        forced = ", did not react to the interruption and was killed" if self.forced else ""
        return TaskTimeoutError(
            f"{record.name}() ran longer than timeout_s={record.options.timeout_s:g}: it had run"
            f" for {self.seconds:.3g} s (pid {self.pid}, node {self.node_id.hex()}){forced}",
            pid=self.pid,
            node=self.node_id.hex(),
            seconds=self.seconds,
        )


class _Run:
    """One attempt of a call that has started."""

    __slots__ = ("attempt", "node_id", "peer", "pid", "started", "task_id")

    def __init__(self, peer: Peer, message: TaskStarted, started: float) -> None:
        self.task_id = message.task_id
        self.attempt = message.attempt
        self.pid = message.pid
        self.node_id = message.node_id
        self.peer = peer
        self.started = started


_Step = Callable[[_Run, "Record"], None]


class Timeouts:
    """Watches calls with a limit.  All of this runs with the lock held."""

    def __init__(self, core: Core) -> None:
        self.core = core
        #: What to do when, unless the attempt has ended by then.  It must not keep the records of
        #: calls that have: with long limits there may be many.
        self._due: list[tuple[float, int, _Run, _Step]] = []
        self._numbers = itertools.count()
        #: When the pump calls next.
        self._next = math.inf

    def on_started(self, peer: Peer, message: TaskStarted) -> None:
        """A call with a limit starts."""
        run = _Run(peer, message, time.monotonic())
        record = self._find(run)
        if record is not None:
            self._later(record.options.timeout_s, run, self._check)

    def _find(self, run: _Run) -> Record | None:
        record = self.core.submitter.pending.get(run.task_id)
        return record if record is not None and record.task.attempt == run.attempt else None

    def _later(self, seconds: float, run: _Run, step: _Step) -> None:
        due = time.monotonic() + seconds
        heapq.heappush(self._due, (due, next(self._numbers), run, step))
        if len(self._due) > 2 * len(self.core.submitter.pending) + FEW:
            self._due = [entry for entry in self._due if self._find(entry[2]) is not None]
            heapq.heapify(self._due)
        if due < self._next:
            self._next = due
            self.core.pump.call_later(seconds, self._look)

    def _look(self) -> None:
        """Timer: carry out what is due."""
        now = time.monotonic()
        self._next = math.inf
        while self._due and self._due[0][0] <= now:
            _, _, run, step = heapq.heappop(self._due)
            record = self._find(run)
            if record is not None:
                step(run, record)
        if self._due and self._due[0][0] < self._next:
            self._next = self._due[0][0]
            self.core.pump.call_later(max(self._next - now, 0.0), self._look)

    def _check(self, run: _Run, record: Record) -> None:
        now = time.monotonic()
        waited = record.stream.waited(now) if record.stream is not None else 0.0
        seconds = now - run.started - waited
        left = record.options.timeout_s - seconds
        if left > 0:
            self._later(left, run, self._check)
            return
        record.overdue = Overdue(run.pid, run.node_id, seconds)
        self._cancel(run, force=False)
        self._later(GRACE_SECONDS, run, self._force)

    def _cancel(self, run: _Run, force: bool) -> None:
        self.core.links.send(run.peer, Cancel(run.task_id, force, True))
        self.core.pump.nudge()

    def _force(self, run: _Run, record: Record) -> None:
        """It was interrupted and goes on."""
        assert record.overdue is not None
        if record.task.actor_id:
            # The actor has other callers: it lives on, and this call is given up.
            record.home.answered(record)
            self.core.submitter.pending.pop(record.task_id, None)
            self.core.submitter.end_overdue(record)
            return
        record.overdue.forced = True
        self._cancel(run, force=True)
        self._later(GRACE_SECONDS, run, self._report)

    def _report(self, run: _Run, _record: Record) -> None:
        """Not even the worker's background thread runs: the daemon ends it."""
        self.core.links.send_node(PeerLost(run.peer.process_id))
        self.core.pump.nudge()
