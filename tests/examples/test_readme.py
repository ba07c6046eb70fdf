"""The Python code in README.md runs, from top to bottom, and prints what its comments say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def code() -> str:
    """Return all Python blocks as one script."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S))


def expected(script: str) -> list[str]:
    """Return the comments behind the ``print`` calls."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", script, re.M)


@pytest.mark.timeout(150)
def test_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    script = tmp_path / "tour.py"
    script.write_text(code())
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        # Tune keeps its results in the home directory.
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    promised = expected(script.read_text())
    assert len(promised) == script.read_text().count("print(")
    # The libraries may say something in between.
    lines = iter(done.stdout.splitlines())
    for line in promised:
        assert line in lines, f"{line!r} is missing, or too early, in\n{done.stdout}"


def test_the_readme_names_targets_that_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert named & targets >= {"demo", "test", "bench"}
