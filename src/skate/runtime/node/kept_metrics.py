"""Metrics of user code in all processes of a node, ended ones included.  Plain bookkeeping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from skate.runtime.wire.state import MetricRow

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]

#: Series of one process that are kept at most: tags with ever new values must not fill the daemon.
MOST_SERIES = 10_000


class KeptMetrics:
    """What each process has said last, and the sums of those that have ended."""

    def __init__(self) -> None:
        self._living: dict[bytes, list[MetricRow]] = {}
        self._ended: dict[_Key, MetricRow] = {}

    def update(self, process_id: bytes, rows: list[MetricRow]) -> None:
        """A process tells where all its series stand."""
        self._living[process_id] = rows[:MOST_SERIES]

    def ended(self, process_id: bytes) -> None:
        """A process is gone: its counters still count, its gauges do not."""
        for row in self._living.pop(process_id, []):
            if row.kind != "gauge":
                _add(self._ended, row)

    def rows(self) -> list[MetricRow]:
        """Return all series by name: sums of counters and histograms, gauges by process."""
        sums: dict[_Key, MetricRow] = {}
        gauges: list[MetricRow] = []
        for row in self._ended.values():
            _add(sums, row)
        for process_id, rows in self._living.items():
            for row in rows:
                if row.kind == "gauge":
                    tags = {**row.tags, "worker_id": process_id.hex()}
                    gauges.append(MetricRow(row.name, row.kind, row.description, tags, row.value))
                else:
                    _add(sums, row)
        return sorted([*sums.values(), *gauges], key=lambda row: row.name)


def _add(sums: dict[_Key, MetricRow], row: MetricRow) -> None:
    key = (row.name, tuple(sorted(row.tags.items())))
    known = sums.get(key)
    if known is None or known.kind != row.kind or known.bounds != row.bounds:
        # Processes that disagree on what a name means: the last one counts.
        sums[key] = MetricRow(
            row.name,
            row.kind,
            row.description,
            row.tags,
            row.value,
            row.bounds,
            list(row.counts),
        )
        return
    known.value += row.value
    known.counts = [a + b for a, b in zip(known.counts, row.counts, strict=False)] or known.counts


def total(rows: Iterable[MetricRow]) -> dict[tuple[tuple[str, str], ...], float]:
    """Add up the values of rows with the same tags."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for row in rows:
        tags = tuple(sorted(row.tags.items()))
        sums[tags] = sums.get(tags, 0.0) + row.value
    return sums
