"""Breakpoints in tasks and actors: stopping at them, finding those that wait, attaching."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from skate.exceptions import SessionError

if TYPE_CHECKING:
    from skate.runtime.tool.debugger import DebuggerClient
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.debugger import Debugger

#: In workers: ``breakpoint()`` goes there.
_core: Core | None = None
_debugger: Debugger | None = None


@dataclasses.dataclass(frozen=True)
class Breakpoint:
    """A task or actor call that waits for a debugger."""

    #: Hexadecimal digits.
    breakpoint_id: str
    #: The directory of its session.
    session_dir: str
    task_id: str
    task_name: str
    actor_id: str
    pid: int
    #: The Unix socket on which it waits.
    address: str
    file: str
    line: int
    function: str
    #: What it has raised, in one line; "" at a ``breakpoint()``.
    error: str
    #: Unix time.
    since: float


def install(core: Core, post_mortem: bool) -> None:
    """Make ``breakpoint()`` in this worker wait for ``skate debug``."""
    global _core
    _core = core
    sys.breakpointhook = _hook
    if post_mortem:
        assert core.executor is not None
        core.executor.post_mortem = lambda error: _worker_debugger().post_mortem(error)


def _worker_debugger() -> Debugger:
    global _debugger
    if _debugger is None:
        assert _core is not None
        from skate.runtime.worker.debugger import Debugger  # it imports pdb: 15 ms

        _debugger = Debugger(_core)
    return _debugger


def _hook(*args: Any, **kwargs: Any) -> Any:
    # Whoever has named a debugger of his own, or none ("0"), gets that.
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **kwargs)
    return set_trace(sys._getframe(1))


def set_trace(frame: FrameType) -> None:
    """Stop where ``frame`` is: in a worker wait for ``skate debug``, elsewhere call pdb."""
    if _core is not None and _worker_debugger().is_here:
        _worker_debugger().stop_at(frame)
    else:
        import pdb

        pdb.Pdb().set_trace(frame)


def waiting(address: str | None = None) -> list[Breakpoint]:
    """Return the breakpoints at which calls wait, the longest first.

    Args:
        address: The directory or name of a session; None: all sessions of this user.

    Raises:
        SessionError: There is no such session.
    """
    from skate.runtime.tool import attach, sessions

    if address is not None:
        directories = [sessions.find(address).directory]
    else:
        directories = [session.directory for session in sessions.running_sessions()]
    # By id: each node of a cluster tells of those of all.
    found: dict[str, Breakpoint] = {}
    for directory in directories:
        # Of all sessions one may just be ending.
        with contextlib.suppress(*([SessionError] if address is None else [])):
            with attach.Attached(directory) as attached:
                rows = attached.state("breakpoints")
            for row in rows:
                found.setdefault(row["breakpoint_id"], _from_row(directory, row))
    return sorted(found.values(), key=lambda one: one.since)


def _from_row(directory: str, row: dict[str, Any]) -> Breakpoint:
    names = [field.name for field in dataclasses.fields(Breakpoint)]
    known = {name: row[name] for name in names if name in row}
    return Breakpoint(session_dir=directory, **known)


def attach(point: Breakpoint) -> DebuggerClient:
    """Connect to a call that waits.

    Raises:
        SessionError: It waits no more.
    """
    from skate.runtime.tool.debugger import DebuggerClient

    return DebuggerClient(point.address)
