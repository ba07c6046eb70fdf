"""``python -m bench.soak``: an hour's work in some minutes, and what is left of it afterwards.

A million small tasks, ten thousand actors made and dropped in batches, a hundred gigabytes through
a store of one.  Memory, descriptors and shared memory are counted before and after, when everything
is idle again; what grows more than the limits below allow is a leak, and the exit status is 1.
``--scale 0.01`` does a hundredth; the tests do that.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

import skate

TASKS = 1_000_000
TASKS_AT_ONCE = 10_000
ACTORS = 10_000
ACTORS_AT_ONCE = 50
#: So much of the work with tasks and actors is done before the first count.
WARM_UP_PART = 0.3
GIGABYTES = 100.0
STORE_BYTES = 1_000_000_000
ARRAY_BYTES = 50_000_000

#: What may be there afterwards that was not there before.  Allocators keep what they have once
#: had, so memory comes back to within some pages per process and not to the byte.
MEMORY_GROWTH_MB = 6.0
DESCRIPTOR_GROWTH = 4
#: Until surplus workers have been retired and idle memory is given back nothing changes for less
#: than so many seconds.
QUIET_SECONDS = 12.0
#: Seconds to wait for that at most.
SETTLE_SECONDS = 40.0


@dataclass(frozen=True)
class Snapshot:
    """What the session takes at one moment."""

    processes: int
    driver_mb: float
    daemons_mb: float
    workers_mb: float
    driver_descriptors: int
    daemon_descriptors: int
    shared_mb: float

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Names and figures, for the table."""
        return [
            ("processes beside the driver", self.processes),
            ("driver, memory of its own (MB)", self.driver_mb),
            ("node daemon and zygote, memory of their own (MB)", self.daemons_mb),
            ("workers, memory of its own each (MB)", self.workers_mb),
            ("driver, descriptors", self.driver_descriptors),
            ("node daemon, descriptors", self.daemon_descriptors),
            ("/dev/shm and anonymous shared memory (MB)", self.shared_mb),
        ]


def snapshot() -> Snapshot:
    """Count, now."""
    me = psutil.Process()
    daemon = next(p for p in me.children() if p.pid in _daemon_pids())
    zygote = daemon.children()[0]
    workers = zygote.children()
    private = []
    for worker in workers:
        # A surplus one may have ended since.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            private.append(_private_mb(worker.pid))
    return Snapshot(
        2 + len(workers),
        _private_mb(me.pid),
        _private_mb(daemon.pid) + _private_mb(zygote.pid),
        sum(private) / len(private) if private else 0.0,
        me.num_fds(),
        daemon.num_fds(),
        _shared_mb(daemon.pid) + _named_mb(),
    )


def _daemon_pids() -> set[int]:
    return {int(node["daemon_pid"]) for node in skate.nodes()}


