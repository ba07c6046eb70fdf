"""Rows are read where they are needed, and nowhere twice."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import skate
from skate import state
from skate.cluster_utils import Cluster
from skate.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from skate.xgboost import RayDMatrix, RayParams, loading, train
from skate.xgboost.callback import DistributedCallback

Data = tuple[Any, Any]

TWO = RayParams(num_actors=2)


@pytest.mark.usefixtures("native")
def test_files_are_read_by_the_actors(data: Data, tmp_path: Path) -> None:
    x, y = data
    frame = pd.DataFrame(x, columns=list("abcdef")).assign(y=y, file=0.0)
    for number in range(4):
        part = frame.iloc[number * 500 : (number + 1) * 500].assign(file=number)
        part.to_csv(tmp_path / f"{number}.csv", index=False)
    notes = tmp_path / "notes"
    notes.mkdir()

    def noted(value: str) -> float:
        # Runs for each row, where the file is read.
        with open(notes / str(os.getpid()), "a") as file:
            file.write(value)
        return float(value)

    matrix = RayDMatrix(f"{tmp_path}/*.csv", "y", converters={"file": noted})
    here = notes / str(os.getpid())
    # To know what is in them.
    assert Counter(here.read_text()) == {str(number): 100 for number in range(4)}
    here.unlink()
    train({}, matrix, 2, ray_params=TWO)
    read = sorted(note.read_text() for note in notes.iterdir())
    assert not here.exists()
    assert read == ["0" * 500 + "1" * 500, "2" * 500 + "3" * 500]


def backing_of(address: int) -> tuple[str, str]:
    """Return permissions and name of the memory mapping at an address."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _, _, _, *name = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return permissions, name[0] if name else ""
    raise AssertionError(f"nothing at {address:#x}")


@pytest.mark.usefixtures("native")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_all_actors_of_all_trainings_map_the_same_memory() -> None:
    x = np.random.default_rng(0).normal(size=(50_000, 10)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    matrix = RayDMatrix(x, y)
    before = stored().keys()

    @skate.remote
    class Actor:
        def rows(self, shard: loading.ShardSpec) -> tuple[str, str, int]:
            (batch,) = loading.load(shard).batches
            return *backing_of(batch.features.ctypes.data), batch.rows

    mapped = []
    for _ in range(2):
        actors = [Actor.options(num_cpus=0).remote() for _ in range(2)]
        shards = matrix.shards(2)
        mapped.append(
            skate.get(
                [actor.rows.remote(shard) for actor, shard in zip(actors, shards, strict=True)],
                timeout=60,
            )
        )
        train({}, matrix, 2, evals=[(matrix, "train")], verbose_eval=False, ray_params=TWO)
    # Shared pages, of the same files.
    assert mapped[0] == mapped[1]
    assert all(permissions.endswith("s") for permissions, _, _ in mapped[0])
    assert sum(rows for _, _, rows in mapped[0]) == len(y)
    new = sum(size for name, size in stored().items() if name not in before)
    assert new < 1.01 * (x.nbytes + y.nbytes) + 200_000


def stored() -> dict[str, int]:
    return {each.object_id: each.object_size or 0 for each in state.list_objects()}


class Places(DistributedCallback):
    """Notes on which node each actor is, and which parts of the data it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
        """Note them."""
        node = skate.get_runtime_context().get_node_id()
        (self.folder / f"{actor.rank} {node}").write_text(
            " ".join(node for piece in data[0].pieces for node in piece.nodes)
        )


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Two nodes of one CPU; their ids."""
    skate.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    skate.init(cluster.address, engine="native")
    try:
        yield [node["NodeID"] for node in skate.nodes()]
    finally:
        skate.shutdown()
        cluster.shutdown()


@pytest.mark.timeout(120)
def test_a_training_reads_blocks_on_their_nodes(
    two_nodes: list[str], data: Data, tmp_path: Path
) -> None:
    x, y = data

    @skate.remote
    def make(index: int) -> Any:
        # Large enough to be an object in the store of the node.
        return np.tile(x[index::4], (200, 1))

    refs = [
        make.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(two_nodes[index % 2], soft=False)
        ).remote(index)
        for index in range(4)
    ]
    labels = np.concatenate([np.tile(y[index::4], 200) for index in range(4)])
    params = RayParams(num_actors=2, cpus_per_actor=1, distributed_callbacks=[Places(tmp_path)])
    train({}, RayDMatrix(refs, labels), 2, ray_params=params)
    found = {tuple(note.name.split()): note.read_text().split() for note in tmp_path.iterdir()}
    assert {node for _, node in found} == set(two_nodes)
    for (_, node), places in found.items():
        assert places == [node] * 2
