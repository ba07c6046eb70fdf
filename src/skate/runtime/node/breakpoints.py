"""The calls that wait for a debugger, as the daemon knows them."""

from __future__ import annotations

import os

from skate.runtime.wire.debug import AtBreakpoint

#: How to attach, in messages to the user.
ATTACH = "skate debug"


class Breakpoints:
    """A table of calls that wait.  Those of dead processes are forgotten."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[bytes, int, AtBreakpoint]] = {}

    def add(self, process_id: bytes, pid: int, message: AtBreakpoint) -> str:
        """A call waits; return what to tell the user."""
        self._waiting[message.breakpoint_id] = (process_id, pid, message)
        what = f"raised {message.error} at" if message.error else "has reached the breakpoint at"
        return (
            f"{message.task_name or 'a thread'} (pid {pid}) {what} {message.file}:{message.line}"
            f" and waits; to attach: {ATTACH} {message.breakpoint_id}"
        )

    def remove(self, breakpoint_id: str) -> None:
        """A call waits no more."""
        self._waiting.pop(breakpoint_id, None)

    def process_died(self, process_id: bytes) -> None:
        """Forget what waited in that process."""
        for breakpoint_id, (process, _, _) in list(self._waiting.items()):
            if process == process_id:
                del self._waiting[breakpoint_id]

    def rows(self) -> list[dict[str, str | int | float | bool | dict[str, float]]]:
        """Return what waits, the longest first."""
        return [
            {
                "breakpoint_id": message.breakpoint_id,
                "task_id": message.task_id.hex(),
                "task_name": message.task_name,
                "actor_id": message.actor_id.hex(),
                "pid": pid,
                "address": message.address,
                "file": message.file,
                "file_name": os.path.basename(message.file),
                "line": message.line,
                "function": message.function,
                "error": message.error,
                "since": message.since,
            }
            for _, pid, message in self._waiting.values()
        ]
