"""Every example runs as a user would run it: as a script, in a process and a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

#: A line that each example prints when it did what it is for.
EXPECTED = {
    "tasks": "[13. 14. 15.]]",
    "actors": "[1, 2]",
    "double": "[0, 2, 4, 6] ... 19998",
    "tune_basic": "best of 100 trials: alpha = 0.0",
    "tune_lightgbm": "good enough: True",
    "tune_pytorch": "good enough: True",
    "tune_sklearn": "good enough: True",
    "tune_xgboost": "good enough: True",
}

#: What an example needs that need not be installed.
NEEDS = {
    "tune_lightgbm": ["lightgbm", "sklearn"],
    "tune_pytorch": ["torch", "sklearn"],
    "tune_sklearn": ["sklearn", "matplotlib"],
    "tune_xgboost": ["xgboost", "sklearn", "optuna"],
}


def run(script: Path, folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``folder``; it must end by itself within ``seconds``."""
    return subprocess.run(
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


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", EXPECTED)
def test_example_runs_and_prints_its_result(name: str, tmp_path: Path) -> None:
    for module in NEEDS.get(name, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = run(EXAMPLES / f"{name}.py", tmp_path, 120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert EXPECTED[name] in done.stdout


def test_every_example_is_run_here() -> None:
    # The demo has tests of its own beside those of skate.xgboost: it takes longer.
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"demo"} == {
        *EXPECTED,
        "xgboost_breast_cancer",
    }


# XGBoost would like another ending than the one in the talk.
@pytest.mark.filterwarnings("ignore:.*Unknown file format:UserWarning")
@pytest.mark.timeout(150)
def test_xgboost_example_leaves_a_model_that_xgboost_reads(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    done = run(EXAMPLES / "xgboost_breast_cancer.py", tmp_path, 120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert xgboost.Booster(model_file=tmp_path / "trained.xgb").num_features() == 30
