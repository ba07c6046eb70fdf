"""``import skate`` is light: it starts nothing and imports only what it needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Too heavy, or needed by few: whoever uses them imports them.
HEAVY = {
    "asyncio",
    "click",
    "concurrent.futures",
    "matplotlib",
    "multiprocessing",
    "numpy",
    "optuna",
    "pandas",
    "psutil",
    "rich",
    "sklearn",
    "ssl",
    "xgboost",
}

REPORT = """
import json, os, sys, threading
descriptors = set(os.listdir("/proc/self/fd"))
before = set(sys.modules)
import {module}
print(json.dumps({{
    "modules": sorted(set(sys.modules) - before),
    "threads": threading.active_count(),
    "tasks": len(os.listdir("/proc/self/task")),
    "children": open("/proc/self/task/%d/children" % os.getpid()).read().split(),
    "descriptors": sorted(set(os.listdir("/proc/self/fd")) - descriptors),
}}))
"""


def after_import(module: str) -> dict[str, object]:
    """Import ``module`` in a fresh interpreter and return what that changed."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(module=module)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    report: dict[str, object] = json.loads(done.stdout)
    return report


def test_import_skate_imports_nothing_heavy() -> None:
    modules = after_import("skate")["modules"]
    assert isinstance(modules, list)
    assert "skate.api" in modules
    assert set(modules) & HEAVY == set()
    # The runtime is for those who call init().
    assert not [name for name in modules if name.startswith(("skate.runtime.", "skate.tune"))]


@pytest.mark.parametrize(
    "module", ["skate", "skate.tune", "skate.util", "skate.xgboost", "skate.cli"]
)
def test_import_starts_nothing(module: str) -> None:
    report = after_import(module)
    assert report["threads"] == 1
    assert report["tasks"] == 1
    assert report["children"] == []
    assert report["descriptors"] == []


@pytest.mark.parametrize("module", ["skate.tune", "skate.util.joblib", "skate.xgboost"])
def test_libraries_import_their_extras_only_when_used(module: str) -> None:
    modules = after_import(module)["modules"]
    assert isinstance(modules, list)
    assert (
        set(modules) & {"joblib", "matplotlib", "optuna", "pandas", "sklearn", "xgboost"} == set()
    )
