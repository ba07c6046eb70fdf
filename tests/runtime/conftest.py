"""Sessions and scripts for tests of the native runtime with real processes."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts import Script

import skate


@pytest.fixture
def cluster() -> Iterator[Callable[..., None]]:
    """Start a native session with given options; it ends with the test."""

    def start(**options: object) -> None:
        skate.shutdown()
        skate.init(engine="native", **options)  # type: ignore[arg-type]  # options of each test

    yield start
    skate.shutdown()


@pytest.fixture
def session(cluster: Callable[..., None]) -> None:
    """A native session with two CPUs."""
    cluster(num_cpus=2)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], Script]]:
    """Run code as a script that is cleaned up after."""
    running: list[Script] = []

    def start(code: str) -> Script:
        # Unix socket paths are short: pytest's directories are not.
        directory = Path("/tmp") / f"skt-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        running.append(Script(directory, code))
        return running[-1]

    yield start
    for one in running:
        one.close()
        shutil.rmtree(one.tmp.parent)
