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


#: The session that ``at_hand`` has begun: its options, and the id of this process in it.
_begun: tuple[dict[str, Any], str] | None = None


def at_hand(**options: Any) -> None:
    """Have a session with these options of ``init`` run when this returns.

    That is the one of the test before if it was begun for the same options and is still there.  For
    fixtures of single tests: those of a whole module would find the session of another engine when
    a test that asked for that one has come between.
    """
    global _begun
    if skate.is_initialized():
        if _begun == (options, skate.get_runtime_context().get_worker_id()):
            return
        skate.shutdown()
    skate.init(**options)
    _begun = options, skate.get_runtime_context().get_worker_id()
