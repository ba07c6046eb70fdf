"""Breakpoints in tasks and actors, under the name where ``ray.util.rpdb`` has them."""

from __future__ import annotations

import sys

from skate.api.breakpoints import Breakpoint, attach, waiting
from skate.api.breakpoints import set_trace as _set_trace

__all__ = ["Breakpoint", "attach", "set_trace", "waiting"]


def set_trace(breakpoint_uuid: str | None = None) -> None:
    """Stop here, as ``breakpoint()`` does: in a task or actor wait for ``skate debug``.

    Args:
        breakpoint_uuid: Accepted for compatibility.
    """
    _set_trace(sys._getframe(1))
