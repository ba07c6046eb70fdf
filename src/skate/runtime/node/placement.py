"""The daemon's part in placement groups: carries out what the head decides, on this node.

The head is a plain object in the daemon of the head node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from skate.ids import owner_of
from skate.runtime.head.placement import NodeView
from skate.runtime.head.placement_groups import (
    Commit,
    Effect,
    Notify,
    PlacementGroups,
    Release,
    Reserve,
)
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.scheduler import Request
from skate.runtime.wire.messages import REMOVED_KIND
from skate.runtime.wire.placement import (
    CreatePlacementGroup,
    FindPlacementGroups,
    PlacementGroupsFound,
)

if TYPE_CHECKING:
    from skate.runtime.node.links import Links
    from skate.runtime.node.loop import Loop


class Placement:
    """Placement groups as this node sees them."""

    def __init__(
        self, node_id: bytes, loop: Loop, links: Links, dispatcher: Dispatcher, namespace: str
    ) -> None:
        self._node_id = node_id
        self._loop = loop
        self._links = links
        self._dispatcher = dispatcher
        self._scheduler = dispatcher.scheduler
        self.groups = PlacementGroups(namespace, self._views)
        dispatcher.placement = self

    def _views(self) -> list[NodeView]:
        resources = self._scheduler.resources
        return [NodeView(self._node_id, resources.total, resources.free)]

    # ------------------------------------------------------------------ messages

    def create(self, owner: bytes, message: CreatePlacementGroup) -> None:
        """A process makes a group."""
        self.apply(self.groups.create(message, owner, self._loop.now()))

    def remove(self, group_id: bytes) -> None:
        """A process removes a group."""
        self.apply(self.groups.remove(group_id))

    def watch(self, process_id: bytes, group_id: bytes) -> None:
        """A process has a handle from another one."""
        self.apply(self.groups.watch(group_id, process_id, self._creator_lives(group_id)))

    def find(self, process_id: bytes, message: FindPlacementGroups) -> None:
        """A process asks about groups."""
        rows = self.groups.rows(message.group_id, message.name, message.namespace)
        self._links.send(process_id, PlacementGroupsFound(message.request_id, rows))

    def process_died(self, process_id: bytes) -> None:
        """The groups of a process end with it."""
        self.apply(self.groups.process_died(process_id))

    def gone(self, group_id: bytes) -> str:
        """Say why nothing can run in a group any more; "" if it can, or perhaps will."""
        return self.groups.gone(group_id, self._creator_lives(group_id))

    def _creator_lives(self, group_id: bytes) -> bool:
        return owner_of(group_id) in self._links.by_process

    # ------------------------------------------------------------------ effects

    def reserved(self, request: Request) -> None:
        """The bundles of a group that waited in the queue are reserved."""
        group_id = request.group_id
        self.apply(self.groups.reserved(group_id, self._node_id, request.bundles))

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry out what the head wants."""
        for effect in effects:
            if isinstance(effect, Notify):
                for process_id in effect.processes:
                    self._links.send(process_id, effect.state)
            elif isinstance(effect, Reserve):
                request = Request.for_group(
                    effect.owner, effect.group_id, effect.bundles, effect.name
                )
                self._dispatcher.submit(request)
            elif isinstance(effect, Commit):
                self._scheduler.reservations.commit(effect.group_id)
                self._dispatcher.look_again()
            elif isinstance(effect, Release):
                self._release(effect)
            else:
                self._dispatcher.on_warning(effect.text)

    def _release(self, effect: Release) -> None:
        """Give bundles back and end what runs in them; what waits goes on waiting unless the group
        has ended for good."""
        group_id = effect.group_id
        self._scheduler.cancel(group_id)
        cause = effect.cause or "a node of its placement group has died"
        for grant in self._scheduler.grants_in(group_id, effect.indices):
            self._dispatcher.end_in_group(grant, cause, final=bool(effect.cause))
        self._scheduler.reservations.remove(group_id, effect.indices)
        if effect.cause:
            for request in self._scheduler.cancel_place(group_id):
                self._dispatcher.refuse(request, self.refusal(group_id), REMOVED_KIND)
        self._dispatcher.look_again()

    def refusal(self, group_id: bytes) -> str:
        """Say that nothing runs in this group any more."""
        return f"its placement group {group_id.hex()} is gone: {self.gone(group_id)}"
