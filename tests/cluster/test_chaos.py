"""Nodes are killed at random while they work; every answer has to be exactly right all the same."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from node_death import kill_node

import skate
from skate.cluster_utils import Cluster

SECONDS_BETWEEN_KILLS = 3.0
#: Beside the head, which stays: heads that come back are another matter.
NODES = 2


class NodeKiller:
    """Kills a node every few seconds, and starts another in its place."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._nodes = [self._add() for _ in range(NODES)]
        self.killed = 0

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=2, object_store_memory=200_000_000)

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_KILLS):
            victim = self._nodes.pop(self._random.randrange(len(self._nodes)))
            kill_node(victim)
            self.killed += 1
            self._nodes.append(self._add())

    def __enter__(self) -> NodeKiller:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join()


@skate.remote(max_retries=-1)
def array_of(value: int) -> Any:
    return np.full(100_000, value, dtype=np.int64)


@skate.remote(max_retries=-1)
def plus(a: Any, b: Any) -> Any:
    return a + b


@skate.remote(max_retries=-1)
def nested(value: int) -> int:
    refs = [array_of.remote(value + i) for i in range(3)]
    return int(sum(array[0] for array in skate.get(refs)))


@skate.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0.1)
class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, array: Any) -> int:
        return self.base + int(array[-1])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2])
def test_nodes_die_and_all_answers_are_right(
    make_cluster: Callable[..., Cluster], seed: int
) -> None:
    cluster = make_cluster({"num_cpus": 1, "object_store_memory": 200_000_000}, log_to_driver=False)
    rounds = 0
    with NodeKiller(cluster, seed) as killer:
        actors = [Adder.remote(1000 * i) for i in range(8)]
        while killer.killed < 3:
            rounds += 1
            leaves = [array_of.remote(i) for i in range(40)]
            sums = [plus.remote(leaves[i], leaves[(3 * i) % 40]) for i in range(40)]
            top = [plus.remote(sums[i], sums[i + 1]) for i in range(0, 40, 2)]
            trees = [nested.remote(i) for i in range(20)]
            calls = [actor.add.remote(leaf) for actor in actors for leaf in leaves[:5]]
            # The arrays in between are not held: if they are needed again they are made again.
            del leaves, sums
            for i, array in zip(range(0, 40, 2), skate.get(top, timeout=120), strict=True):
                expected = i + (3 * i) % 40 + i + 1 + (3 * i + 3) % 40
                assert array.shape == (100_000,)
                assert (array == expected).all()
            assert skate.get(trees, timeout=120) == [3 * i + 3 for i in range(20)]
            assert skate.get(calls, timeout=120) == [
                1000 * actor + leaf for actor in range(8) for leaf in range(5)
            ]
    print(f"seed {seed}: {killer.killed} nodes killed in {rounds} rounds")
