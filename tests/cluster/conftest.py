"""Clusters of real node daemons on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import skate
from skate.cluster_utils import Cluster


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start a cluster with a head and further nodes, each given its options, and connect to it."""
    made: list[Cluster] = []

    def make(head: dict[str, Any], *others: dict[str, Any], **init: Any) -> Cluster:
        skate.shutdown()
        cluster = Cluster(initialize_head=True, head_node_args=head)
        made.append(cluster)
        for options in others:
            cluster.add_node(**options)
        skate.init(cluster.address, engine="native", **init)
        return cluster

    yield make
    skate.shutdown()
    for cluster in made:
        cluster.shutdown()


@pytest.fixture
def two_nodes(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Two nodes of two CPUs; "there" exists on the second one, where the driver is not."""
    return make_cluster(
        {"num_cpus": 2, "resources": {"here": 9}}, {"num_cpus": 2, "resources": {"there": 9}}
    )
