"""Metrics of user code in this process: handed to the daemon when they have changed.

At most once a second, before the process ends, and whenever somebody asks: what the daemon has been
told outlives the process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from skate.runtime.wire.state import MetricRow, MetricsFlushed
from skate.series import GAUGE, registry

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core

#: Seconds between a change and telling the daemon.
FLUSH_SECONDS = 1.0
#: What the gauge of tasks is called, in all processes.
TASKS = "skate_tasks"

_encoder = msgspec.msgpack.Encoder()


class OwnMetrics:
    """Takes ``skate.series`` to the daemon."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._scheduled = False

    def start(self) -> None:
        """Follow the registry of this process from now on."""
        registry.on_change = self._schedule
        if registry.metrics:
            # This daemon has not heard of them yet.
            registry.changed = True
            self._schedule()

    def _schedule(self) -> None:
        core = self.core
        with core.lock:
            if not self._scheduled and not core.closed:
                self._scheduled = True
                core.pump.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Locked.  Tell the daemon what has changed."""
        self._scheduled = False
        if not registry.changed:
            return
        # Before the copy: what changes from here on is flushed once more.
        registry.changed = False
        rows = [
            MetricRow(
                metric.name,
                metric.kind,
                metric.description,
                dict(tags),
                point.value,
                metric.bounds,
                point.counts,
            )
            for metric, tags, point in registry.snapshot()
        ]
        self.core.links.send_node(MetricsFlushed(_encoder.encode(rows)))

    def tasks(self) -> list[MetricRow]:
        """Locked.  Return how many tasks this process has submitted or runs, by state."""
        counts: Counter[str] = Counter()
        for record in self.core.submitter.pending.values():
            if record.waiting and record.on_resolved is not None:
                counts["PENDING_ARGS_AVAIL"] += 1
            elif record.lease is not None or (
                record.task.actor_id and record.home.peer_of(record) is not None
            ):
                counts["SUBMITTED_TO_WORKER"] += 1
            else:
                counts["PENDING_NODE_ASSIGNMENT"] += 1
        executor = self.core.executor
        if executor is not None:
            counts["RUNNING"] = len(executor.running_calls())
        return [
            MetricRow(TASKS, GAUGE, "", {"state": state}, float(count))
            for state, count in counts.items()
        ]
