"""What all workloads share: the system under test, timing, and memory of its processes.

A workload is a script: ``python tasks.py one_by_one``.  It runs in a fresh process, with the
environment variable ``BENCH_SYSTEM`` naming the module to measure, and prints one number as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: ``skate``, ``ray``, or ``plain``: the same work without either, where that makes sense.
SYSTEM = os.environ.get("BENCH_SYSTEM", "skate")
#: In the environment of the driver and so of everything that it starts.
MARK = "BENCH_RUN"


def load() -> Any:
    """Import the system under test: the module has the same names in both."""
    return importlib.import_module(SYSTEM)


def seconds(work: Callable[[], object]) -> float:
    """Run ``work`` once and return how long it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(work: Callable[[], object], operations: int, passes: int = 5) -> float:
    """Return operations per second, the median of ``passes`` after one that does not count."""
    work()
    return statistics.median(operations / seconds(work) for _ in range(passes))


def check(condition: bool) -> None:
    """End the workload if it did not compute what it should (also under ``python -O``)."""
    if not condition:
        raise SystemExit("wrong result")


def session_processes() -> set[int]:
    """Return the pids of what this process started, directly or not, daemons included.

    Daemons leave the process tree of the driver, but not its environment; a process that was given
    another environment is still found by its parents.
    """
    mark = f"{MARK}={os.environ[MARK]}".encode()
    me = os.getpid()
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in _pids():
        try:
            # The name in the second field may contain anything, spaces and brackets included.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            parents[pid] = int(fields[1])
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    grown = True
    found.add(me)
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return found - {me, os.getppid()}


def session_memory_mb() -> float:
    """Return the PSS of the session without its driver, in MB (10^6 bytes).

    PSS divides shared pages among those who map them, so the sum counts each page once.
    """
    return sum(map(_pss_mb, session_processes()))


def own_memory_mb() -> float:
    """Return the PSS of this process, in MB."""
    return _pss_mb(os.getpid())


def _pss_mb(pid: int) -> float:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # A process that has just ended has no lines.
    amounts = [int(x.split()[1]) for x in rollup.splitlines() if x.startswith("Pss:")]
    return sum(amounts) * 1024 / 1e6


def main(*workloads: Callable[[], float]) -> None:
    """Run the workload named on the command line and print its figure."""
    named = {workload.__name__: workload for workload in workloads}
    print(json.dumps({"figure": named[sys.argv[1]]()}))


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
