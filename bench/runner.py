"""Runs workloads, each in a fresh process, and cleans up after them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from bench.catalogue import Workload

WORKLOADS = Path(__file__).parent / "workloads"
#: In the environment of a driver; everything it starts inherits it.
MARK = "BENCH_RUN"
#: Seconds that a system has to end its processes after its driver has exited.
GRACE = 10.0


@dataclass
class Outcome:
    """What one process came to."""

    figure: float | None
    #: Why there is no figure: the end of what the process said.
    error: str = ""
    #: Processes that were still there when the grace period was over.
    left_behind: int = 0


def run(workload: Workload, system: str, python: Path) -> Outcome:
    """Run one workload once in a new process of ``python``."""
    mark = uuid.uuid4().hex
    environment = {
        name: value
        for name, value in os.environ.items()
        # The environments must not see this checkout, nor a cluster that somebody has running.
        if not name.startswith(("PYTHON", "RAY_", "SKATE_", "VIRTUAL_ENV"))
    }
    environment |= {
        MARK: mark,
        "BENCH_SYSTEM": system,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray announces a coming change of default in every driver unless this is set.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        driver = subprocess.Popen(
            [str(python), str(WORKLOADS / workload.script), workload.function],
            env=environment,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            driver.wait(workload.timeout)
            error = f"exit code {driver.returncode}"
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            error = f"no result after {workload.timeout:.0f} s"
        left_behind = _clean_up(mark)
        output.seek(0)
        lines = output.read().splitlines()
    # Logs of workers may come after the figure.
    figures = [line for line in lines if line.startswith('{"figure": ')]
    if driver.returncode == 0 and figures:
        return Outcome(float(json.loads(figures[-1])["figure"]), left_behind=left_behind)
    return Outcome(None, "\n".join([*lines[-15:], error]), left_behind)


def _clean_up(mark: str) -> int:
    """Wait until every process with ``mark`` is gone; return how many had to be killed."""
    deadline = time.monotonic() + GRACE
    while (pids := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Zombies and processes that end meanwhile have no environment to read.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
