"""The placement groups of a cluster: states, names, owners, who watches, where the bundles are.

Plain decisions: events in, effects out.  A group is *pending* until every node that has a part of
it has reserved its part (``Reserve`` and ``reserved``); then it is *created* and all parts are
committed.  If one node cannot, the parts that were reserved are given back and the group is planned
anew.  On one node that node's queue decides when there is room, and nothing has to be rolled back.
When a node dies, the bundles that it held are planned anew; what runs in the others goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from skate.ids import owner_of
from skate.runtime.amounts import Units, add_units, to_units
from skate.runtime.head.placement import STRATEGIES, NodeView, Plan, plan, why_not
from skate.runtime.wire.placement import (
    CreatePlacementGroup,
    PlacementGroupRow,
    PlacementGroupState,
)

#: Removed groups that are remembered with their cause, for those who ask late.
REMEMBERED = 1_000
#: A group in a cluster is planned anew if it is not reserved after so many seconds: two groups with
#: parts on several nodes might hold what the other one lacks, and other nodes may have got room.
PLAN_SECONDS = 2.0

REMOVED = "it was removed by remove_placement_group"


class Reserve(msgspec.Struct, frozen=True):
    """Have a node reserve bundles (by index), or queue for them."""

    node_id: bytes
    group_id: bytes
    owner: bytes
    bundles: dict[int, Units]
    name: str
    #: The node's answer names it: it may have crossed a later plan.
    attempt: int


class Commit(msgspec.Struct, frozen=True):
    """The bundles on this node may be used."""

    node_id: bytes
    state: PlacementGroupState


class Release(msgspec.Struct, frozen=True):
    """Have a node give back these bundles (None: all) and end what runs in them."""

    node_id: bytes
    group_id: bytes
    #: Why the group has ended, for the user; "" if it will be planned anew.
    cause: str
    indices: frozenset[int] | None = None


class Notify(msgspec.Struct, frozen=True):
    """Tell these processes (or nodes) the group's state."""

    processes: frozenset[bytes]
    state: PlacementGroupState


class Warn(msgspec.Struct, frozen=True):
    """Tell the user."""

    text: str


Effect: TypeAlias = Reserve | Commit | Release | Notify | Warn


class Group:
    """One group's record."""

    __slots__ = (
        "attempt",
        "bundles",
        "cause",
        "kept",
        "nodes",
        "owner",
        "planned_at",
        "reserved",
        "spec",
        "state",
        "watchers",
    )

    def __init__(self, spec: CreatePlacementGroup, owner: bytes) -> None:
        """Raise ValueError if the bundles make no sense."""
        self.spec = spec
        self.owner = owner
        self.bundles = [to_units(bundle) for bundle in spec.bundles]
        if not self.bundles or not all(self.bundles):
            raise ValueError("a placement group has at least one bundle, and none may be empty")
        if spec.strategy not in STRATEGIES:
            raise ValueError(f"there is no placement strategy {spec.strategy!r}")
        self.state = "pending"
        self.cause = ""
        #: The node of each bundle; b"" while there is no plan for it.
        self.nodes: Plan = [b""] * len(self.bundles)
        #: Indices of bundles that are reserved, ...
        self.reserved: set[int] = set()
        #: ... and of those that the group has had since before its present plan.
        self.kept: set[int] = set()
        self.planned_at = 0.0
        #: How often it was planned.
        self.attempt = 0
        self.watchers: set[bytes] = {owner}

    @property
    def name(self) -> str:
        """What it is called in messages to the user."""
        return repr(self.spec.name) if self.spec.name else self.spec.group_id.hex()

    def on(self, node_id: bytes) -> set[int]:
        """Return the indices of the bundles on, or planned for, a node."""
        return {index for index, holder in enumerate(self.nodes) if holder == node_id}

    @property
    def holders(self) -> list[bytes]:
        """The nodes that have a part, or are to have one."""
        return sorted(set(self.nodes) - {b""})

    def message(self) -> PlacementGroupState:
        """Return the state as watchers see it."""
        nodes = list(self.nodes) if self.state == "created" else []
        return PlacementGroupState(self.spec.group_id, self.state, self.cause, nodes)

    def row(self) -> PlacementGroupRow:
        """Return the row for tools."""
        spec = self.spec
        nodes = self.nodes if self.state == "created" else []
        return PlacementGroupRow(
            spec.group_id,
            spec.name,
            spec.namespace,
            spec.strategy,
            self.state,
            spec.bundles,
            nodes,
            self.cause,
            spec.detached,
        )


