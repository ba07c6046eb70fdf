"""Messages about objects in shared memory, between a process and the daemon of its node."""

from __future__ import annotations

from skate.runtime.wire.parts import Location, Message


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
