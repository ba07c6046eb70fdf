"""The demo, as a user runs it; and while somebody kills its workers."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import xgboost

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.timeout(240)


def start(folder: Path, trials: int) -> subprocess.Popen[str]:
    """Start the demo with few trials and without a terminal."""
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--trials", str(trials), "--results", str(folder / "results")],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check(folder: Path, code: int, output: str, trials: int) -> None:
    """Check what the demo said and left."""
    assert code == 0, output
    assert "Best configuration" in output
    assert f"{trials} trials in" in output
    assert "default parameters" in output
    results = folder / "results"
    assert (results / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert not re.findall(r"""(?:src|href)=["']?https?:""", page)
    assert xgboost.Booster(model_file=results / "best_model.json").num_features() == 30


def test_the_demo(tmp_path: Path) -> None:
    process = start(tmp_path, 6)
    output, _ = process.communicate(timeout=200)
    check(tmp_path, process.returncode, output, 6)


def test_the_demo_while_its_workers_are_killed(tmp_path: Path) -> None:
    dice = random.Random(0)
    killed: list[int] = []
    process = start(tmp_path, 8)
    try:
        demo = psutil.Process(process.pid)
        deadline = time.monotonic() + 200
        # Reading its output in the end is enough: it fits into the pipe.
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(dice.uniform(0.1, 0.6))  # the moments to strike at; nothing waits for it
            workers = []
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in demo.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if child.name() == "skate-worker":
                            workers.append(child)
            if workers and len(killed) < 12:
                victim = dice.choice(workers)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert len(killed) >= 5
    check(tmp_path, process.returncode, output, 8)
