"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Nothing that is waited for takes longer, in seconds, however loaded the machine.
PATIENCE = 90.0


def until(look: Callable[[], T]) -> T:
    """Call ``look`` until what it returns is true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found
