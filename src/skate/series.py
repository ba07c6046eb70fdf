"""Numbers that user code keeps about itself: counters, gauges and histograms of this process.

``skate.util.metrics`` writes them; the runtime, if there is one, takes them to whoever looks.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"


@dataclass(slots=True)
class Point:
    """Where one series stands: one combination of tags of one metric."""

    #: The value; of a histogram the sum of what was observed.
    value: float = 0.0
    #: Of a histogram: observations up to each bound, and beyond the last one.
    counts: list[int] = field(default_factory=list)


class Metric:
    """All series of one name."""

    __slots__ = ("bounds", "description", "kind", "name", "points")

    def __init__(self, name: str, kind: str, description: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        #: Upper bounds of a histogram's buckets, ascending.
        self.bounds = list(bounds)
        #: By tags, as pairs in the order of their names.
        self.points: dict[tuple[tuple[str, str], ...], Point] = {}


class Registry:
    """All metrics of this process.  Any thread may call it."""

    def __init__(self) -> None:
        # Re-entrant: a finalizer may count, whatever it interrupts.
        self._lock = threading.RLock()
        self.metrics: dict[str, Metric] = {}
        #: Something has changed since this was last set to False.
        self.changed = False
        #: Called when that happens.
        self.on_change: Callable[[], None] = lambda: None

    def declare(
        self, name: str, kind: str, description: str, bounds: Sequence[float] = ()
    ) -> Metric:
        """Return the metric of that name, a new one if there is none.

        Raises:
            ValueError: there is one of another kind, or with other bounds.
        """
        with self._lock:
            metric = self.metrics.get(name)
            if metric is None:
                metric = self.metrics[name] = Metric(name, kind, description, bounds)
            if metric.kind != kind:
                raise ValueError(f"{name} is a {metric.kind} already, and cannot be a {kind} too")
            if metric.bounds != list(bounds):
                raise ValueError(f"the histogram {name} has other boundaries: {metric.bounds}")
            return metric

    def add(self, metric: Metric, tags: tuple[tuple[str, str], ...], amount: float) -> None:
        """Increase a counter."""
        with self._lock:
            self._point(metric, tags).value += amount
        self._note()

    def put(self, metric: Metric, tags: tuple[tuple[str, str], ...], value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._point(metric, tags).value = value
        self._note()

    def observe(self, metric: Metric, tags: tuple[tuple[str, str], ...], value: float) -> None:
        """Count an observation of a histogram."""
        with self._lock:
            point = self._point(metric, tags)
            if not point.counts:
                point.counts = [0] * (len(metric.bounds) + 1)
            point.counts[bisect.bisect_left(metric.bounds, value)] += 1
            point.value += value
        self._note()

    @staticmethod
    def _point(metric: Metric, tags: tuple[tuple[str, str], ...]) -> Point:
        point = metric.points.get(tags)
        if point is None:
            point = metric.points[tags] = Point()
        return point

    def _note(self) -> None:
        if not self.changed:
            self.changed = True
            self.on_change()

    def snapshot(self) -> list[tuple[Metric, tuple[tuple[str, str], ...], Point]]:
        """Return a copy of where every series stands."""
        with self._lock:
            return [
                (metric, tags, Point(point.value, list(point.counts)))
                for metric in self.metrics.values()
                for tags, point in metric.points.items()
            ]


registry = Registry()
