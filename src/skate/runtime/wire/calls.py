"""Messages about calls that are more than one task and one reply: streams, time limits."""

from __future__ import annotations

import msgspec

from skate.runtime.wire.parts import Message, Value


class Terms(msgspec.Struct, array_like=True, gc=False):
    """What few calls need, so that the message of all others stays small."""

    #: Back-pressure: how many items may wait for the consumer; 0: without limit.
    stream_limit: int = 0
    #: Items that the owner has from an earlier attempt, and those its consumer has taken.
    received: int = 0
    taken: int = 0
    #: The concurrency group in which an actor runs it; "" for the default one.
    group: str = ""
    #: Tell the caller when the call starts.
    announce: bool = False
    #: The worker takes no further tasks after so many calls of the function; 0: without limit.
    max_calls: int = 0


class StreamItems(Message, tag=100):
    """A generator has yielded small values without refs in them, from the ``first``-th on."""

    task_id: bytes
    first: int
    items: list[bytes]


class StreamValues(Message, tag=101):
    """A generator has yielded something else."""

    task_id: bytes
    first: int
    values: list[Value]


class StreamEnded(Message, tag=102):
    """A generator has returned after so many items."""

    task_id: bytes
    count: int
    duration: int


class StreamTaken(Message, tag=103):
    """The consumer has taken so many items in total: the generator may go on."""

    task_id: bytes
    count: int


class StreamDropped(Message, tag=104):
    """Nobody will take further items: end the generator."""

    task_id: bytes


class TaskStarted(Message, tag=105):
    """A call whose caller wants to know starts now."""

    task_id: bytes
    attempt: int
    pid: int
    node_id: bytes


class CancelObject(Message, tag=106):
    """A borrower asks the owner to cancel the task that makes an object."""

    object_id: bytes
    force: bool
    recursive: bool


class Retiring(Message, tag=107):
    """The worker takes no further tasks: give its leases back."""


class WorkerRetires(Message, tag=108):
    """Worker to daemon: I take no further tasks, end me when my lease has ended."""
