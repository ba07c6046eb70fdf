"""A session on each engine for what stands on the public API alone."""

from __future__ import annotations

import pytest
from sessions import at_hand


@pytest.fixture(scope="module", params=["inline", "native"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine under test; that it is a module's has the tests of one engine run in a row."""
    name: str = request.param
    return name


@pytest.fixture
def session(engine_name: str) -> str:
    """A session with two CPUs; the name of its engine."""
    at_hand(engine=engine_name, num_cpus=2)
    return engine_name


@pytest.fixture
def native() -> None:
    """A session of processes with two CPUs."""
    at_hand(engine="native", num_cpus=2)


@pytest.fixture(scope="module", params=["cpython", "skate-native", "skate-inline"])
def kind_name(request: pytest.FixtureRequest) -> str:
    """The name of ``kind``; that it is a module's has the tests of one kind run in a row."""
    name: str = request.param
    return name


@pytest.fixture
def kind(kind_name: str) -> str:
    """Whose pool or executor is tested: CPython's, or ours in a session of an engine."""
    if kind_name != "cpython":
        at_hand(engine=kind_name.removeprefix("skate-"), num_cpus=2)
    return kind_name
