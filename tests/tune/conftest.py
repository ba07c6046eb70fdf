"""Engines to run trials on, and folders to keep results in."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sessions import at_hand

from skate.tune import session


@pytest.fixture(autouse=True)
def no_trial_goes_on() -> Iterator[None]:
    """Nothing of a trial runs on in this process when its test is over."""
    yield
    deadline = time.monotonic() + 30
    while session._running:
        assert time.monotonic() < deadline, [
            each.context.get_trial_id() for each in session._running
        ]
        gc.collect()  # an actor of the inline engine ends when nobody has it any more
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs that name no folder write into the test's own."""
    folder = tmp_path / "results"
    monkeypatch.setenv("SKATE_RESULTS_DIR", str(folder))
    return folder


@pytest.fixture(scope="module", params=["inline", "native"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine under test; that it is a module's has the tests of one engine run in a row."""
    name: str = request.param
    return name


@pytest.fixture
def engine(engine_name: str) -> str:
    """A session with two CPUs on each engine."""
    at_hand(num_cpus=2, engine=engine_name)
    return engine_name


@pytest.fixture
def inline() -> None:
    """An inline session: for what has nothing to do with processes."""
    at_hand(num_cpus=2, engine="inline")


@pytest.fixture
def native() -> None:
    """A native session with two CPUs: for what needs processes."""
    at_hand(num_cpus=2, engine="native")
