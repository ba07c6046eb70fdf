"""Messages about placement groups."""

from __future__ import annotations

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


class FindPlacementGroups(Message, tag=194):
    """Tell me of one group (by id or by name), or of all."""

    request_id: int
    group_id: bytes = b""
    name: str = ""
    namespace: str = ""


class PlacementGroupRow(Message, tag=198):
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
