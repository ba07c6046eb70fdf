"""A session on each engine for what stands on the public API alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import skate


@pytest.fixture(scope="module", params=["inline", "native"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session with two CPUs; the name of its engine."""
    skate.shutdown()
    skate.init(engine=request.param, num_cpus=2)
    yield request.param
    skate.shutdown()


@pytest.fixture(scope="module")
def native() -> Iterator[None]:
    """A session of processes with two CPUs."""
    skate.shutdown()
    skate.init(engine="native", num_cpus=2)
    yield
    skate.shutdown()
