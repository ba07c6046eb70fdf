"""What the daemon tells Prometheus: its own tables, what processes count, and what they use."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from skate.runtime.node.config import NodeConfig
from skate.runtime.node.exposition import exposition
from skate.runtime.node.kept_metrics import KeptMetrics, total
from skate.runtime.node.links import Link, Links
from skate.runtime.node.looking import Looking
from skate.runtime.node.loop import Loop
from skate.runtime.node.metrics_http import MetricsServer
from skate.runtime.node.processes import usage
from skate.runtime.node.spilling import Spiller
from skate.runtime.node.state import State
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.state import METRICS, Inspection, MetricRow, MetricsFlushed

logger = logging.getLogger(__name__)

#: Seconds that processes have for an answer: a scrape is given up after 10.
SCRAPE_SECONDS = 5.0
#: Series of one process in one answer.
MOST_SERIES = 10_000
#: Addresses that only this machine can reach.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_decoder = msgspec.msgpack.Decoder(list[MetricRow])


class Metrics:
    """Collects, and serves if the user has asked for it."""

    def __init__(
        self,
        loop: Loop,
        links: Links,
        looking: Looking,
        state: State,
        spiller: Spiller,
        config: NodeConfig,
    ) -> None:
        self._links = links
        self._looking = looking
        self._state = state
        self._spiller = spiller
        self._kept = KeptMetrics()
        self._server: MetricsServer | None = None
        #: For the user, if it could not be done.
        self.problem = ""
        if config.metrics_port >= 0:
            self._serve(loop, config.metrics_host, config.metrics_port)

    @property
    def port(self) -> int:
        """Where it serves; 0: nowhere."""
        return self._server.port if self._server is not None else 0

    def _serve(self, loop: Loop, host: str, port: int) -> None:
        try:
            self._server = MetricsServer(loop, host, port, self._produce)
        except OSError as error:
            self.problem = (
                f"metrics are not served: cannot listen on {host}:{port}"
                f" ({error.strerror or error}); choose another metrics_port, or 0 for a free one"
            )
            return
        if host not in _LOOPBACK:
            logger.warning(
                "metrics are served to everybody who can reach %s:%d", host, self._server.port
            )

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.close()

    def flushed(self, link: Link, message: MetricsFlushed) -> None:
        """A process tells where its metrics stand."""
        try:
            rows = _decoder.decode(message.rows)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolError(f"it sent metrics that are none: {error}") from None
        self._kept.update(link.process_id, rows)

    def gone(self, process_id: bytes) -> None:
        """A process has ended."""
        self._kept.ended(process_id)

    # ------------------------------------------------------------------ a scrape

    def _produce(self, done: Callable[[str], None]) -> None:
        def finish(inspection: Inspection) -> None:
            tasks: list[MetricRow] = []
            for page in inspection.pages:
                tasks += _decoder.decode(page.rows)
            missing = len(inspection.missing)
            done(exposition([*self._rows(tasks, missing), *self._kept.rows()]))

        self._looking.ask_for_us(METRICS, MOST_SERIES, SCRAPE_SECONDS, finish)

    def _rows(self, tasks: list[MetricRow], missing: int) -> Iterator[MetricRow]:
        state = self._state
        yield from _tasks(tasks)
        ended = self._looking.kept
        for name, count in (
            ("FINISHED", ended.finished - ended.failed),
            ("FAILED", ended.failed),
        ):
            yield _row(
                "skate_tasks_ended",
                "counter",
                "Tasks and actor calls that have ended; failed ones have raised",
                count,
                state=name,
            )
        yield _row(
            "skate_processes_silent", "gauge", "Processes that did not answer this scrape", missing
        )
        workers = Counter(str(row["state"]) for row in state.rows("workers"))
        yield from _counts("skate_workers", "Worker processes", workers)
        actors = Counter(str(row["state"]).upper() for row in state.rows("actors"))
        yield from _counts("skate_actors", "Actors, the last dead ones included", actors)
        totals, free = state.own_total(), state.own_available()
        for name, amount in totals.items():
            yield _row("skate_resources_total", "gauge", "What the node has", amount, resource=name)
        for name, amount in totals.items():
            used = max(amount - free.get(name, 0.0), 0.0)
            yield _row("skate_resources_used", "gauge", "What is in use of it", used, resource=name)
        yield from self._store_rows()
        yield _row(
            "skate_leases_granted",
            "counter",
            "Workers given to callers and actors so far",
            state.granted,
        )
        waiting = sum(int(_float(row["count"])) for row in state.rows("demands"))
        yield _row("skate_demands", "gauge", "Requests that wait for a worker", waiting)
        yield from self._usage_rows()

    def _store_rows(self) -> Iterator[MetricRow]:
        for row in self._state.rows("store"):
            for name, about in (
                ("used", "Shared memory for objects in use, in bytes"),
                ("limit", "Shared memory for objects at most, in bytes"),
                ("spilled", "Objects in spill files, in bytes"),
            ):
                amount = _float(row.get(f"{name}_bytes", 0))
                yield _row(f"skate_object_store_{name}_bytes", "gauge", about, amount)
        spiller = self._spiller
        yield _row(
            "skate_object_store_spill_bytes",
            "counter",
            "Bytes written to spill files so far",
            spiller.spilled_bytes,
        )
        yield _row(
            "skate_object_store_restore_bytes",
            "counter",
            "Bytes read back from spill files so far",
            spiller.restored_bytes,
        )

    def _usage_rows(self) -> Iterator[MetricRow]:
        members = [(os.getpid(), "node", "")]
        members += [
            (link.pid, link.kind, link.process_id.hex())
            for link in self._links.by_process.values()
            if link.kind in ("driver", "worker")
        ]
        found = [(member, usage(member[0])) for member in members]
        for index, (name, kind, about) in enumerate(
            (
                ("skate_process_resident_memory_bytes", "gauge", "Memory of a process (RSS)"),
                ("skate_process_cpu_seconds", "counter", "CPU time of a process"),
            )
        ):
            for (pid, what, worker_id), used in found:
                if used is not None:
                    tags = {"pid": str(pid), "kind": what, "worker_id": worker_id}
                    yield MetricRow(name, kind, about, tags, float(used[index]))


def _tasks(rows: list[MetricRow]) -> Iterator[MetricRow]:
    sums = {dict(tags).get("state", ""): value for tags, value in total(rows).items()}
    # Owners cannot tell what runs from what is queued behind it.
    running = sums.get("RUNNING", 0.0)
    sums["SUBMITTED_TO_WORKER"] = max(sums.get("SUBMITTED_TO_WORKER", 0.0) - running, 0.0)
    for name in ("PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER", "RUNNING"):
        about = "Tasks and actor calls that have not ended"
        yield _row("skate_tasks", "gauge", about, sums.get(name, 0.0), state=name)


def _counts(name: str, about: str, counts: Counter[str]) -> Iterator[MetricRow]:
    for state, count in sorted(counts.items()):
        yield _row(name, "gauge", about, count, state=state)


def _row(name: str, kind: str, description: str, value: float, **tags: str) -> MetricRow:
    return MetricRow(name, kind, description, tags, float(value))


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
