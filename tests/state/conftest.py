"""A session to look into, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from sessions import running

T = TypeVar("T")

#: Nothing in these tests takes longer, in seconds, however loaded the machine.
PATIENCE = 90.0


@pytest.fixture
def session() -> Iterator[None]:
    """A native session with two CPUs."""
    with running(engine="native", num_cpus=2, namespace="state-tests"):
        yield


@pytest.fixture
def until() -> Callable[[Callable[[], T]], T]:
    """Call a function until what it returns is true."""

    def wait(look: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)
        return found

    return wait
