"""The life of placement groups on several nodes: all parts or none, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skate.ids import IdSource
from skate.runtime.amounts import to_units
from skate.runtime.head import placement_groups as module
from skate.runtime.head.placement import NodeView
from skate.runtime.head.placement_groups import (
    Commit,
    Effect,
    Notify,
    PlacementGroups,
    Release,
    Reserve,
    Warn,
)
from skate.runtime.node.bundles import Reservations
from skate.runtime.node.resources import NodeResources
from skate.runtime.wire.placement import CreatePlacementGroup

ALICE, BOB = b"alice...", b"bob....."


class Nodes:
    """Nodes that carry out what a head wants, late or never."""

    def __init__(self, *cpus: float) -> None:
        self.pools = {b"n%d" % n: NodeResources({"CPU": count}) for n, count in enumerate(cpus)}
        self.reservations = {name: Reservations(pool) for name, pool in self.pools.items()}
        self.groups = PlacementGroups("space", self.views)
        self.ids = {ALICE: IdSource(ALICE), BOB: IdSource(BOB)}
        self.now = 0.0
        #: Reservations that nodes have not answered.
        self.waiting: list[Reserve] = []
        self.told: dict[bytes, list[str]] = {}
        self.warned: list[str] = []

    def views(self) -> list[NodeView]:
        return [NodeView(name, pool.total, pool.free) for name, pool in self.pools.items()]

    def create(self, *cpus: float, owner: bytes = ALICE, **more: Any) -> bytes:
        group_id = self.ids[owner].draw()
        fields: dict[str, Any] = {"strategy": "PACK", "name": "", "detached": False, **more}
        bundles = [{"CPU": count} for count in cpus]
        spec = CreatePlacementGroup(group_id, bundles, namespace="", **fields)
        self.apply(self.groups.create(spec, owner, self.now))
        return group_id

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Reserve):
                self.waiting.append(effect)
            elif isinstance(effect, Commit):
                self.reservations[effect.node_id].commit(effect.state.group_id)
            elif isinstance(effect, Release):
                self.waiting = [
                    r
                    for r in self.waiting
                    if (r.node_id, r.group_id) != (effect.node_id, effect.group_id)
                ]
                if effect.node_id in self.reservations:
                    self.reservations[effect.node_id].remove(effect.group_id, effect.indices)
            elif isinstance(effect, Notify):
                for process_id in effect.processes:
                    self.told.setdefault(process_id, []).append(effect.state.state)
            elif isinstance(effect, Warn):
                self.warned.append(effect.text)

    def answer(self, number: int = 0) -> bool:
        """Let a node serve one reservation if there is room."""
        effect = self.waiting[number]
        if not self.reservations[effect.node_id].reserve(effect.group_id, effect.bundles):
            return False
        self.waiting.remove(effect)
        self.apply(self.groups.reserved(effect.group_id, effect.node_id, effect.attempt))
        return True

    def answer_all(self) -> None:
        while any(self.answer(number) for number in range(len(self.waiting))):
            pass

    def state(self, group_id: bytes) -> str:
        [row] = self.groups.rows(group_id, "", "")
        return row.state

    def usable(self, group_id: bytes) -> int:
        return sum(len(held.pools((group_id, -1))) for held in self.reservations.values())

    def kill(self, name: bytes) -> None:
        del self.pools[name], self.reservations[name]
        self.waiting = [effect for effect in self.waiting if effect.node_id != name]
        self.apply(self.groups.node_died(name, self.now))


def test_a_group_is_created_when_the_last_node_has_reserved_its_part() -> None:
    nodes = Nodes(1, 1)
    group = nodes.create(1, 1, strategy="STRICT_SPREAD")
    nodes.answer()
    assert (nodes.state(group), nodes.usable(group)) == ("pending", 0)
    nodes.answer()
    assert (nodes.state(group), nodes.usable(group)) == ("created", 2)
    assert nodes.told[ALICE] == ["created"]
    nodes.apply(nodes.groups.remove(group))
    assert (nodes.state(group), nodes.usable(group)) == ("removed", 0)
    assert nodes.told[ALICE] == ["created", "removed"]
    assert all(pool.free == pool.total for pool in nodes.pools.values())


def test_a_part_that_cannot_be_had_rolls_the_others_back() -> None:
    nodes = Nodes(1, 1, 1)
    group = nodes.create(1, 1, strategy="STRICT_SPREAD")
    first, second = nodes.waiting
    nodes.answer()
    assert nodes.pools[first.node_id].free["CPU"] == 0
    taken = nodes.pools[second.node_id].acquire(to_units({"CPU": 1}))
    assert taken is not None
    nodes.apply(nodes.groups.refused(group, second.node_id, nodes.now))
    # Anew, without the node that has no room.
    assert second.node_id not in {effect.node_id for effect in nodes.waiting}
    nodes.answer_all()
    assert nodes.state(group) == "created"


def test_two_groups_that_hold_what_the_other_lacks_are_planned_anew() -> None:
    nodes = Nodes(1, 1)
    one = nodes.create(1, 1, strategy="STRICT_SPREAD")
    two = nodes.create(1, 1, strategy="STRICT_SPREAD")
    by_node = {(r.group_id, r.node_id): r for r in nodes.waiting}
    nodes.answer(nodes.waiting.index(by_node[one, b"n0"]))
    nodes.answer(nodes.waiting.index(by_node[two, b"n1"]))
    nodes.answer_all()
    assert {nodes.state(one), nodes.state(two)} == {"pending"}
    nodes.now += module.PLAN_SECONDS
    nodes.apply(nodes.groups.overdue(nodes.now))
    nodes.answer_all()
    assert sorted([nodes.state(one), nodes.state(two)]) == ["created", "pending"]


def test_an_answer_that_crosses_a_later_plan_does_not_count() -> None:
    nodes = Nodes(2, 2)
    group = nodes.create(1)
    [stale] = nodes.waiting
    nodes.apply(nodes.groups.refused(group, stale.node_id, nodes.now))
    [fresh] = nodes.waiting
    # The node had reserved its part and was told to give it back before it is asked again.
    nodes.apply(nodes.groups.reserved(group, stale.node_id, stale.attempt))
    assert nodes.state(group) == "pending"
    assert nodes.answer(nodes.waiting.index(fresh))
    assert (nodes.state(group), nodes.usable(group)) == ("created", 1)


def test_a_group_that_waits_for_one_node_goes_to_another_that_gets_room() -> None:
    nodes = Nodes(2, 2)
    taken = {name: pool.acquire(to_units({"CPU": 2})) for name, pool in nodes.pools.items()}
    group = nodes.create(2)
    [waits] = nodes.waiting
    [other] = set(nodes.pools) - {waits.node_id}
    nodes.now += module.PLAN_SECONDS
    nodes.apply(nodes.groups.overdue(nodes.now))
    assert nodes.waiting == [waits]
    held = taken[other]
    assert held is not None
    nodes.pools[other].release(held)
    nodes.apply(nodes.groups.overdue(nodes.now))
    nodes.answer_all()
    [row] = nodes.groups.rows(group, "", "")
    assert (row.state, row.nodes) == ("created", [other])


def test_a_group_that_fits_no_nodes_says_so_once_and_is_made_when_a_node_comes() -> None:
    nodes = Nodes(1)
    group = nodes.create(1, 1, strategy="STRICT_SPREAD")
    nodes.apply(nodes.groups.nodes_changed(nodes.now))
    [text] = nodes.warned
    assert "2 bundles on as many nodes" in text
    [row] = nodes.groups.rows(group, "", "")
    assert (row.state, row.nodes) == ("pending", [])
    assert row.reason in text
    nodes.pools[b"new"] = NodeResources({"CPU": 1})
    nodes.reservations[b"new"] = Reservations(nodes.pools[b"new"])
    nodes.apply(nodes.groups.nodes_changed(nodes.now))
    nodes.answer_all()
    assert nodes.state(group) == "created"


def test_the_bundles_of_a_dead_node_go_elsewhere_and_the_others_stay() -> None:
    nodes = Nodes(1, 1, 1)
    group = nodes.create(1, 1, strategy="STRICT_SPREAD")
    nodes.answer_all()
    [row] = nodes.groups.rows(group, "", "")
    dead, stays = row.nodes
    nodes.kill(dead)
    assert nodes.state(group) == "pending"
    # What runs in the other bundle is not disturbed.
    assert nodes.usable(group) == 1
    nodes.answer_all()
    [row] = nodes.groups.rows(group, "", "")
    assert row.state == "created"
    assert row.nodes[1] == stays
    assert row.nodes[0] not in (dead, stays)
    assert nodes.told[ALICE] == ["created", "pending", "created"]


def test_groups_end_with_their_creator_unless_they_are_detached() -> None:
    nodes = Nodes(4)
    mine = nodes.create(1)
    kept = nodes.create(1, detached=True)
    other = nodes.create(1, owner=BOB)
    nodes.answer_all()
    nodes.apply(nodes.groups.process_died(ALICE))
    assert [nodes.state(group) for group in (mine, kept, other)] == [
        "removed",
        "created",
        "created",
    ]
    assert "has ended" in nodes.groups.gone(mine, False)
    assert nodes.groups.gone(kept, False) == ""


def test_names_are_unique_until_the_group_ends() -> None:
    nodes = Nodes(4)
    first = nodes.create(1, name="x")
    second = nodes.create(1, name="x", owner=BOB)
    assert nodes.state(second) == "removed"
    assert nodes.told[BOB] == ["removed"]
    assert "exists in the namespace 'space'" in nodes.groups.gone(second, True)
    assert [row.group_id for row in nodes.groups.rows(b"", "x", "")] == [first]
    nodes.apply(nodes.groups.remove(first))
    third = nodes.create(1, name="x")
    assert [row.group_id for row in nodes.groups.rows(b"", "x", "space")] == [third]


def test_a_handle_may_be_faster_than_the_group() -> None:
    nodes = Nodes(4)
    group = IdSource(ALICE).draw()
    assert nodes.groups.watch(group, BOB, creator_lives=True) == []
    assert nodes.groups.gone(group, creator_lives=True) == ""
    assert nodes.create(1) == group
    nodes.answer_all()
    assert nodes.told[BOB] == ["created"]


def test_a_group_of_a_creator_that_is_gone_is_not_waited_for() -> None:
    nodes = Nodes(4)
    nodes.apply(nodes.groups.watch(IdSource(ALICE).draw(), BOB, creator_lives=False))
    assert nodes.told[BOB] == ["removed"]
    nodes.apply(nodes.groups.watch(IdSource(BOB).draw(), ALICE, creator_lives=True))
    nodes.apply(nodes.groups.process_died(BOB))
    assert nodes.told[ALICE] == ["removed"]


def test_what_was_removed_long_ago_is_gone_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    nodes = Nodes(4)
    groups = [nodes.create(1) for _ in range(4)]
    for group in groups:
        nodes.apply(nodes.groups.remove(group))
    assert len(nodes.groups.rows(b"", "", "")) == 2
    for group in groups:
        assert nodes.groups.gone(group, creator_lives=True)


@pytest.mark.parametrize("bundles", [[], [{}], [{"CPU": -1.0}], [{"CPU": 1.0}, {"CPU": 0.0}]])
def test_senseless_groups_are_refused(bundles: list[dict[str, float]]) -> None:
    nodes = Nodes(4)
    spec = CreatePlacementGroup(IdSource(ALICE).draw(), bundles, "PACK", "", "", False)
    nodes.apply(nodes.groups.create(spec, ALICE, 0.0))
    assert nodes.told[ALICE] == ["removed"]


class Life(RuleBasedStateMachine):
    """Groups come and go, nodes answer in any order and die; nothing is lost or left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = Nodes(2, 3, 4)
        self.made: list[bytes] = []

    @rule(
        cpus=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        strategy=st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
        owner=st.sampled_from([ALICE, BOB]),
    )
    def create(self, cpus: list[int], strategy: str, owner: bytes) -> None:
        self.made.append(self.nodes.create(*cpus, strategy=strategy, owner=owner))

    @rule(number=st.integers(0, 9))
    def answer(self, number: int) -> None:
        if self.nodes.waiting:
            self.nodes.answer(number % len(self.nodes.waiting))

    @rule(number=st.integers(0, 9))
    def remove(self, number: int) -> None:
        if self.made:
            self.nodes.apply(self.nodes.groups.remove(self.made[number % len(self.made)]))
            self.nodes.apply(self.nodes.groups.nodes_changed(self.nodes.now))

    @rule()
    def time_passes(self) -> None:
        self.nodes.now += module.PLAN_SECONDS
        self.nodes.apply(self.nodes.groups.overdue(self.nodes.now))

    @rule(number=st.integers(0, 9))
    def refuse(self, number: int) -> None:
        if self.nodes.waiting:
            effect = self.nodes.waiting.pop(number % len(self.nodes.waiting))
            self.nodes.apply(
                self.nodes.groups.refused(effect.group_id, effect.node_id, self.nodes.now)
            )

    @rule(name=st.sampled_from([b"n0", b"n1", b"n2"]))
    def node_dies(self, name: bytes) -> None:
        if len(self.nodes.pools) > 1 and name in self.nodes.pools:
            self.nodes.kill(name)

    @invariant()
    def a_created_group_has_all_its_bundles(self) -> None:
        for group in self.nodes.groups.groups.values():
            if group.state == "created":
                assert self.nodes.usable(group.spec.group_id) == len(group.bundles)
                if group.spec.strategy == "STRICT_SPREAD":
                    assert len(set(group.nodes)) == len(group.nodes)
                if group.spec.strategy == "STRICT_PACK":
                    assert len(set(group.nodes)) == 1

    def teardown(self) -> None:
        for group_id in self.made:
            self.nodes.apply(self.nodes.groups.remove(group_id))
        assert not self.nodes.waiting
        for name, pool in self.nodes.pools.items():
            assert pool.free == pool.total
            assert not any(pool.held.values())
            assert not len(self.nodes.reservations[name])


TestLife = Life.TestCase
