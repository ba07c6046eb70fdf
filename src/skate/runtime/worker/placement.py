"""Placement groups as their users see them: made, waited for, removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.engine.base import PlacementGroupInfo
from skate.exceptions import PlacementGroupRemovedError
from skate.refs import ObjectRef
from skate.runtime.wire.messages import (
    CreatePlacementGroup,
    FindPlacementGroups,
    PlacementGroupsFound,
    PlacementGroupState,
    RemovePlacementGroup,
    WatchPlacementGroup,
)
from skate.runtime.worker.cells import INLINE, Cell
from skate.runtime.worker.pump import Waiter
from skate.serialization import serialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


class _Group:
    """A group that this process has made or asked about."""

    __slots__ = ("cause", "state", "waiting")

    def __init__(self) -> None:
        #: "" until the daemon has said something.
        self.state = ""
        self.cause = ""
        #: Cells that wait for the group, each with its value.
        self.waiting: list[tuple[Cell, bytes]] = []


class Placement:
    """See ``skate.engine.base.PlacementGroups``."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._groups: dict[bytes, _Group] = {}
        #: Groups that end with this process.
        self.owned: set[bytes] = set()

    def create(
        self, bundles: Sequence[dict[str, float]], strategy: str, name: str, detached: bool
    ) -> bytes:
        """Ask for a group; see ``PlacementGroups.create``."""
        core = self.core
        with core.lock:
            core.check_open()
            group_id = core.ids.draw()
            group = self._groups[group_id] = _Group()
            if not detached:
                self.owned.add(group_id)
            core.links.send_node(
                CreatePlacementGroup(
                    group_id, list(bundles), strategy, name, core.namespace, detached
                )
            )
            core.pump.nudge()
        if name:
            self._await_answer(group)
            if group.state == "removed":
                raise ValueError(group.cause)
        return group_id

    def _await_answer(self, group: _Group) -> None:
        """Wait until the daemon has entered the group's name, or refused it."""
        waiter = Waiter(1)

        def look() -> bool:
            waiter.done = bool(group.state)
            return waiter.done

        self.core.pump.any_waiters.append(waiter)
        try:
            look()
            self.core.block(waiter, None, look)
        finally:
            self.core.pump.any_waiters.remove(waiter)

    def ready(self, group_id: bytes, value: object) -> ObjectRef[Any]:
        """Return a ref that is ready with the group; see ``PlacementGroups.ready``."""
        core = self.core
        data = serialize(value).to_bytes()
        with core.lock:
            core.check_open()
            cell = Cell(core.ids.draw(), core.address)
            group = self._groups.get(group_id)
            if group is None:
                group = self._groups[group_id] = _Group()
                core.links.send_node(WatchPlacementGroup(group_id))
                core.pump.nudge()
            if group.state == "created":
                cell.data = data
                cell.status = INLINE
            else:
                group.waiting.append((cell, data))
        return ObjectRef(cell)

    def remove(self, group_id: bytes) -> None:
        """End a group; see ``PlacementGroups.remove``."""
        core = self.core
        with core.lock:
            core.check_open()
            core.links.send_node(RemovePlacementGroup(group_id))
            core.pump.nudge()
            self._ended(group_id, "it was removed by remove_placement_group")

    def find(self, group_id: bytes = b"", name: str = "") -> list[PlacementGroupInfo]:
        """Ask the daemon; see ``PlacementGroups.find``."""
        core = self.core
        answer: PlacementGroupsFound = core.ask(
            lambda number: FindPlacementGroups(number, group_id, name, core.namespace)
        )
        return [
            PlacementGroupInfo(
                row.group_id,
                row.name,
                row.namespace,
                row.strategy,
                row.state,
                row.bundles,
                row.nodes,
                row.reason,
                row.detached,
            )
            for row in answer.rows
        ]

    # ------------------------------------------------------------------ all below: locked

    def on_state(self, message: PlacementGroupState) -> None:
        """The daemon tells the state of a group."""
        group_id = message.group_id
        if message.state == "removed":
            self._ended(group_id, message.cause)
            return
        group = self._groups.get(group_id)
        if group is None:
            return
        group.state = message.state
        # Those who wait for the answer alone.
        self.core.pump.completions += 1
        if message.state == "created":
            waiting, group.waiting = group.waiting, []
            for cell, data in waiting:
                cell.data = data
                self.core.objects.complete(cell, INLINE)

    def _ended(self, group_id: bytes, cause: str) -> None:
        self.owned.discard(group_id)
        group = self._groups.pop(group_id, None)
        if group is None:
            return
        group.state = "removed"
        group.cause = cause
        self.core.pump.completions += 1
        self.core.leasing.forget_group(group_id)
        self.core.actors.group_removed(group_id, cause)
        if group.waiting:
            text = f"placement group {group_id.hex()} is gone: {cause}"
            self._fail(group, self.core.error(PlacementGroupRemovedError(text)))

    def _fail(self, group: _Group, error: bytes) -> None:
        waiting, group.waiting = group.waiting, []
        for cell, _ in waiting:
            self.core.objects.fail(cell, error)

    def fail_all(self, error: bytes) -> None:
        """The session is over."""
        for group in self._groups.values():
            group.state = group.state or "removed"
            self._fail(group, error)
