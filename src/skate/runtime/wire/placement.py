"""Messages about placement groups."""

from __future__ import annotations

import msgspec

from skate.runtime.wire.parts import Message


class CreatePlacementGroup(Message, tag=190):
    """Reserve these bundles; ``PlacementGroupState`` tells the state now and when it changes."""

    group_id: bytes
    bundles: list[dict[str, float]]
    strategy: str
    #: "" for a group without a name.
    name: str
    namespace: str
    detached: bool


class RemovePlacementGroup(Message, tag=191):
    """End what runs in the group and give its resources back."""

    group_id: bytes


class WatchPlacementGroup(Message, tag=192):
    """I have the group's handle from somebody else: tell me its state."""

    group_id: bytes


class PlacementGroupState(Message, tag=193):
    """``state``: "pending", "created" or "removed"."""

    group_id: bytes
    state: str
    #: Why it is removed, for the user.
    cause: str
    #: The node of each bundle of a group that is created.
    nodes: list[bytes] = msgspec.field(default_factory=list)


class FindPlacementGroups(Message, tag=194):
    """Tell me of one group (by id or by name), or of all."""

    request_id: int
    group_id: bytes = b""
    name: str = ""
    namespace: str = ""


class PlacementGroupRow(msgspec.Struct, array_like=True):
    """One group for tools and users."""

    group_id: bytes
    name: str
    namespace: str
    strategy: str
    #: As in ``PlacementGroupState``.
    state: str
    bundles: list[dict[str, float]]
    #: The node of each bundle; empty unless the group is created.
    nodes: list[bytes]
    #: Why it is pending or removed.
    reason: str
    detached: bool


class PlacementGroupsFound(Message, tag=195):
    """Answer to ``FindPlacementGroups``."""

    request_id: int
    rows: list[PlacementGroupRow]


# --------------------------------------------------------------------------- between daemons


class ReserveBundles(Message, tag=196):
    """Head to node: reserve these bundles (units by index), or queue for them."""

    group_id: bytes
    #: The process that wants them.
    owner: bytes
    bundles: dict[int, dict[str, int]]
    #: What the group is called in messages to the user.
    name: str
    #: Goes back with the answer.
    attempt: int


class BundlesReserved(Message, tag=197):
    """Node to head: I have."""

    group_id: bytes
    attempt: int


class ReleaseBundles(Message, tag=199):
    """Head to node: give these bundles back (None: all), the group is planned anew.

    What has ended for good is told by ``PlacementGroupState``.
    """

    group_id: bytes
    indices: list[int] | None
