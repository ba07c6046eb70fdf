"""Placement groups and strategies on several nodes: where things run, also when a node dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from node_fakes import wait_until

import skate
from skate.cluster_utils import Cluster
from skate.exceptions import (
    ActorPlacementGroupRemovedError,
    ActorUnschedulableError,
    TaskPlacementGroupRemovedError,
    TaskUnschedulableError,
)
from skate.util import placement_group, placement_group_table, remove_placement_group
from skate.util.placement_group import PlacementGroup
from skate.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

pytestmark = pytest.mark.timeout(120)

SECONDS = 30


@skate.remote
def where(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return skate.get_runtime_context().get_node_id()


@skate.remote
class Homebody:
    def where(self) -> str:
        return skate.get_runtime_context().get_node_id()


def ids(cluster: Cluster) -> list[str]:
    return [node.node_id for node in cluster.list_all_nodes]


def nodes_of(group: PlacementGroup) -> list[str]:
    return list(placement_group_table(group)["bundles_to_node_id"].values())


def inside(group: PlacementGroup, index: int = -1) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, index)


def run(strategy: Any, **options: Any) -> str:
    task = where.options(scheduling_strategy=strategy, **options)
    return skate.get(task.remote(), timeout=SECONDS)


def test_a_strict_spread_is_on_two_nodes_and_tasks_find_their_bundle(two_nodes: Cluster) -> None:
    group = placement_group([{"CPU": 2}, {"CPU": 2}], strategy="STRICT_SPREAD")
    assert group.wait(SECONDS)
    nodes = nodes_of(group)
    assert sorted(nodes) == sorted(ids(two_nodes))
    for index in (0, 1):
        assert run(inside(group, index), num_cpus=2) == nodes[index]
        actor = Homebody.options(scheduling_strategy=inside(group, index), num_cpus=1).remote()
        assert skate.get(actor.where.remote(), timeout=SECONDS) == nodes[index]
    # With -1 all of it is used.
    tasks = [
        where.options(scheduling_strategy=inside(group), num_cpus=2).remote(0.3) for _ in range(6)
    ]
    assert set(skate.get(tasks, timeout=SECONDS)) <= set(nodes)


def test_a_strict_pack_takes_the_node_that_has_room(two_nodes: Cluster) -> None:
    _, there = ids(two_nodes)
    first = placement_group([{"CPU": 1}, {"there": 1}], strategy="STRICT_PACK")
    assert first.wait(SECONDS)
    assert nodes_of(first) == [there, there]
    assert run(inside(first, 0)) == there
    both = placement_group([{"here": 1}, {"there": 1}], strategy="STRICT_PACK")
    assert not both.wait(0.2)
    assert "STRICT_PACK puts all bundles on one node" in placement_group_table(both)["reason"]


def test_a_removed_group_ends_what_runs_on_other_nodes(two_nodes: Cluster) -> None:
    group = placement_group([{"CPU": 1, "there": 1}, {"CPU": 1, "here": 1}])
    strategy = inside(group, 0)
    actor = Homebody.options(scheduling_strategy=strategy, max_restarts=-1).remote()
    assert skate.get(actor.where.remote(), timeout=SECONDS) == ids(two_nodes)[1]
    running = where.options(scheduling_strategy=strategy).remote(1000)
    waiting = where.options(scheduling_strategy=strategy).remote()
    wait_until(lambda: skate.available_resources()["CPU"] == 2.0, "both bundles are reserved")
    skate.wait([running], timeout=0.5)
    remove_placement_group(group)
    for ref in (running, waiting):
        with pytest.raises(TaskPlacementGroupRemovedError):
            skate.get(ref, timeout=SECONDS)
    with pytest.raises(ActorPlacementGroupRemovedError):
        skate.get(actor.where.remote(), timeout=SECONDS)
    with pytest.raises(TaskPlacementGroupRemovedError):
        run(strategy)
    wait_until(lambda: skate.available_resources() == skate.cluster_resources(), "all is free")


def test_workers_of_other_nodes_make_and_use_groups(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)

    @skate.remote
    class Maker:
        def make(self) -> PlacementGroup:
            group = placement_group([{"CPU": 1, "here": 1}])
            assert group.wait(SECONDS)
            return group

        def use(self, group: PlacementGroup) -> str:
            return run(inside(group))

    maker = Maker.options(resources={"there": 1}).remote()
    group = skate.get(maker.make.remote(), timeout=SECONDS)
    assert run(inside(group)) == here
    mine = placement_group([{"CPU": 1, "there": 1}])
    assert skate.get(maker.use.remote(mine), timeout=SECONDS) == there
    assert skate.get(maker.use.remote(group), timeout=SECONDS) == here
    skate.kill(maker)
    wait_until(lambda: placement_group_table(group)["state"] == "REMOVED", "its maker has ended")


def test_the_bundles_of_a_dead_node_go_elsewhere(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster({"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1})
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    assert group.wait(SECONDS)
    nodes = nodes_of(group)
    head = cluster.list_all_nodes[0].node_id
    victim = next(
        node for node in cluster.list_all_nodes if node.node_id in nodes and node.node_id != head
    )
    cluster.remove_node(victim, allow_graceful=False)

    def moved() -> bool:
        found = nodes_of(group)
        return len(found) == 2 and victim.node_id not in found

    wait_until(moved, "the bundle is on another node")
    for index, node in enumerate(nodes_of(group)):
        assert run(inside(group, index)) == node


def test_a_group_is_made_when_a_node_comes_that_it_needs(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster({"num_cpus": 1})
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    waiting = where.options(scheduling_strategy=inside(group, 1)).remote()
    assert not group.wait(0.2)
    cluster.add_node(num_cpus=1)
    assert group.wait(SECONDS)
    assert skate.get(waiting, timeout=SECONDS) == nodes_of(group)[1]


def test_affinity_to_a_node(two_nodes: Cluster) -> None:
    for node in ids(two_nodes):
        hard = NodeAffinitySchedulingStrategy(node, soft=False)
        assert run(hard) == node
        actor = Homebody.options(scheduling_strategy=hard).remote()
        assert skate.get(actor.where.remote(), timeout=SECONDS) == node
        # More than fits waits there instead of going elsewhere.
        tasks = [where.options(scheduling_strategy=hard).remote(0.2) for _ in range(4)]
        assert set(skate.get(tasks, timeout=SECONDS)) == {node}


def test_affinity_to_a_node_that_does_not_exist(two_nodes: Cluster) -> None:
    nobody = "00" * 8
    with pytest.raises(TaskUnschedulableError, match="node 0000000000000000 is not"):
        run(NodeAffinitySchedulingStrategy(nobody, soft=False))
    actor = Homebody.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(nobody, soft=False)
    ).remote()
    with pytest.raises(ActorUnschedulableError, match="is not"):
        skate.get(actor.where.remote(), timeout=SECONDS)
    assert run(NodeAffinitySchedulingStrategy(nobody, soft=True)) in ids(two_nodes)


def test_soft_affinity_goes_elsewhere_if_the_node_is_too_small(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)
    soft = NodeAffinitySchedulingStrategy(here, soft=True)
    assert run(soft) == here
    assert run(soft, resources={"there": 1}) == there


def test_spread_uses_all_nodes_though_one_would_do(two_nodes: Cluster) -> None:
    actors = [Homebody.options(scheduling_strategy="SPREAD").remote() for _ in range(4)]
    homes = skate.get([actor.where.remote() for actor in actors], timeout=SECONDS)
    assert {homes.count(node) for node in ids(two_nodes)} == {2}
    tasks = [where.options(scheduling_strategy="SPREAD", num_cpus=1).remote(0.2) for _ in range(2)]
    assert set(skate.get(tasks, timeout=SECONDS)) == set(ids(two_nodes))
