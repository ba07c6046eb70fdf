"""A hundredth of the soak: what a session has used is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import soak

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_nothing_grows() -> None:
    program = [sys.executable, "-m", "bench.soak", "--scale", "0.01"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_grows_is_named() -> None:
    before = soak.Snapshot(4, 30.0, 15.0, 60.0, 13, 30, 100.0)
    after = soak.Snapshot(5, 30.5, 80.0, 60.0, 99, 31, 100.0)
    found = soak.leaks(before, after)
    assert [text.split(":")[0] for text in found] == [
        "processes beside the driver",
        "node daemon and zygote, memory of their own (MB)",
        "driver, descriptors",
    ]