def _private_mb(pid: int) -> float:
    """Return what is neither a file nor a segment: those that nobody else has mapped count too."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = file.read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("Anonymous:")) * 1024 / 1e6


def _shared_mb(daemon_pid: int) -> float:
    """Return what the segments take that the daemon holds; it holds all of them."""
    total = 0
    for name in os.listdir(f"/proc/{daemon_pid}/fd"):
        path = f"/proc/{daemon_pid}/fd/{name}"
        try:
            if os.readlink(path).startswith("/memfd:skate"):
                total += os.stat(path).st_blocks * 512
        except OSError:
            continue
    return total / 1e6


def _named_mb() -> float:
    """Return what lies in ``/dev/shm`` under our name.  Other programs use it, too."""
    total = 0
    with os.scandir("/dev/shm") as entries:
        for entry in entries:
            if "skate" in entry.name:
                try:
                    total += entry.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
    return total / 1e6


def settled() -> Snapshot:
    """Return a snapshot when everything is idle again and has been for some seconds."""
    now = time.monotonic()
    deadline = now + SETTLE_SECONDS
    found, since = snapshot(), now
    while now - since < QUIET_SECONDS and now < deadline:
        time.sleep(0.25)
        gc.collect()
        skate.get(skate.put(0))  # finalizers leave their work to the next call
        now = time.monotonic()
        latest = snapshot()
        if (latest.processes, latest.shared_mb) != (found.processes, found.shared_mb):
            since = now
        found = latest
    return found


# --------------------------------------------------------------------------- the work


@skate.remote
def increment(x: int) -> int:
    return x + 1


@skate.remote
def checksum(array: Any) -> int:
    return int(array[0]) + int(array[-1])


@skate.remote
def array_of(value: int) -> Any:
    return np.full(ARRAY_BYTES // 8, value, dtype=np.int64)


class _Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, x: int) -> int:
        self.value += x
        return self.value


# By a call: mypy does not follow decorators of classes.
Counter = skate.remote(_Counter)


def run_tasks(count: int) -> None:
    """Run so many small tasks, some thousands at a time."""
    for start in range(0, count, TASKS_AT_ONCE):
        numbers = range(start, min(start + TASKS_AT_ONCE, count))
        results = skate.get([increment.remote(i) for i in numbers])
        _check(results == [i + 1 for i in numbers])


def run_actors(count: int) -> None:
    """Make so many actors, call each of them twice and drop them, some dozens at a time."""
    for start in range(0, count, ACTORS_AT_ONCE):
        numbers = range(start, min(start + ACTORS_AT_ONCE, count))
        actors = [Counter.remote(i) for i in numbers]
        calls = [actor.add.remote(x) for actor in actors for x in (1, 2)]
        _check(skate.get(calls) == [i + total for i in numbers for total in (1, 3)])


def run_data(gigabytes: float) -> None:
    """Move so much through the store: half written by the driver, half by tasks, all read."""
    rounds = max(round(gigabytes * 1e9 / ARRAY_BYTES / 2), 1)
    source = np.arange(ARRAY_BYTES // 8, dtype=np.int64)
    kept: list[Any] = []
    for i in range(rounds):
        source[0] = i
        put, made = skate.put(source), array_of.remote(i)
        results = skate.get([checksum.remote(put), checksum.remote(made)])
        _check(results == [i + len(source) - 1, 2 * i])
        # Some objects live longer than others, as they do in programs.
        kept.append(put)
        del kept[:-5]


def _check(condition: bool) -> None:
    if not condition:
        raise SystemExit("wrong result")


# --------------------------------------------------------------------------- the report


def soak(scale: float, console: Console) -> list[str]:
    """Do all of it and print a table; return what has leaked, in words."""
    work: list[tuple[str, Callable[[], None]]] = [
        (f"{round(TASKS * scale):,} tasks", lambda: run_tasks(round(TASKS * scale))),
        (f"{round(ACTORS * scale):,} actors", lambda: run_actors(round(ACTORS * scale))),
        (f"{GIGABYTES * scale:.4g} GB of data", lambda: run_data(GIGABYTES * scale)),
    ]
    # Everything that is made once, and the sizes of batches, are there before the first count, and
    # the last 1,000 actors that died; the 4 MiB of events are full only after some 70,000 tasks.
    run_tasks(max(2 * TASKS_AT_ONCE, round(WARM_UP_PART * TASKS * scale)))
    run_actors(max(2 * ACTORS_AT_ONCE, round(WARM_UP_PART * ACTORS * scale)))
    run_data(0.5)
    before = settled()
    for title, run in work:
        started = time.perf_counter()
        run()
        console.print(f"{title}: {time.perf_counter() - started:.1f} s", highlight=False)
    after = settled()
    table = Table("", "before", "after")
    for (name, first), (_, last) in zip(before.rows, after.rows, strict=True):
        table.add_row(name, f"{first:,.1f}", f"{last:,.1f}")
    console.print(table)
    return leaks(before, after)


def leaks(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what is more afterwards than it may be."""
    found = []
    for (name, first), (_, last) in zip(before.rows, after.rows, strict=True):
        allowed = DESCRIPTOR_GROWTH if "descriptors" in name else MEMORY_GROWTH_MB
        if "processes" in name:
            allowed = 0
        if last > first + allowed:
            found.append(f"{name}: {first:,.1f} before, {last:,.1f} after")
    return found


def main() -> int:
    """Run as a program; return an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the whole of it")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100)
    skate.init(num_cpus=2, object_store_memory=STORE_BYTES)
    try:
        found = soak(arguments.scale, console)
    finally:
        skate.shutdown()
    for text in found:
        console.print(f"leak: {text}", highlight=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
