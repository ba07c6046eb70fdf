"""A node is killed: its tasks and actors come back elsewhere, and nobody waits for what is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from node_death import kill_node
from node_fakes import is_running, processes_of, wait_until

import skate
from skate.cluster_utils import Cluster
from skate.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OwnerDiedError,
    WorkerCrashedError,
)

pytestmark = pytest.mark.timeout(120)


@skate.remote
class Homebody:
    def where(self) -> str:
        return skate.get_runtime_context().get_node_id()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def own(self) -> list[skate.ObjectRef[str]]:
        @skate.remote
        def later() -> str:
            time.sleep(1000)
            return "never"

        self.refs = [skate.put("mine"), later.options(num_cpus=0).remote()]
        return self.refs


def alive() -> set[str]:
    return {row["NodeID"] for row in skate.nodes() if row["Alive"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_under_load(make_cluster: Callable[..., Cluster], seed: int) -> None:
    cluster = make_cluster({"num_cpus": 2}, {"num_cpus": 2}, {"num_cpus": 2})
    doomed = cluster.worker_nodes[seed % 2]

    @skate.remote(max_retries=-1)
    def square(number: int) -> int:
        time.sleep(0.01)
        return number * number

    @skate.remote
    def tree(depth: int) -> int:
        return 1 if not depth else sum(skate.get([tree.remote(depth - 1) for _ in range(2)]))

    refs = [square.remote(number) for number in range(600)]
    trees = [tree.remote(4) for _ in range(4)]
    skate.wait(refs, num_returns=50 * seed)
    kill_node(doomed)
    assert skate.get(refs, timeout=100) == [number * number for number in range(600)]
    assert skate.get(trees, timeout=100) == [16] * 4
    assert alive() == {node.node_id for node in cluster.list_all_nodes} - {doomed.node_id}
    assert skate.cluster_resources()["CPU"] == 4.0
    row = next(row for row in skate.nodes() if row["NodeID"] == doomed.node_id)
    assert row["Alive"] is False
    wait_until(lambda: skate.available_resources().get("CPU") == 4.0, "all CPUs are free again")


def test_actors_restart_elsewhere(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(
        {"num_cpus": 1},
        {"num_cpus": 1, "resources": {"place": 5}},
        {"num_cpus": 1, "resources": {"place": 5}},
    )
    lasting = [
        Homebody.options(resources={"place": 1}, max_restarts=1, max_task_retries=1).remote()
        for _ in range(4)
    ]
    homes = skate.get([actor.where.remote() for actor in lasting])
    mortal = Homebody.options(resources={"place": 1}, name="mortal").remote()
    doomed = next(n for n in cluster.worker_nodes if n.node_id == skate.get(mortal.where.remote()))
    busy = mortal.sleep.remote(1000)
    kill_node(doomed)
    with pytest.raises((ActorDiedError, ActorUnavailableError), match=f"node {doomed.node_id}"):
        skate.get(busy, timeout=60)
    with pytest.raises(ActorDiedError, match=f"node {doomed.node_id}"):
        skate.get(mortal.where.remote(), timeout=60)
    with pytest.raises(ValueError, match="mortal"):
        skate.get_actor("mortal")
    after = skate.get([actor.where.remote() for actor in lasting], timeout=60)
    assert doomed.node_id not in after
    assert [a for a, h in zip(after, homes, strict=True) if h != doomed.node_id] == [
        home for home in homes if home != doomed.node_id
    ]


def test_what_cannot_be_retried_says_why(two_nodes: Cluster, tmp_path: Path) -> None:
    _, node = two_nodes.list_all_nodes

    @skate.remote(max_retries=0, resources={"there": 1})
    def hang(path: str) -> None:
        open(path, "x").close()
        time.sleep(1000)

    @skate.remote(resources={"there": 1})
    def there() -> int:
        return 1

    begun = str(tmp_path / "begun")
    ref = hang.remote(begun)
    wait_until(lambda: os.path.exists(begun), "it runs")
    kill_node(node)
    with pytest.raises(WorkerCrashedError, match=f"node {node.node_id}"):
        skate.get(ref, timeout=60)
    # What nothing can run any more waits until something can.
    waiting = there.remote()
    assert skate.wait([waiting], timeout=0.3)[0] == []
    two_nodes.add_node(num_cpus=1, resources={"there": 1})
    assert skate.get(waiting, timeout=60) == 1


def test_owners_that_are_gone(two_nodes: Cluster) -> None:
    _, node = two_nodes.list_all_nodes
    owner = Homebody.options(resources={"there": 1}).remote()
    known, pending = skate.get(owner.own.remote())
    assert skate.get(known) == "mine"
    fresh, _ = skate.get(owner.own.remote())
    kill_node(node)
    for ref in (pending, fresh):
        with pytest.raises(OwnerDiedError):
            skate.get(ref, timeout=60)
    # What was fetched before is ours.
    assert skate.get(known) == "mine"


def test_a_daemon_that_is_killed_alone(two_nodes: Cluster) -> None:
    _, node = two_nodes.list_all_nodes
    actor = Homebody.options(resources={"there": 1}).remote()
    assert skate.get(actor.where.remote()) == node.node_id
    pids = processes_of(node.process.session_dir)
    two_nodes.remove_node(node, allow_graceful=False)
    with pytest.raises(ActorDiedError, match=f"node {node.node_id}"):
        skate.get(actor.where.remote(), timeout=60)
    wait_until(lambda: not any(map(is_running, pids)), "its processes end")
    assert not os.path.exists(node.process.session_dir)


def test_a_node_that_leaves_in_good_order(two_nodes: Cluster) -> None:
    head, node = two_nodes.list_all_nodes
    two_nodes.remove_node(node)
    wait_until(lambda: alive() == {head.node_id}, "the head knows")
    assert not os.path.exists(node.process.session_dir)
    row = next(row for row in skate.nodes() if row["NodeID"] == node.node_id)
    assert "SIGTERM" in row["death_cause"]


def test_the_head_dies(two_nodes: Cluster) -> None:
    head, node = two_nodes.list_all_nodes
    kill_node(head)
    with pytest.raises(NodeDiedError) as caught:
        skate.get(Homebody.remote().where.remote(), timeout=60)
    assert f"(pid {head.pid}) has ended" in str(caught.value)
    # It had told its log of the node that came.
    log = str(caught.value).partition("its log: ")[2]
    with open(log, encoding="utf-8") as file:
        assert f"node {node.node_id}" in file.read()
    assert node.process.wait(30)
    assert not os.path.exists(node.process.session_dir)


def test_a_node_that_hangs_is_given_up(two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    head, node = two_nodes.list_all_nodes
    actor = Homebody.options(resources={"there": 1}).remote()
    assert skate.get(actor.where.remote()) == node.node_id
    os.kill(node.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: alive() == {head.node_id}, "the head gives it up", timeout=60)
        with pytest.raises(ActorDiedError, match="silent"):
            skate.get(actor.where.remote(), timeout=60)
    finally:
        os.kill(node.pid, signal.SIGCONT)
    # It learns that it was given up, and ends.
    assert node.process.wait(30)
