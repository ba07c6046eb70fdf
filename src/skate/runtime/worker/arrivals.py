"""Waiting for the next of several things that come one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from skate.runtime.worker.pump import Waiter

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


class Arriving(Protocol):
    """A stream, or the completions of many refs."""

    #: 1 while something is there to be taken.
    status: int
    #: What to call, with the lock held, when that becomes so.
    listeners: list[Any]


def wait_for_next(core: Core, source: Arriving, deadline: float | None) -> bool:
    """Wait until something is there, or was; False after the deadline (monotonic).

    Another thread may take it first: callers look under the lock, and wait again.
    """
    waiter = Waiter(1)
    with core.lock:
        if source.status:
            return True
        source.listeners.append(waiter)
    if core.block(waiter, deadline):
        return True
    with core.lock:
        if waiter in source.listeners:
            source.listeners.remove(waiter)
    return False
