"""Counters, gauges and histograms of user code, as in ``ray.util.metrics``.

They count in drivers, tasks and actors; ``init(metrics_port=...)`` serves the sums to Prometheus::

    from skate.util.metrics import Counter

    rows = Counter("rows_read", description="Rows read so far", tag_keys=("table",))
    rows.inc(100, tags={"table": "orders"})

Counters and histograms of all processes are added up, those of ended ones too.  A gauge is one
process's own: it has the tag ``worker_id`` besides its own, and goes with the process.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from skate.series import COUNTER, GAUGE, HISTOGRAM, registry

__all__ = ["Counter", "Gauge", "Histogram"]

#: What Prometheus allows.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_TAG = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
#: Names that begin like this are those of Skate itself.
RESERVED_PREFIX = "skate_"
#: Tags that Skate adds.
RESERVED_TAGS = frozenset(("le", "worker_id"))


class Metric:
    """What the three kinds have in common.

    Args:
        name: Letters, digits and underscores; not beginning with ``skate_``.
        description: For people.
        tag_keys: Names of the tags that every value has.

    Raises:
        ValueError: A name is none that Prometheus allows, or belongs to a metric of another kind.
        TypeError: ``tag_keys`` is not a sequence of strings.
    """

    _kind = ""

    def __init__(
        self, name: str, description: str = "", tag_keys: Sequence[str] | None = None
    ) -> None:
        keys = () if tag_keys is None else tag_keys
        if isinstance(keys, str) or not isinstance(keys, Sequence):
            raise TypeError(f"tag_keys must be a sequence of strings, not {tag_keys!r}")
        for key in keys:
            if not isinstance(key, str):
                raise TypeError(f"tag_keys must be a sequence of strings, not {tag_keys!r}")
            if not _TAG.fullmatch(key) or key in RESERVED_TAGS:
                raise ValueError(f"{key!r} is no name for a tag")
        self._name = _checked_name(name)
        self._description = description
        self._tag_keys = tuple(keys)
        self._default_tags: dict[str, str] = {}
        self._metric = registry.declare(self._name, self._kind, description, self._bounds())

    def _bounds(self) -> Sequence[float]:
        return ()

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Any:
        """Set tags for calls that do not give them; return this metric.

        Raises:
            ValueError: A tag is not among ``tag_keys``.
            TypeError: A value is not a string.
        """
        self._check(default_tags)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": dict(self._default_tags),
        }

    def _check(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"{self._name} has no tag {key!r}, only {list(self._tag_keys)}")
            if not isinstance(value, str):
                raise TypeError(f"the tag {key} must be a string, not {value!r}")

    def _tags(self, tags: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
        if tags:
            self._check(tags)
        elif not self._tag_keys:
            return ()
        merged = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in merged]
        if missing:
            raise ValueError(f"{self._name} lacks values for the tags {missing}")
        return tuple(sorted(merged.items()))

    def _value(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{self._name} takes numbers, not {value!r}")
        return float(value)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process it is that process's metric of the same name.
        return _rebuild, (type(self), self._arguments(), self._default_tags)

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self._tag_keys


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a metric: letters, digits and underscores, not beginning"
            " with a digit"
        )
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(f"{name!r}: names with {RESERVED_PREFIX} are those of Skate itself")
    return name


def _rebuild(kind: Any, arguments: tuple[Any, ...], default_tags: dict[str, str]) -> Any:
    return kind(*arguments).set_default_tags(default_tags)


class Counter(Metric):
    """A number that only grows.  For the arguments see ``Metric``."""

    _kind = COUNTER

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Increase it.

        Raises:
            ValueError: ``value`` is not positive, or a tag is missing or unknown.
        """
        number = self._value(value)
        if not 0 < number < math.inf:
            raise ValueError(f"{self._name} can only be increased, not by {value!r}")
        registry.add(self._metric, self._tags(tags), number)


class Gauge(Metric):
    """A number that goes up and down.  For the arguments see ``Metric``."""

    _kind = GAUGE

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set it.

        Raises:
            ValueError: A tag is missing or unknown.
        """
        registry.put(self._metric, self._tags(tags), self._value(value))


class Histogram(Metric):
    """How often values lie in which range.

    Args:
        name: As in ``Metric``.
        description: As in ``Metric``.
        boundaries: Upper ends of the ranges, positive and ascending; one more range is beyond.
        tag_keys: As in ``Metric``.

    Raises:
        ValueError: As ``Metric``, or the boundaries make no sense.
    """

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        bounds = [float(bound) for bound in boundaries or ()]
        if not bounds or bounds[0] <= 0 or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(
                f"the boundaries of a histogram are positive and ascending, not {boundaries!r}"
            )
        self.boundaries = bounds
        super().__init__(name, description, tag_keys)

    def _bounds(self) -> Sequence[float]:
        return self.boundaries

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys, default tags and boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count a value.

        Raises:
            ValueError: It is not a number (NaN), or a tag is missing or unknown.
        """
        number = self._value(value)
        if math.isnan(number):
            raise ValueError(f"{self._name} cannot count what is not a number")
        registry.observe(self._metric, self._tags(tags), number)
