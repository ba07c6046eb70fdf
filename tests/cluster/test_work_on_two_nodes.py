"""Tasks and actors find their way between nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from node_fakes import wait_until

import skate
from skate import state
from skate.cluster_utils import Cluster
from skate.exceptions import ActorDiedError

pytestmark = pytest.mark.timeout(120)


@skate.remote
def where(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return skate.get_runtime_context().get_node_id()


@skate.remote
class Homebody:
    def where(self) -> str:
        return skate.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()

    def restarted(self) -> bool:
        return skate.get_runtime_context().was_current_actor_reconstructed

    def die(self) -> None:
        os._exit(3)

    def ask(self, other: skate.actor.ActorHandle) -> str:
        return skate.get(other.where.remote())


def call_until_dead(actor: skate.actor.ActorHandle) -> None:
    while True:
        skate.get(actor.where.remote(), timeout=30)


def ids(cluster: Cluster) -> list[str]:
    return [node.node_id for node in cluster.list_all_nodes]


def test_what_the_cluster_has(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)
    resources = skate.cluster_resources()
    assert resources["CPU"] == 4.0
    assert resources["here"] == resources["there"] == 9.0
    rows = {row["NodeID"]: row for row in skate.nodes()}
    assert set(rows) == {here, there}
    assert rows[there]["Resources"]["there"] == 9.0
    assert rows[there]["Alive"] is True
    wait_until(lambda: skate.available_resources() == resources, "everything is free")


def test_a_full_node_hands_on(two_nodes: Cluster) -> None:
    # Two run here, so others have to run there.
    assert set(skate.get([where.remote(0.3) for _ in range(8)])) == set(ids(two_nodes))


def test_what_only_another_node_has(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)
    refs = [where.options(resources={name: 1}).remote() for name in ("here", "there") * 10]
    assert skate.get(refs) == [here, there] * 10


def test_more_than_the_other_node_can_at_once(two_nodes: Cluster) -> None:
    _, there = ids(two_nodes)
    refs = [where.options(resources={"there": 4}).remote(0.02) for _ in range(12)]
    assert skate.get(refs) == [there] * 12


def test_tasks_start_tasks_on_other_nodes(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)

    @skate.remote
    def outer() -> tuple[str, str]:
        inner = where.options(resources={"here": 1}).remote()
        return skate.get_runtime_context().get_node_id(), skate.get(inner)

    assert skate.get(outer.options(resources={"there": 1}).remote()) == (there, here)


def test_small_and_nested_values_cross(two_nodes: Cluster) -> None:
    @skate.remote
    def add(parts: list[skate.ObjectRef[int]], more: int) -> int:
        return sum(skate.get(parts)) + more

    @skate.remote
    def one() -> int:
        return 1

    on_there, on_here = {"resources": {"there": 1}}, {"resources": {"here": 1}}
    parts = [skate.put(5), one.options(**on_there).remote(), one.options(**on_here).remote()]
    for options in (on_there, on_here):
        assert (
            skate.get(add.options(**options).remote(parts, one.options(**on_there).remote())) == 8
        )


def test_errors_name_where_it_was(two_nodes: Cluster) -> None:
    _, there = ids(two_nodes)

    @skate.remote(max_retries=0)
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError) as caught:
        skate.get(fail.options(resources={"there": 1}).remote())
    assert there in str(caught.value)


def test_infeasible_until_a_node_comes(
    make_cluster: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make_cluster({"num_cpus": 1}, {"num_cpus": 1})
    ref = where.options(resources={"rare": 1}).remote()
    actor = Homebody.options(resources={"rare": 1}).remote()
    assert skate.wait([ref], timeout=0.2)[0] == []

    def warned() -> bool:
        skate.wait([ref], timeout=0.01)
        return "asked for 1 CPU, 1 rare, but no node has that, they have 1 CPU" in caplog.text

    wait_until(warned, "the user is told")
    node = cluster.add_node(num_cpus=1, resources={"rare": 2})
    assert skate.get(ref, timeout=60) == node.node_id
    assert skate.get(actor.where.remote(), timeout=60) == node.node_id
    assert skate.cluster_resources()["CPU"] == 3.0
    cluster.wait_for_nodes()


def test_actors_live_where_there_is_room(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)
    far = Homebody.options(resources={"there": 1}).remote()
    near = Homebody.options(resources={"here": 1}).remote()
    assert skate.get([far.where.remote(), near.where.remote()]) == [there, here]
    rows = {row.node_id for row in state.list_actors(filters=[("state", "=", "ALIVE")])}
    assert rows == {here, there}
    assert skate.get(far.ask.remote(near)) == here
    assert skate.get(near.ask.remote(far)) == there
    crowd = [Homebody.options(num_cpus=1).remote() for _ in range(4)]
    nodes = skate.get([actor.where.remote() for actor in crowd])
    assert sorted(nodes) == sorted([here, here, there, there])


def test_names_are_known_everywhere(two_nodes: Cluster) -> None:
    _, there = ids(two_nodes)
    actor = Homebody.options(name="known", resources={"there": 1}).remote()

    @skate.remote
    def look_up(namespace: str) -> str:
        return skate.get(skate.get_actor("known", namespace=namespace).where.remote())

    namespace = skate.get_runtime_context().namespace
    for name in ("here", "there"):
        assert skate.get(look_up.options(resources={name: 1}).remote(namespace)) == there
    with pytest.raises(ValueError, match="known"):
        Homebody.options(name="known").remote()
    skate.kill(actor)


def test_actors_made_elsewhere(two_nodes: Cluster) -> None:
    here, there = ids(two_nodes)

    @skate.remote
    class Maker:
        def make(self, name: str) -> skate.actor.ActorHandle:
            self.made = Homebody.options(resources={name: 1}).remote()
            return self.made

    maker = Maker.options(resources={"there": 1}).remote()
    for name, node in (("here", here), ("there", there)):
        child = skate.get(maker.make.remote(name))
        assert skate.get(child.where.remote()) == node
        del child
    # Its actors end with it.
    child = skate.get(maker.make.remote("here"))
    assert skate.get(child.where.remote()) == here
    skate.kill(maker)
    with pytest.raises(ActorDiedError):
        call_until_dead(child)


def test_actors_restart_and_end(two_nodes: Cluster) -> None:
    actor = Homebody.options(resources={"there": 1}, max_restarts=1, max_task_retries=-1).remote()
    pid = skate.get(actor.pid.remote())
    actor.die.options(max_task_retries=0).remote()
    assert skate.get(actor.restarted.remote(), timeout=60)
    assert skate.get(actor.pid.remote()) != pid
    skate.kill(actor)
    with pytest.raises(ActorDiedError):
        skate.get(actor.pid.remote(), timeout=60)
    wait_until(lambda: skate.available_resources().get("there") == 9.0, "it gave back what it held")


def test_a_worker_that_dies_there(two_nodes: Cluster) -> None:
    @skate.remote(max_retries=2)
    def die_once(path: str) -> str:
        if not os.path.exists(path):
            open(path, "x").close()
            os._exit(1)
        return skate.get_runtime_context().get_node_id()

    path = f"/tmp/skt-{os.getpid()}-{time.monotonic_ns()}"
    try:
        ref = die_once.options(resources={"there": 1}).remote(path)
        assert skate.get(ref, timeout=60) == ids(two_nodes)[1]
    finally:
        os.unlink(path)


def test_output_reaches_the_driver(two_nodes: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    @skate.remote
    def say() -> None:
        print("hello from far away")

    skate.get(say.options(resources={"there": 1}).remote())
    seen = ""

    def heard() -> bool:
        nonlocal seen
        seen += "".join(capfd.readouterr())
        return "hello from far away" in seen

    wait_until(heard, "the line appears")
