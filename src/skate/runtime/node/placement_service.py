"""Carries out what the placement groups of the cluster decide.  It runs in the head's daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from skate.ids import owner_of
from skate.runtime.head.placement import NodeView
from skate.runtime.head.placement_groups import (
    PLAN_SECONDS,
    Commit,
    Effect,
    Notify,
    PlacementGroups,
    Release,
    Reserve,
)
from skate.runtime.head.view import ClusterView
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.links import Links
from skate.runtime.node.loop import Loop, Timer
from skate.runtime.node.placement import Placement
from skate.runtime.wire.placement import (
    CreatePlacementGroup,
    FindPlacementGroups,
    PlacementGroupsFound,
    PlacementGroupState,
    ReleaseBundles,
    ReserveBundles,
)

if TYPE_CHECKING:
    from skate.runtime.node.cluster import Cluster


class PlacementService:
    """Answers what processes ask of placement groups, and has nodes reserve their parts."""

    def __init__(
        self,
        node_id: bytes,
        loop: Loop,
        links: Links,
        dispatcher: Dispatcher,
        here: Placement,
        view: ClusterView,
        namespace: str,
        lives: Callable[[bytes], bool],
    ) -> None:
        """``here``: this node's part.  ``view``: the other nodes.  ``lives(process_id)``."""
        self._node_id = node_id
        self._loop = loop
        self._links = links
        self._dispatcher = dispatcher
        self._here = here
        self._view = view
        self._lives = lives
        self.groups = PlacementGroups(namespace, self._views)
        self._timer: Timer | None = None
        #: In a cluster.
        self.cluster: Cluster | None = None
        #: Told of each group that has ended, and why.
        self.on_removed: Callable[[bytes, str], None] = lambda group_id, cause: None
        here.head = self

    def _views(self) -> list[NodeView]:
        resources = self._dispatcher.scheduler.resources
        views = [NodeView(self._node_id, resources.total, resources.free)]
        views += [NodeView(node.node_id, node.info.total, node.free) for node in self._view]
        return views

    # ------------------------------------------------------------------ processes ask

    def create(self, owner: bytes, message: CreatePlacementGroup) -> None:
        """A process makes a group."""
        self._apply(self.groups.create(message, owner, self._loop.now()))

    def remove(self, group_id: bytes) -> None:
        """A process removes a group."""
        self._apply(self.groups.remove(group_id))

    def watch(self, process_id: bytes, group_id: bytes) -> None:
        """A process has a handle from another one."""
        self._apply(self.groups.watch(group_id, process_id, self._lives(owner_of(group_id))))

    def find(self, process_id: bytes, message: FindPlacementGroups) -> None:
        """A process asks about groups."""
        rows = self.groups.rows(message.group_id, message.name, message.namespace)
        self._links.send(process_id, PlacementGroupsFound(message.request_id, rows))

    def process_died(self, process_id: bytes) -> None:
        """The groups of a process end with it."""
        self._apply(self.groups.process_died(process_id))

    # ------------------------------------------------------------------ nodes report

    def reserved(self, node_id: bytes, group_id: bytes, attempt: int) -> None:
        """A node has reserved its part of a group."""
        self._apply(self.groups.reserved(group_id, node_id, attempt))

    def asked(self, node_id: bytes, group_id: bytes) -> None:
        """A node wants to know where a group is, now and whenever that changes."""
        self.watch(node_id, group_id)

    def nodes_changed(self) -> None:
        """A node has come."""
        self._apply(self.groups.nodes_changed(self._loop.now()))

    def node_left(self, node_id: bytes) -> None:
        """A node is gone."""
        self._apply(self.groups.node_died(node_id, self._loop.now()))

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.now()
        self._apply([*self.groups.overdue(now), *self.groups.nodes_changed(now)])

    # ------------------------------------------------------------------ effects

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Notify):
                self._notify(effect)
            elif isinstance(effect, Reserve):
                self._tell(
                    effect.node_id,
                    ReserveBundles(
                        effect.group_id,
                        effect.owner,
                        effect.bundles,
                        effect.name,
                        effect.attempt,
                    ),
                )
            elif isinstance(effect, Commit):
                self._tell(effect.node_id, effect.state)
            elif isinstance(effect, Release):
                self._release(effect)
            else:
                self._dispatcher.on_warning(effect.text)
        if self.cluster is not None and self._timer is None and self.groups.pending:
            self._timer = self._loop.call_later(PLAN_SECONDS, self._on_timer)

    def _notify(self, effect: Notify) -> None:
        if effect.state.state == "removed":
            self.on_removed(effect.state.group_id, effect.state.cause)
        for watcher in effect.processes:
            if watcher == self._node_id or self._view.get(watcher) is not None:
                self._tell(watcher, effect.state)
            else:
                self._links.send(watcher, effect.state)

    def _release(self, effect: Release) -> None:
        if effect.cause:
            state = PlacementGroupState(effect.group_id, "removed", effect.cause)
            self._tell(effect.node_id, state)
        else:
            indices = None if effect.indices is None else sorted(effect.indices)
            self._tell(effect.node_id, ReleaseBundles(effect.group_id, indices))

    def _tell(
        self, node_id: bytes, message: ReserveBundles | ReleaseBundles | PlacementGroupState
    ) -> None:
        if node_id != self._node_id:
            assert self.cluster is not None
            self.cluster.links.send(node_id, message)
        elif isinstance(message, ReserveBundles):
            self._here.reserve(message)
        elif isinstance(message, ReleaseBundles):
            self._here.release(message)
        else:
            self._here.told(message)
