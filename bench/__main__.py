"""``python -m bench``: compare Skate with Ray.  ``make bench`` calls it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from bench import catalogue, environments, report
from bench.catalogue import Workload
from bench.report import Row
from bench.runner import run

#: Also measured where they are present, on Skate alone.
SUPPORTED = ("3.11", "3.12", "3.13")
#: Processes per figure for those.
OTHER_REPETITIONS = 2


def main() -> int:
    """Measure, print, save; return an exit status."""
    arguments = _parse()
    if arguments.readme:
        report.write_readme()
        return 0
    console = Console()
    # Logs have no width of their own.
    if not console.is_terminal:
        console = Console(width=140)
    pythons = _pythons(arguments.python, arguments.pythons)
    interpreters, versions = _set_up(pythons, arguments.without_ray)
    rows = []
    for workload in catalogue.selected(arguments.only):
        row = Row(workload)
        with console.status(workload.title):
            _measure(row, interpreters, arguments.repetitions)
        console.print(_line(row), highlight=False)
        rows.append(row)
    console.print()
    report.show(rows, console)
    console.print(f"written to {report.save(rows, versions).relative_to(report.ROOT)}")
    return 1 if any("skate" in row.errors for row in rows) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="words in the names of workloads")
    parser.add_argument("--python", default=sys.executable, help="interpreter for both systems")
    parser.add_argument(
        "--pythons",
        default=" ".join(SUPPORTED),
        help="versions on which Skate alone is measured too, where they are present",
    )
    parser.add_argument("--repetitions", type=int, default=3, help="processes per figure")
    parser.add_argument(
        "--without-ray", action="store_true", help="measure Skate alone, beside the plain ways"
    )
    parser.add_argument("--readme", action="store_true", help="write the last table to README.md")
    return parser.parse_args()


def _pythons(first: str, others: str) -> list[str]:
    """Return interpreters, ``first`` and then one for each other version that can be found."""
    found = {environments.version_of(first): first}
    for version in others.split():
        python = environments.find(version)
        if python is not None:
            found.setdefault(environments.version_of(python), python)
    return list(found.values())


def _set_up(pythons: list[str], without_ray: bool) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the interpreter of each column, and versions for the record."""
    wheel = environments.build_wheel()
    skate = environments.skate_environment(pythons[0], wheel)
    interpreters = {"skate": skate, "plain": skate}
    if not without_ray:
        interpreters["ray"] = environments.ray_environment(pythons[0])
        interpreters["dask"] = environments.dask_environment(pythons[0])
    for python in pythons[1:]:
        version = environments.version_of(python)
        interpreters[f"skate {version}"] = environments.skate_environment(python, wheel)
    versions = {"Python": environments.version_of(pythons[0])}
    packages = {
        "skate": ("skate", "xgboost"),
        "ray": ("ray", "xgboost", "xgboost_ray"),
        "dask": ("distributed",),
    }
    for column, names in packages.items():
        for name in names if column in interpreters else ():
            label = f"{name} ({column})" if name == "xgboost" else name
            versions[label] = _version(interpreters[column], name)
    return interpreters, versions


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _measure(row: Row, interpreters: dict[str, Path], repetitions: int) -> None:
    """Fill in the samples, alternating between the columns, every second time in reverse."""
    workload: Workload = row.workload
    columns = [c for c in interpreters if c.split()[0] in workload.systems]
    for repetition in range(workload.discarded + repetitions):
        for column in columns if repetition % 2 == 0 else reversed(columns):
            if column in row.errors or repetition - workload.discarded >= _most(workload, column):
                continue
            outcome = run(workload, column.split()[0], interpreters[column])
            if outcome.left_behind and column.startswith("skate"):
                row.errors[column] = f"{outcome.left_behind} processes were left behind"
            elif outcome.figure is None:
                row.errors[column] = outcome.error
            elif repetition >= workload.discarded:
                row.samples.setdefault(column, []).append(outcome.figure)


def _most(workload: Workload, column: str) -> int:
    """Return the most repetitions for a column, so that the whole stays below 20 minutes."""
    if column == "ray":
        return workload.ray_repetitions
    return OTHER_REPETITIONS if " " in column else sys.maxsize


def _line(row: Row) -> str:
    parts = [f"{row.workload.title:40}"]
    for column in sorted({*row.samples, *row.errors}):
        figure = row.figure(column)
        parts.append(f"{column} " + ("failed" if figure is None else f"{figure:,.4g}"))
    return "  ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
