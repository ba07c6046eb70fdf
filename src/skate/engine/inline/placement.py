"""Placement groups of the inline engine: sums of what is reserved, on its one node.

Nothing waits here.  A group that cannot be had at once stays pending until another one is removed;
its ``ready()`` fails meanwhile as if a timeout had passed, because while the caller waits nobody
else could change anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skate.engine.base import PlacementGroupInfo
from skate.engine.inline.running import dump_error, store_value
from skate.exceptions import (
    ActorPlacementGroupRemovedError,
    GetTimeoutError,
    PlacementGroupRemovedError,
)
from skate.refs import ObjectRef
from skate.runtime.amounts import Units, add_units, to_units
from skate.runtime.head.placement import NodeView, plan, why_not

if TYPE_CHECKING:
    from skate.engine.inline.engine import InlineEngine

logger = logging.getLogger("skate")

REMOVED = "it was removed by remove_placement_group"


class InlinePlacementGroups:
    """See ``skate.engine.base.PlacementGroups``."""

    def __init__(
        self,
        engine: InlineEngine,
        node_id: bytes,
        resources: dict[str, float],
        namespace: str,
        new_id: Callable[[], bytes],
    ) -> None:
        self._engine = engine
        self._node_id = node_id
        self._total = to_units(resources)
        self._namespace = namespace
        self._new_id = new_id
        self._groups: dict[bytes, PlacementGroupInfo] = {}

    def _available(self) -> Units:
        taken = add_units(
            to_units(bundle)
            for info in self._groups.values()
            if info.state == "created"
            for bundle in info.bundles
        )
        return {name: count - taken.get(name, 0) for name, count in self._total.items()}

    def create(
        self, bundles: Sequence[dict[str, float]], strategy: str, name: str, detached: bool
    ) -> bytes:
        """Reserve the bundles now, if there is room."""
        if name and self.find(name=name):
            raise ValueError(
                f"a placement group named {name!r} exists in the namespace {self._namespace!r}"
            )
        group_id = self._new_id()
        self._groups[group_id] = PlacementGroupInfo(
            group_id,
            name,
            self._namespace,
            strategy,
            "pending",
            list(bundles),
            [],
            "its resources are in use",
            detached,
        )
        self._try(group_id)
        return group_id

    def _try(self, group_id: bytes) -> None:
        info = self._groups[group_id]
        units = [to_units(bundle) for bundle in info.bundles]
        view = NodeView(self._node_id, self._total, self._available())
        found = plan(units, info.strategy, [view])
        if found is not None:
            info.state, info.nodes, info.reason = "created", found, ""
            return
        reason = why_not(units, info.strategy, [view])
        if reason:
            info.reason = reason
            logger.warning("placement group %s cannot be created: %s", group_id.hex(), reason)

    def ready(self, group_id: bytes, value: object) -> ObjectRef[Any]:
        """Return a ref of ``value`` if the group is created, otherwise one that fails."""
        cell = self._engine.new_cells(1)[0]
        info = self._groups.get(group_id)
        if info is not None and info.state == "created":
            store_value(cell, value)
            return ObjectRef(cell)
        name = f"placement group {group_id.hex()}"
        error: Exception
        if info is None or info.state == "removed":
            cause = info.reason if info is not None else "it is not known"
            error = PlacementGroupRemovedError(f"{name} is gone: {cause}")
        else:
            error = GetTimeoutError(
                f"{name} is not ready: {info.reason}; in the inline engine nothing changes while"
                " the caller waits"
            )
        cell.data = dump_error(error)
        cell.failed = True
        return ObjectRef(cell)

    def remove(self, group_id: bytes) -> None:
        """End the group and its actors; others may take its place."""
        info = self._groups.get(group_id)
        if info is None or info.state == "removed":
            return
        info.state, info.nodes, info.reason = "removed", [], REMOVED
        self._engine.end_actors_in(
            group_id,
            lambda actor_id: ActorPlacementGroupRemovedError(
                f"actor {actor_id} is dead: its placement group is gone: {REMOVED}",
                actor_id=actor_id,
            ),
        )
        for other in list(self._groups.values()):
            if other.state == "pending":
                self._try(other.group_id)

    def refusal(self, group_id: bytes) -> str:
        """Say why nothing can run in a group; "" if it can."""
        info = self._groups.get(group_id)
        if info is not None and info.state != "removed":
            return ""
        return f"its placement group {group_id.hex()} is gone: {REMOVED}"

    def find(self, group_id: bytes = b"", name: str = "") -> list[PlacementGroupInfo]:
        """Return the group of that id or name, or all."""
        if name:
            return [i for i in self._groups.values() if i.name == name and i.state != "removed"]
        if group_id:
            found = self._groups.get(group_id)
            return [found] if found is not None else []
        return list(self._groups.values())
