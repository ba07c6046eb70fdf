"""Objects come from the memory of one node into that of another, and leave both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from node_death import kill_node
from node_fakes import wait_until

import skate
from skate.cluster_utils import Cluster
from skate.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    OwnerDiedError,
)

pytestmark = pytest.mark.timeout(180)

MIB = 1 << 20


def array(seed: int, size: int = 3 * MIB) -> Any:
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


@skate.remote
def make(seed: int, size: int = 3 * MIB) -> Any:
    return array(seed, size)


@skate.remote
def total(values: Any) -> int:
    return int(values.sum(dtype=np.int64))


@skate.remote
def total_of(refs: list[skate.ObjectRef[Any]]) -> list[int]:
    return [int(values.sum(dtype=np.int64)) for values in skate.get(refs)]


@skate.remote
def used_here() -> int:
    """Bytes that the objects on this node take."""
    from skate.api.session import current

    rows = current().state("store")
    return int(sum(row["object_bytes"] for row in rows))


HERE, THERE = {"resources": {"here": 1}}, {"resources": {"there": 1}}


def test_large_arrays_both_ways(two_nodes: Cluster) -> None:
    big = array(1, 200 * MIB)
    expected = int(big.sum(dtype=np.int64))
    ref = skate.put(big)
    assert skate.get(total.options(**THERE).remote(ref)) == expected
    back = make.options(**THERE).remote(2, 200 * MIB)
    there = skate.get(total.options(**THERE).remote(back))
    copy = skate.get(back)
    assert copy.nbytes == 200 * MIB
    assert int(copy.sum(dtype=np.int64)) == there
    assert np.array_equal(copy, array(2, 200 * MIB))


def test_refs_inside_others_and_of_others(two_nodes: Cluster) -> None:
    @skate.remote
    class Keeper:
        def put(self, seed: int) -> list[skate.ObjectRef[Any]]:
            return [skate.put(array(seed))]

        def total(self, refs: list[skate.ObjectRef[Any]]) -> int:
            return int(skate.get(refs[0]).sum(dtype=np.int64))

    far, near = Keeper.options(**THERE).remote(), Keeper.options(**HERE).remote()
    for owner, reader in ((far, near), (near, far)):
        refs = skate.get(owner.put.remote(7))
        assert skate.get(reader.total.remote(refs)) == int(array(7).sum(dtype=np.int64))
        assert np.array_equal(skate.get(refs[0]), array(7))


def test_many_ask_for_one(two_nodes: Cluster) -> None:
    ref = skate.put(array(3, 20 * MIB))
    expected = int(array(3, 20 * MIB).sum(dtype=np.int64))
    refs = [total.options(**THERE).remote(ref) for _ in range(8)]
    refs += [total_of.options(**THERE).remote([ref, ref]) for _ in range(2)]
    answers = skate.get(refs)
    assert answers[:8] == [expected] * 8
    assert answers[8:] == [[expected] * 2] * 2


def test_nothing_stays_behind(two_nodes: Cluster) -> None:
    refs = [skate.put(array(seed)) for seed in range(5)]
    refs += [make.options(**THERE).remote(seed) for seed in range(5, 10)]
    expected = [int(array(seed).sum(dtype=np.int64)) for seed in range(10)]
    for options in (HERE, THERE):
        assert skate.get([total.options(**options).remote(ref) for ref in refs]) == expected
    assert skate.get(used_here.options(**THERE).remote()) >= 10 * 3 * MIB
    assert skate.get(used_here.options(**HERE).remote()) >= 10 * 3 * MIB
    del refs
    for options in (HERE, THERE):
        wait_until(
            lambda options=options: skate.get(used_here.options(**options).remote()) == 0,
            "all copies are freed",
        )


def test_what_its_owner_has_read_elsewhere_is_freed_where_it_was_made(two_nodes: Cluster) -> None:
    for seed in range(3):
        ref = make.options(**THERE).remote(seed)
        assert np.array_equal(skate.get(ref), array(seed))
        del ref
    # One whose transfer nobody waits for any more.
    ref = make.options(**THERE).remote(3, 40 * MIB)
    skate.wait([ref], fetch_local=False)
    with pytest.raises(GetTimeoutError):
        skate.get(ref, timeout=0.001)
    del ref
    for options in (HERE, THERE):
        wait_until(
            lambda options=options: skate.get(used_here.options(**options).remote()) == 0,
            "all copies are freed",
        )


def test_copies_survive_the_node_they_came_from(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(
        {"num_cpus": 1, "resources": {"here": 9}},
        {"num_cpus": 1, "resources": {"second": 9}},
        {"num_cpus": 1, "resources": {"third": 9}},
    )

    @skate.remote(max_retries=0)
    def once(seed: int) -> Any:
        return array(seed)

    ref = once.options(resources={"second": 1}).remote(5)
    expected = int(array(5).sum(dtype=np.int64))
    assert skate.get(total.options(resources={"third": 1}).remote(ref)) == expected
    kill_node(cluster.worker_nodes[0])
    # The driver has not looked at it yet, and its task cannot run again.
    assert np.array_equal(skate.get(ref), array(5))


def test_lost_with_its_node_and_made_again(two_nodes: Cluster) -> None:
    _, node = two_nodes.list_all_nodes

    @skate.remote(max_retries=3)
    def make_again(seed: int) -> Any:
        return array(seed)

    @skate.remote(max_retries=0)
    def make_once(seed: int) -> Any:
        return array(seed)

    @skate.remote
    class Owner:
        def put(self) -> list[skate.ObjectRef[Any]]:
            return [skate.put(array(9))]

    again = make_again.options(resources={"there": 1}).remote(8)
    once = make_once.options(resources={"there": 1}).remote(9)
    owner = Owner.options(resources={"there": 1}).remote()
    [owned] = skate.get(owner.put.remote())
    skate.wait([again, once, owned], num_returns=3)
    kill_node(node)
    with pytest.raises((ObjectLostError, ObjectReconstructionFailedError)):
        skate.get(once, timeout=60)
    with pytest.raises(OwnerDiedError):
        skate.get(owned, timeout=60)
    two_nodes.add_node(num_cpus=1, resources={"there": 1})
    assert np.array_equal(skate.get(again, timeout=60), array(8))


def test_the_source_dies_during_the_transfer(two_nodes: Cluster) -> None:
    _, node = two_nodes.list_all_nodes
    size = 300 * MIB
    ref = make.options(num_cpus=1, **THERE).remote(4, size)
    skate.wait([ref])
    future = ref.future()
    time.sleep(0.05)
    kill_node(node)
    two_nodes.add_node(num_cpus=1, resources={"there": 1})
    assert np.array_equal(future.result(90), array(4, size))


def test_work_goes_to_its_data(two_nodes: Cluster) -> None:
    here, there = (node.node_id for node in two_nodes.list_all_nodes)

    @skate.remote
    def where(_values: Any) -> str:
        return skate.get_runtime_context().get_node_id()

    far = make.options(**THERE).remote(1, 20 * MIB)
    near = skate.put(array(1, 20 * MIB))
    skate.wait([far])
    assert [skate.get(where.remote(far)) for _ in range(4)] == [there] * 4
    assert [skate.get(where.remote(near)) for _ in range(4)] == [here] * 4
