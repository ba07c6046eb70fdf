"""Messages about shared memory and the objects in it, to and from the daemon of the node."""

from __future__ import annotations

from typing import TypeAlias

from skate.runtime.wire.parts import Location, Message


class ObjectStored(Message, tag=62):
    """A process wrote an object to shared memory, for itself or for another owner."""

    object_id: bytes
    location: Location
    #: Where in the user's program: the name of a task, or a file and line.
    created: str = ""


class ObjectFreed(Message, tag=63):
    """From the owner: nobody can reach the object any more.  From the daemon, to the process that
    writes the segment: this memory is free, its header is wiped."""

    object_id: bytes
    location: Location


class SegmentRetired(Message, tag=64):
    """Broadcast: nothing will be written to this segment again, unmap it when you can."""

    segment_id: int


class LocateObject(Message, tag=120):
    """Where on this node is the object?  ``location`` is where it was said to be.

    The daemon brings it here if it has to: from disk, or from another node.
    """

    #: 0: do not answer, the object is going to be asked for.
    request_id: int
    object_id: bytes
    location: Location


class ObjectsUsed(Message, tag=124):
    """These objects were read lately: others are to be written to disk before them."""

    object_ids: list[bytes]


class RequestRoom(Message, tag=122):
    """No segment of so many bytes could be had: tell me when there is room."""

    request_id: int
    size: int
    #: Give up after so many seconds without anything that could be spilled.
    patience: float
    #: Tell then who holds it all.
    explain: bool


class RoomAnswer(Message, tag=123):
    """Answer to ``RequestRoom``: try again now, or ``error`` says why there will be no room."""

    request_id: int
    error: str


class ObjectLocated(Message, tag=121):
    """Answer to ``LocateObject``; without ``location`` the object is lost, ``reason`` says why."""

    request_id: int
    object_id: bytes
    location: Location | None
    reason: str
    #: Where it is, if it is not lost and there is no room for it in memory; for the user.
    no_room: str = ""


# --------------------------------------------------------------------------- store link


class AcquireSegment(Message, tag=80):
    """Make me the writer of a segment of at least ``size`` bytes; the fd comes with the answer."""

    size: int


class MapSegment(Message, tag=81):
    """Send me the fd of a segment that somebody else writes, for reading."""

    segment_id: int


class GiveBackSegment(Message, tag=82):
    """I am the writer of this segment, nothing in it is in use: take it back."""

    segment_id: int


class SegmentAnswer(Message, tag=83):
    """The answer to each of the three; ``error`` is empty if it succeeded.  A file descriptor
    travels with it (SCM_RIGHTS) unless it answers ``GiveBackSegment`` or is an error."""

    segment_id: int
    size: int
    error: str = ""


StoreRequest: TypeAlias = AcquireSegment | MapSegment | GiveBackSegment
