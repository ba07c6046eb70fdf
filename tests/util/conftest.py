"""A session on each engine for what stands on the public API alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sessions import running


@pytest.fixture(scope="module", params=["inline", "native"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session with two CPUs; the name of its engine."""
    with running(engine=request.param, num_cpus=2):
        yield request.param


@pytest.fixture(scope="module")
def native() -> Iterator[None]:
    """A session of processes with two CPUs."""
    with running(engine="native", num_cpus=2):
        yield


@pytest.fixture(scope="module", params=["cpython", "skate-native", "skate-inline"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whose pool or executor is tested: CPython's, or ours in a session of an engine."""
    name: str = request.param
    if name == "cpython":
        yield name
        return
    with running(engine=name.removeprefix("skate-"), num_cpus=2):
        yield name
