"""``python -m bench.overhead``: what it costs that one can see what happens.

The task benchmark (1,000 empty tasks at once, again and again) runs in sessions as they are, with
metrics served, and in sessions that write nothing down (``bench.blind``) and look for nobody who
hangs.  Sessions of both kinds take turns.  What others do on the machine adds to the time of the
clock and to that of CPUs, so the least that a session has taken of its CPUs (all its processes
together) says most: the exit status is 1 if that is above the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
AT_ONCE = 1000
#: What is wanted: less than 5 % more.
LIMIT = 1.05


def measure(blind: bool, tasks: int) -> dict[str, float]:
    """Run the benchmark in a session of this process; return seconds, of the clock and of CPUs."""
    if blind:
        import bench.blind  # noqa: F401  # it works by being imported
    import skate
    from skate import state

    if blind:
        skate.init(num_cpus=2, preload=["bench.blind"], hang_warning_s=None)
    else:
        skate.init(num_cpus=2, metrics_port=0)
    identity = skate.remote(_identity)
    expected = list(range(AT_ONCE))

    def run(rounds: int) -> None:
        for _ in range(rounds):
            if skate.get([identity.remote(i) for i in range(AT_ONCE)]) != expected:
                raise SystemExit("wrong result")

    run(max(tasks // AT_ONCE // 4, 1))
    started, used = time.perf_counter(), _cpu_seconds()
    run(max(tasks // AT_ONCE, 1))
    result = {"wall": time.perf_counter() - started, "cpu": _cpu_seconds() - used}
    if bool(state.list_tasks(limit=1)) == blind:
        raise SystemExit("the events of tasks are " + ("there" if blind else "not there"))
    skate.shutdown()
    return result


def _identity(x: int) -> int:
    return x


def _cpu_seconds() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def compare(sessions: int, tasks: int) -> dict[str, list[dict[str, float]]]:
    """Run so many sessions of each kind, in turns; return what each has taken."""
    found: dict[str, list[dict[str, float]]] = {"seeing": [], "blind": []}
    for number in range(sessions):
        for kind in ("seeing", "blind")[:: 1 if number % 2 else -1]:
            command = [sys.executable, "-m", "bench.overhead", "--one", kind, "--tasks", str(tasks)]
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True
            )
            found[kind].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--sessions", type=int, default=14, help="of each kind")
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--one", choices=["seeing", "blind"], help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one:
        print(json.dumps(measure(asked.one == "blind", asked.tasks)))
        return 0
    found = compare(asked.sessions, asked.tasks)
    print(f"{'us per task':12}{'as it is':>10}{'blind':>10}   ratio")
    ratio = 1.0
    for name in ("wall", "cpu"):
        for title, chosen in (("median", statistics.median), ("least", min)):
            seeing, blind = (
                chosen([each[name] for each in found[kind]]) / asked.tasks * 1e6
                for kind in ("seeing", "blind")
            )
            ratio = seeing / blind
            print(f"{name + ', ' + title:12}{seeing:10.2f}{blind:10.2f}   {ratio:.3f}")
    # The last line is what counts.
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
