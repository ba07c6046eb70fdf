"""Who waits for what: what processes answer when the daemon looks for calls that hang."""

from __future__ import annotations

import msgspec

from skate.runtime.wire.state import TaskRow

#: What processes are asked for; see ``StateQuery``.
WAITS = "waits"

#: Kinds of waiting.
GET = "get"
WAIT = "wait"
NEXT = "next"
AS_COMPLETED = "as_completed"
#: A call of an async actor is suspended.
AWAIT = "await"
DEBUGGER = "debugger"


class CallRow(msgspec.Struct, array_like=True, gc=False):
    """A call that runs, or a thread of a driver (or of user code) that waits."""

    #: Without id for threads that run no call.
    task: TaskRow
    #: Tells threads of one process apart.
    thread: int
    #: What it waits in: "" if it does not.
    kind: str = ""
    #: Objects that are not there, and how many of them it needs.
    objects: list[bytes] = []
    needed: int = 0
    #: It waits no longer than its timeout.
    bounded: bool = False
    #: File and line of the user's code, and the function there; "" if not known.
    place: str = ""
    function: str = ""
    #: Another call that runs on top of it in the same thread and has to return first.
    below: bytes = b""


class MadeRow(msgspec.Struct, array_like=True, gc=False):
    """A call whose results somebody waits for, as its owner knows it."""

    task: TaskRow
    objects: list[bytes]
    #: Arguments that are not there.
    arguments: list[bytes]


class QueueRow(msgspec.Struct, array_like=True, gc=False):
    """Calls that a concurrent actor has not begun: one of those that run has to end first."""

    #: The concurrency group, and how many calls of it may run at the same time; 0: one call blocks
    #: the event loop.
    group: str
    limit: int
    running: list[bytes]
    queued: list[bytes]


class WaitPage(msgspec.Struct, array_like=True, gc=False):
    """What one process knows."""

    calls: list[CallRow]
    made: list[MadeRow]
    #: Its calls do not wait for each other's end: an async or threaded actor.
    concurrent: bool
    #: Those of its calls that do wait, all the same.
    queues: list[QueueRow] = []
