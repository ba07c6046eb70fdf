"""The results: a table for the terminal, JSON for machines, a short table for the README."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.catalogue import WORKLOADS, Workload

ROOT = Path(__file__).parent.parent
LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass
class Row:
    """The figures of one workload, by column: ``skate``, ``ray``, ``plain``, ``skate 3.12``, ..."""

    workload: Workload
    samples: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def figure(self, column: str) -> float | None:
        """Return the median of a column."""
        samples = self.samples.get(column)
        return statistics.median(samples) if samples else None

    @property
    def ratio(self) -> float | None:
        """How many times better than Ray."""
        return self.workload.ratio(self.figure("skate"), self.figure("ray"))

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None if that cannot be told."""
        return self.workload.met(*map(self.figure, ("skate", "ray", "plain")))


def show(rows: list[Row], console: Console) -> None:
    """Print the table, and below it why figures are missing."""
    extra = sorted({c for row in rows for c in [*row.samples, *row.errors]} - set(_COLUMNS))
    table = Table(title="Medians; every sample from a fresh process", title_justify="left")
    table.add_column("workload")
    for column in ("Skate", "Ray", "plain", "ratio", "wanted", "met", *extra):
        table.add_column(column.replace("skate", "Skate"), justify="right")
    for row in rows:
        met = {True: "[green]yes", False: "[red]no", None: "-"}[row.met]
        cells = [_cell(row, column) for column in _COLUMNS]
        others = [_cell(row, column) for column in extra]
        table.add_row(row.workload.title, *cells, _ratio(row), _wanted(row), met, *others)
    console.print(table)
    for row in rows:
        for column, error in row.errors.items():
            console.print(f"{row.workload.name} on {column}:", style="red")
            console.print(error, markup=False, highlight=False)


def save(rows: list[Row], versions: dict[str, str]) -> Path:
    """Write ``bench/results/latest.json`` and return its path."""
    document = {
        "machine": machine(),
        "versions": versions,
        "rows": [
            {
                "workload": row.workload.name,
                "title": row.workload.title,
                "unit": row.workload.unit,
                "figures": {column: row.figure(column) for column in row.samples},
                "samples": row.samples,
                "errors": row.errors,
                "ratio": row.ratio,
                "wanted": _wanted(row),
                "met": row.met,
            }
            for row in rows
        ],
    }
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(document, indent=2) + "\n")
    return LATEST


def write_readme() -> None:
    """Put the figures of the last run between the markers in ``README.md``.

    Raises:
        FileNotFoundError: nothing has been measured yet.
        ValueError: the README has no markers.
    """
    document = json.loads(LATEST.read_text())
    readme = ROOT / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n{markdown(document)}{END}{after}")


def markdown(document: dict[str, Any]) -> str:
    """Return the short table as Markdown."""
    known = {workload.name: workload for workload in WORKLOADS}
    lines = ["| | Skate | Ray | |", "|---|---:|---:|---:|"]
    for entry in document["rows"]:
        row = Row(known[entry["workload"]], samples=entry["samples"])
        skate, ray = (_cell(row, column) for column in ("skate", "ray"))
        lines.append(f"| {row.workload.title} | {skate} | {ray} | {_ratio(row)} |")
        for column, what in _OTHERS:
            if row.figure(column) is not None:
                plain = "memcpy" if row.workload.name == "objects.put_large" else what
                lines.append(f"| ({plain}, for comparison) | {_cell(row, column)} | | |")
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    where = document["machine"]
    lines += ["", f"{where['cpus']} CPUs, {where['system']}; {versions}.", ""]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "processor": next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        ),
        "system": f"{platform.system()} {platform.machine()}",
    }


_COLUMNS = ("skate", "ray", "plain")
_OTHERS = (("plain", "plain XGBoost"), ("dask", "xgboost.dask"))


def _cell(row: Row, column: str) -> str:
    figure = row.figure(column)
    if figure is None:
        return "failed" if column in row.errors else ""
    return _with_unit(figure, row.workload.unit)


def _with_unit(figure: float, unit: str) -> str:
    return f"{_three_digits(figure)} {unit}".replace(" /s", "/s")


def _three_digits(figure: float) -> str:
    digits = 0 if figure >= 100 else 1 if figure >= 10 else 2 if figure >= 0.1 else 3
    return f"{figure:,.{digits}f}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{_three_digits(row.ratio)}x"


def _wanted(row: Row) -> str:
    wanted = row.workload.wanted
    if wanted.bound in ("at most", "at least"):
        sign = "<=" if wanted.bound == "at most" else ">="
        return f"{sign} {_with_unit(wanted.value, row.workload.unit)}"
    if wanted.bound == "times Ray":
        return f"{wanted.value:g}x"
    sign = "<=" if wanted.bound == "times plain" else ">="
    more = f" + {_with_unit(wanted.plus, row.workload.unit)}" if wanted.plus else ""
    return f"{sign} {wanted.value:g} x plain{more}"
