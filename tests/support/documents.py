"""The Python code in Markdown pages, run as a reader would run it: as one script per page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def code(page: Path) -> str:
    """Return all Python blocks of ``page`` as one script."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


def expected(script: str) -> list[str]:
    """Return the comments behind the ``print`` calls: what they print."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", script, re.M)


def run(page: Path, folder: Path, seconds: float) -> str:
    """Run the code of ``page`` in ``folder`` and return the script.

    The script has to succeed and to print what its comments say, in their order.
    """
    script = folder / "page.py"
    script.write_text(code(page))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
        # Tune keeps its results in the home directory.
        env={**os.environ, "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The libraries may say something in between.
    lines = iter(done.stdout.splitlines())
    for line in expected(script.read_text()):
        assert line in lines, f"{line!r} is missing, or too early, in\n{done.stdout}"
    return script.read_text()
