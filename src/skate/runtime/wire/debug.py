"""Breakpoints: what a worker tells its daemon, and the link between it and ``skate debug``."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from skate.runtime.wire.parts import Message

# --------------------------------------------------------------------------- node link


class AtBreakpoint(Message, tag=230):
    """Worker to daemon: a call stands at a breakpoint, or has raised, and waits for a debugger."""

    #: Unique in the session: hexadecimal digits.
    breakpoint_id: str
    task_id: bytes
    task_name: str
    actor_id: bytes
    #: Unix socket in the directory of the session.
    address: str
    file: str
    line: int
    function: str
    #: What was raised, in one line; "" at a breakpoint.
    error: str
    #: Unix time.
    since: float


class LeftBreakpoint(Message, tag=231):
    """Worker to daemon: it waits no more; a debugger has come, or the call was cancelled."""

    breakpoint_id: str


# --------------------------------------------------------------------------- debugger link


class DebugOutput(Message, tag=232):
    """Worker to debugger: show this."""

    text: str


class DebugPrompt(Message, tag=233):
    """Worker to debugger: ask for a line."""

    text: str


class DebugLine(Message, tag=234):
    """Debugger to worker: a line, without its end."""

    text: str


class DebugComplete(Message, tag=235):
    """Debugger to worker: what can this be completed to?"""

    text: str


class DebugCompletions(Message, tag=236):
    """Answer to ``DebugComplete``."""

    found: list[str]


class DebugEnd(Message, tag=237):
    """Worker to debugger: that was all, for this reason."""

    reason: str


DebugMessage: TypeAlias = (
    DebugOutput | DebugPrompt | DebugLine | DebugComplete | DebugCompletions | DebugEnd
)

debug_decoder: msgspec.msgpack.Decoder[list[DebugMessage]] = msgspec.msgpack.Decoder(
    list[DebugMessage]
)
