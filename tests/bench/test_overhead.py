"""The comparison of sessions that can be looked into with those that cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(150)
def test_both_kinds_of_sessions_are_measured() -> None:
    # Whether it is under the limit is for a quiet machine to say.
    program = [sys.executable, "-m", "bench.overhead", "--sessions", "1", "--tasks", "2000"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert re.search(r"^cpu, least( +\d+\.\d+){3}$", done.stdout, re.M), done.stderr
    assert "preload" not in done.stderr
