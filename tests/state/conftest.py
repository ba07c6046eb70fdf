"""A session to look into, and patience."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from patience import until
from sessions import running

T = TypeVar("T")


@pytest.fixture
def session() -> Iterator[None]:
    """A native session with two CPUs."""
    with running(engine="native", num_cpus=2, namespace="state-tests"):
        yield


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], T]], T]:
    """Call a function until what it returns is true."""
    return until
