"""Sessions for fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import skate


@contextmanager
def running(**options: Any) -> Iterator[None]:
    """Run a session with these options of ``init``, instead of one that another fixture has left.

    It ends with the block, whatever the test did.
    """
    skate.shutdown()
    try:
        skate.init(**options)
        yield
    finally:
        skate.shutdown()