class PlacementGroups:
    """All groups of a cluster."""

    def __init__(self, namespace: str, views: Callable[[], Sequence[NodeView]]) -> None:
        """``views`` returns the nodes that live, the one to prefer first."""
        self._namespace = namespace
        self._views = views
        self.groups: dict[bytes, Group] = {}
        self._names: dict[tuple[str, str], Group] = {}
        self._removed: OrderedDict[bytes, Group] = OrderedDict()
        #: Who watches groups whose ``CreatePlacementGroup`` has not arrived.
        self._expected: dict[bytes, set[bytes]] = {}
        #: Per creator, the highest id that is not remembered any more.
        self._forgotten: dict[bytes, bytes] = {}

    @property
    def pending(self) -> bool:
        """Whether a group waits for something."""
        return any(group.state == "pending" for group in self.groups.values())

    # ------------------------------------------------------------------ creation and look-up

    def create(self, spec: CreatePlacementGroup, owner: bytes, now: float) -> list[Effect]:
        """Somebody asks for a group."""
        group_id = spec.group_id
        if group_id in self.groups or group_id in self._removed:
            return self.watch(group_id, owner, True)
        spec.namespace = spec.namespace or self._namespace
        try:
            group = Group(spec, owner)
        except ValueError as error:
            state = PlacementGroupState(group_id, "removed", str(error))
            return [Notify(frozenset({owner}), state)]
        group.watchers |= self._expected.pop(group_id, set())
        name = (spec.namespace, spec.name)
        if spec.name and name in self._names:
            group.state = "removed"
            group.cause = (
                f"a placement group named {spec.name!r} exists in the namespace {spec.namespace!r}"
            )
            told = Notify(frozenset(group.watchers), group.message())
            self._remember(group)
            return [told]
        self.groups[group_id] = group
        if spec.name:
            self._names[name] = group
        return self._plan(group, now)

    def watch(self, group_id: bytes, process_id: bytes, creator_lives: bool) -> list[Effect]:
        """A process has a handle: it is told the state now and whenever it changes."""
        group = self.groups.get(group_id)
        if group is None:
            if self.is_expected(group_id, creator_lives):
                self._expected.setdefault(group_id, set()).add(process_id)
                return []
            state = PlacementGroupState(group_id, "removed", self.gone(group_id, False))
            return [Notify(frozenset({process_id}), state)]
        group.watchers.add(process_id)
        return [Notify(frozenset({process_id}), group.message())]

    def is_expected(self, group_id: bytes, creator_lives: bool) -> bool:
        """Whether the group may be unknown because its handle was faster than its creation."""
        return (
            creator_lives
            and group_id not in self._removed
            and group_id > self._forgotten.get(owner_of(group_id), b"")
        )

    def gone(self, group_id: bytes, creator_lives: bool) -> str:
        """Say why nothing can run in a group any more; "" if it can, or perhaps will."""
        if group_id in self.groups or self.is_expected(group_id, creator_lives):
            return ""
        removed = self._removed.get(group_id)
        return removed.cause if removed is not None else "it has been removed, or never existed"

    def rows(self, group_id: bytes, name: str, namespace: str) -> list[PlacementGroupRow]:
        """Return the group of that id or name, or all (the removed ones too, as in Ray)."""
        if name:
            named = self._names.get((namespace or self._namespace, name))
            return [named.row()] if named is not None else []
        if group_id:
            found = self.groups.get(group_id) or self._removed.get(group_id)
            return [found.row()] if found is not None else []
        return [group.row() for group in (*self._removed.values(), *self.groups.values())]

    # ------------------------------------------------------------------ planning

    def _plan(
        self, group: Group, now: float, freed: Mapping[bytes, Units] = MappingProxyType({})
    ) -> list[Effect]:
        """Choose nodes for the missing bundles and ask them; say so if there can be none.

        ``freed`` comes back to the nodes just now.
        """
        views = [
            NodeView(
                view.node_id, view.total, add_units([view.available, freed.get(view.node_id, {})])
            )
            for view in self._views()
        ]
        strategy = group.spec.strategy
        if group.kept and strategy == "STRICT_SPREAD":
            views = [view for view in views if view.node_id not in group.nodes]
        missing = [index for index in range(len(group.bundles)) if index not in group.kept]
        bundles = [group.bundles[index] for index in missing]
        group.planned_at = now
        chosen = plan(bundles, strategy, views)
        if chosen is None:
            reason = why_not(bundles, strategy, views)
            if reason:
                return self._cannot(group, reason)
            chosen = plan(bundles, strategy, views, whole=True)
            assert chosen is not None
        group.cause = "its resources are in use"
        group.attempt += 1
        parts: dict[bytes, dict[int, Units]] = {}
        for index, node_id in zip(missing, chosen, strict=True):
            group.nodes[index] = node_id
            parts.setdefault(node_id, {})[index] = group.bundles[index]
        group_id = group.spec.group_id
        return [
            Reserve(node_id, group_id, group.owner, part, group.name, group.attempt)
            for node_id, part in parts.items()
        ]

    @staticmethod
    def _cannot(group: Group, reason: str) -> list[Effect]:
        if reason == group.cause:
            return []
        group.cause = reason
        return [
            Warn(
                f"placement group {group.name} cannot be created: {reason}. It waits until such "
                "nodes exist; ask for less, or remove it."
            )
        ]

    def reserved(self, group_id: bytes, node_id: bytes, attempt: int) -> list[Effect]:
        """A node has reserved its part."""
        group = self.groups.get(group_id)
        if group is None or group.state == "created" or attempt != group.attempt:
            # Removed, or planned anew, while this was on its way: the node is told so already.
            return []
        group.reserved |= group.on(node_id)
        if len(group.reserved) < len(group.bundles):
            return []
        group.state = "created"
        group.cause = ""
        group.kept = set(group.reserved)
        state = group.message()
        effects: list[Effect] = [Commit(holder, state) for holder in group.holders]
        effects.append(Notify(frozenset(group.watchers), state))
        return effects

    def refused(self, group_id: bytes, node_id: bytes, now: float) -> list[Effect]:
        """A node cannot reserve its part after all."""
        group = self.groups.get(group_id)
        if group is None or group.state == "created" or not group.on(node_id):
            return []
        return self._plan_anew(group, now)

    def _plan_anew(self, group: Group, now: float) -> list[Effect]:
        effects: list[Effect] = []
        freed: dict[bytes, Units] = {}
        for holder in group.holders:
            part = frozenset(group.on(holder) - group.kept)
            if part:
                effects.append(Release(holder, group.spec.group_id, "", part))
                freed[holder] = add_units(group.bundles[n] for n in part & group.reserved)
        for index in range(len(group.nodes)):
            if index not in group.kept:
                group.nodes[index] = b""
        group.reserved = set(group.kept)
        return effects + self._plan(group, now, freed)

    def nodes_changed(self, now: float) -> list[Effect]:
        """A node has come, or has got room: groups without a plan may have one now."""
        effects: list[Effect] = []
        for group in list(self.groups.values()):
            if group.state != "created" and b"" in group.nodes:
                effects += self._plan(group, now)
        return effects

    def node_died(self, node_id: bytes, now: float) -> list[Effect]:
        """The bundles on this node are planned anew."""
        effects: list[Effect] = []
        for group in list(self.groups.values()):
            group.watchers.discard(node_id)
            lost = group.on(node_id)
            if not lost:
                continue
            for index in lost:
                group.nodes[index] = b""
            group.kept -= lost
            group.reserved -= lost
            if group.state == "created":
                group.state = "pending"
                effects.append(Notify(frozenset(group.watchers), group.message()))
            effects += self._plan_anew(group, now)
        return effects

    def overdue(self, now: float) -> list[Effect]:
        """Plan groups anew that have waited long: for parts on several nodes, or for one node while
        others have room."""
        effects: list[Effect] = []
        for group in list(self.groups.values()):
            if group.state == "created" or now - group.planned_at < PLAN_SECONDS:
                continue
            if len(group.holders) > 1 or plan(group.bundles, group.spec.strategy, self._views()):
                effects += self._plan_anew(group, now)
        return effects

    # ------------------------------------------------------------------ ends

    def remove(self, group_id: bytes, cause: str = REMOVED) -> list[Effect]:
        """End a group."""
        group = self.groups.pop(group_id, None)
        if group is None:
            return []
        group.state = "removed"
        group.cause = cause
        name = (group.spec.namespace, group.spec.name)
        if self._names.get(name) is group:
            del self._names[name]
        effects: list[Effect] = [Release(node_id, group_id, cause) for node_id in group.holders]
        effects.append(Notify(frozenset(group.watchers), group.message()))
        self._remember(group)
        return effects

    def _remember(self, group: Group) -> None:
        group.watchers.clear()
        group.nodes = []
        self._removed[group.spec.group_id] = group
        if len(self._removed) > REMEMBERED:
            oldest, _ = self._removed.popitem(last=False)
            creator = owner_of(oldest)
            self._forgotten[creator] = max(oldest, self._forgotten.get(creator, b""))

    def process_died(self, process_id: bytes) -> list[Effect]:
        """A process is gone, and with it its groups that are not detached."""
        effects: list[Effect] = []
        for group_id, watchers in list(self._expected.items()):
            watchers.discard(process_id)
            if owner_of(group_id) == process_id:
                del self._expected[group_id]
                state = PlacementGroupState(group_id, "removed", "its creator has ended")
                effects.append(Notify(frozenset(watchers), state))
        self._forgotten.pop(process_id, None)
        for group_id, group in list(self.groups.items()):
            group.watchers.discard(process_id)
            if group.owner == process_id and not group.spec.detached:
                effects += self.remove(group_id, "the process that made it has ended")
        return effects
