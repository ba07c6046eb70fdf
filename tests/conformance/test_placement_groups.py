"""Placement groups: made, used, removed, with errors that say what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import skate
from skate.exceptions import (
    ActorPlacementGroupRemovedError,
    GetTimeoutError,
    PlacementGroupRemovedError,
    TaskPlacementGroupRemovedError,
)
from skate.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from skate.util.placement_group import PlacementGroup
from skate.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

SECONDS = 30


@pytest.fixture
def groups(session: str) -> Iterator[list[PlacementGroup]]:
    """Groups to remove when the test has ended, so that the shared session keeps its resources."""
    made: list[PlacementGroup] = []
    yield made
    for group in made:
        remove_placement_group(group)


@skate.remote
def group_here() -> Any:
    return get_current_placement_group()


@skate.remote
def group_of_child() -> Any:
    return skate.get(group_here.options(num_cpus=0).remote(), timeout=SECONDS)


@skate.remote
class Member:
    def group(self) -> Any:
        return get_current_placement_group()

    def held(self) -> Any:
        return skate.get_runtime_context().get_assigned_resources()


def make(made: list[PlacementGroup], *bundles: dict[str, float], **options: Any) -> PlacementGroup:
    group = placement_group(list(bundles), **options)
    made.append(group)
    return group


@pytest.mark.differs("cluster", reason="it has two nodes")
def test_a_group_is_ready_and_knows_itself(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, {"widget": 2})
    assert skate.get(group.ready(), timeout=SECONDS) == group
    assert skate.wait([group.ready()], timeout=SECONDS)[1] == []
    assert group.wait(SECONDS)
    assert group.bundle_specs == [{"CPU": 1.0}, {"widget": 2.0}]
    assert group.bundle_count == 2
    row = placement_group_table(group)
    assert (row["state"], row["strategy"], row["reason"]) == ("CREATED", "PACK", "")
    assert row["bundles"] == {0: {"CPU": 1.0}, 1: {"widget": 2.0}}
    node = skate.nodes()[0]["NodeID"]
    assert row["bundles_to_node_id"] == {0: node, 1: node}
    assert placement_group_table()[group.id.hex()] == row
    assert group.id.hex() in repr(group)


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_one_node_satisfies_all_but_a_strict_spread(
    groups: list[PlacementGroup], strategy: str
) -> None:
    assert make(groups, {"CPU": 1}, {"CPU": 1}, strategy=strategy).wait(SECONDS)


@pytest.mark.differs("cluster", reason="it has two nodes")
def test_a_strict_spread_needs_more_nodes_and_says_so(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, {"CPU": 1}, strategy="STRICT_SPREAD")
    assert not group.wait(0.05)
    row = placement_group_table(group)
    assert row["state"] == "PENDING"
    assert "there is one node" in row["reason"]
    with pytest.raises(GetTimeoutError):
        skate.get(group.ready(), timeout=0.05)


def test_a_bundle_larger_than_any_node_waits_and_says_why(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, {"CPU": 99})
    assert not group.wait(0.05)
    assert "bundle 1 asks for 99 CPU" in placement_group_table(group)["reason"]


def test_tasks_and_actors_run_in_their_group(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, {"CPU": 1, "widget": 1})
    inside = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
    task = group_here.options(scheduling_strategy=inside, resources={"widget": 1})
    assert skate.get(task.remote(), timeout=SECONDS) == group
    assert skate.get(group_here.options(num_cpus=0).remote(), timeout=SECONDS) is None
    old = group_here.options(placement_group=group, placement_group_bundle_index=0)
    assert skate.get(old.remote(), timeout=SECONDS) == group
    actor = Member.options(scheduling_strategy=inside, num_cpus=1).remote()
    assert skate.get(actor.group.remote(), timeout=SECONDS) == group
    assert skate.get(actor.held.remote(), timeout=SECONDS) == {"CPU": 1.0}
    assert get_current_placement_group() is None


def test_children_run_in_the_group_only_if_it_captures_them(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1})
    captured = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    assert skate.get(
        group_of_child.options(scheduling_strategy=captured).remote(), timeout=SECONDS
    ) == (group)
    free = PlacementGroupSchedulingStrategy(group)
    assert (
        skate.get(group_of_child.options(scheduling_strategy=free).remote(), timeout=SECONDS)
        is None
    )


def test_a_captured_child_may_run_outside_if_it_says_so(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1})

    @skate.remote
    def outside() -> Any:
        ways: list[Any] = ["DEFAULT", PlacementGroupSchedulingStrategy(None)]
        tasks = [group_here.options(num_cpus=0, scheduling_strategy=way).remote() for way in ways]
        return skate.get(tasks, timeout=SECONDS)

    captured = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    task = outside.options(scheduling_strategy=captured).remote()
    assert skate.get(task, timeout=SECONDS) == [None, None]


def test_a_handle_travels(groups: list[PlacementGroup]) -> None:
    @skate.remote
    def use(group: PlacementGroup) -> bool:
        inside = PlacementGroupSchedulingStrategy(group)
        found = skate.get(group_here.options(scheduling_strategy=inside).remote(), timeout=SECONDS)
        return group.wait(SECONDS) and bool(found == group)

    group = make(groups, {"CPU": 1})
    assert skate.get(use.remote(group), timeout=SECONDS)


def test_a_group_is_found_by_its_name(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, name="team")
    assert get_placement_group("team") == group
    assert get_placement_group("team").bundle_specs == [{"CPU": 1.0}]
    with pytest.raises(ValueError, match="a placement group named 'team' exists"):
        placement_group([{"CPU": 1}], name="team")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="no placement group named 'team'"):
        get_placement_group("team")


def test_what_was_in_a_removed_group_fails_with_an_error_that_says_so(
    groups: list[PlacementGroup],
) -> None:
    group = make(groups, {"CPU": 2})
    inside = PlacementGroupSchedulingStrategy(group)
    actor = Member.options(scheduling_strategy=inside, max_restarts=5).remote()
    assert skate.get(actor.group.remote(), timeout=SECONDS) == group
    remove_placement_group(group)
    remove_placement_group(group)
    with pytest.raises(ActorPlacementGroupRemovedError, match="removed"):
        skate.get(actor.group.remote(), timeout=SECONDS)
    with pytest.raises(TaskPlacementGroupRemovedError, match="remove_placement_group"):
        skate.get(group_here.options(scheduling_strategy=inside).remote(), timeout=SECONDS)
    late = Member.options(scheduling_strategy=inside).remote()
    with pytest.raises(ActorPlacementGroupRemovedError, match="gone"):
        skate.get(late.group.remote(), timeout=SECONDS)
    with pytest.raises(PlacementGroupRemovedError, match=group.id.hex()):
        skate.get(group.ready(), timeout=SECONDS)
    assert not group.wait(SECONDS)
    assert placement_group_table(group)["state"] == "REMOVED"


def test_what_was_removed_is_free_for_the_next_group(groups: list[PlacementGroup]) -> None:
    first = make(groups, {"CPU": 2})
    assert first.wait(SECONDS)
    second = make(groups, {"CPU": 2})
    assert not second.wait(0.05)
    assert placement_group_table(second)["reason"] == "its resources are in use"
    remove_placement_group(first)
    assert second.wait(SECONDS)


@pytest.mark.differs("cluster", reason="it has two nodes")
@pytest.mark.differs("inline", reason="it runs one thing at a time and counts no resources")
def test_a_group_takes_its_resources_from_the_node(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"widget": 2})
    assert group.wait(SECONDS)
    assert skate.available_resources()["widget"] == 1.0
    remove_placement_group(group)
    assert skate.available_resources()["widget"] == 3.0


def test_what_does_not_fit_its_bundle_is_refused(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1}, {"widget": 1})
    inside = PlacementGroupSchedulingStrategy(group)
    with pytest.raises(ValueError, match=r"'CPU': 2.0.* does not fit any bundle"):
        group_here.options(num_cpus=2, scheduling_strategy=inside).remote()
    second = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
    with pytest.raises(ValueError, match="does not fit bundle 1"):
        Member.options(num_cpus=1, scheduling_strategy=second).remote()
    with pytest.raises(ValueError, match="have the indices 0 to 1"):
        group_here.options(placement_group=group, placement_group_bundle_index=2)

    @skate.remote
    def parent() -> str:
        try:
            group_here.options(num_cpus=2).remote()
        except ValueError as error:
            return str(error)
        return ""

    captured = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    said = skate.get(parent.options(scheduling_strategy=captured).remote(), timeout=SECONDS)
    assert "does not fit any bundle" in said


@pytest.mark.parametrize(
    ("bundles", "options", "says"),
    [
        ([], {}, "must not be empty"),
        ([{}], {}, "reserves nothing"),
        ([{"CPU": 0}], {}, "reserves nothing"),
        ([{"CPU": -1}], {}, "must not be negative"),
        ([{"GPU": 1.5}], {}, "whole number"),
        ({"CPU": 1}, {}, "list of dicts"),
        ([3], {}, r"bundles\[0\] must be a dict"),
        ([{"CPU": 1}], {"strategy": "STRICT_PAK"}, "Did you mean 'STRICT_PACK'"),
        ([{"CPU": 1}], {"lifetime": "forever"}, "'detached'"),
    ],
)
def test_senseless_groups_are_refused_at_once(
    session: str, bundles: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        placement_group(bundles, **options)


def test_a_senseless_time_to_wait_is_refused(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1})
    with pytest.raises(TypeError, match="timeout"):
        group.wait("long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        group.wait(-1)


def test_senseless_strategies_are_refused_at_once(groups: list[PlacementGroup]) -> None:
    group = make(groups, {"CPU": 1})
    with pytest.raises(ValueError, match="'SPREAD'"):
        group_here.options(scheduling_strategy="SPRED")
    with pytest.raises(TypeError, match="scheduling_strategies"):
        group_here.options(scheduling_strategy=group)
    with pytest.raises(ValueError, match="not both"):
        group_here.options(scheduling_strategy="SPREAD", placement_group=group)
    with pytest.raises(ValueError, match="no id of a node"):
        group_here.options(scheduling_strategy=NodeAffinitySchedulingStrategy("here", soft=False))
    with pytest.raises(TypeError, match="PlacementGroup or None"):
        group_here.options(placement_group="team")


@pytest.mark.differs("cluster", reason="it has two nodes")
def test_other_strategies_run_on_the_one_node(session: str) -> None:
    here = NodeAffinitySchedulingStrategy(skate.nodes()[0]["NodeID"], soft=False)
    for strategy in ("DEFAULT", "SPREAD", here):
        task = group_here.options(scheduling_strategy=strategy)
        assert skate.get(task.remote(), timeout=SECONDS) is None


def test_the_module_and_the_function_of_one_name_are_both_there(session: str) -> None:
    assert sys.modules["skate.util.placement_group"].placement_group is placement_group
    assert callable(skate.util.placement_group)
    assert callable(sys.modules["skate.util.placement_group"])
