"""Messages about objects that are lost."""

from __future__ import annotations

from skate.runtime.wire.parts import Location, Message


class ReportLost(Message, tag=180):
    """Borrower to owner: no copy can be had from there; tell me the value once there is one."""

    object_id: bytes
    location: Location
    #: Why, for the user.
    reason: str
