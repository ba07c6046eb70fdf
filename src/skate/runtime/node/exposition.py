"""Metrics as the text that Prometheus reads.

Written by hand: the format is a line per value, and ``prometheus_client`` would keep a registry of
numbers that this process has itself, which is what its library is for and what we do not have; it
would have to be loaded into the daemon for those few lines.
The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from skate.runtime.wire.state import MetricRow

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(rows: Iterable[MetricRow]) -> str:
    """Return the text of all rows; those of one name follow each other."""
    families: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows:
        name = row.name
        if not _NAME.fullmatch(name) or not all(map(_NAME.fullmatch, row.tags)):
            # Not from ``skate.util.metrics``, which checks names.
            continue
        if row.kind == "counter" and not name.endswith("_total"):
            name += "_total"
        families.setdefault((name, row.kind), []).append(row)
    lines: list[str] = []
    named: set[str] = set()
    for (name, kind), family in families.items():
        if name in named:
            # Two processes have used one name for two kinds of things: one has to give way.
            continue
        named.add(name)
        description = family[0].description
        if description:
            lines.append(f"# HELP {name} {_escape_help(description)}")
        lines.append(f"# TYPE {name} {kind}")
        for row in family:
            if kind == "histogram":
                lines += _histogram(name, row)
            else:
                lines.append(f"{name}{_labels(row.tags)} {_number(row.value)}")
    return "\n".join(lines) + "\n"


def _histogram(name: str, row: MetricRow) -> list[str]:
    lines: list[str] = []
    count = 0
    for bound, amount in zip([*row.bounds, float("inf")], row.counts, strict=False):
        count += amount
        labels = _labels({**row.tags, "le": _number(bound)})
        lines.append(f"{name}_bucket{labels} {count}")
    lines.append(f"{name}_sum{_labels(row.tags)} {_number(row.value)}")
    lines.append(f"{name}_count{_labels(row.tags)} {count}")
    return lines


def _labels(tags: Mapping[str, str]) -> str:
    if not tags:
        return ""
    return "{" + ",".join(f'{key}="{_escape(value)}"' for key, value in tags.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
