"""Tables in the object store, streams and iterables of tables; where they are read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost

import skate
from skate.cluster_utils import Cluster
from skate.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, loading, predict, train

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic"}
TWO = RayParams(num_actors=2)
NAMES = list("abcdef")
MODES = list(RayShardingMode)


def tables_of(data: Data, parts: int = 5) -> list[pd.DataFrame]:
    x, y = data
    frame = pd.DataFrame(x, columns=NAMES).assign(y=y)
    cuts = [len(frame) * index // parts for index in range(parts + 1)]
    return [frame.iloc[a:b] for a, b in itertools.pairwise(cuts)]


def check(matrix: RayDMatrix, data: Data, names: list[str] | None = NAMES) -> None:
    x, y = data
    assert matrix.shape == x.shape
    model = train(PARAMS, matrix, 5, ray_params=TWO)
    dmatrix = xgboost.DMatrix(x, y, feature_names=names)
    plain = xgboost.train(PARAMS, dmatrix, 5)
    assert np.allclose(predict(model, matrix, TWO), plain.predict(dmatrix), atol=1e-5)


class Stream:
    """What other libraries have: nothing but the Arrow C stream."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def as_polars(frame: pd.DataFrame) -> Any:
    return pl.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


KINDS: dict[str, Callable[[list[pd.DataFrame]], Any]] = {
    "refs of pandas": lambda parts: [skate.put(part) for part in parts],
    "refs of arrow": lambda parts: [skate.put(pa.Table.from_pandas(part)) for part in parts],
    "refs of polars": lambda parts: [skate.put(as_polars(part)) for part in parts],
    "list of pandas": lambda parts: parts,
    "list of polars": lambda parts: [as_polars(part) for part in parts],
    "generator": lambda parts: (part for part in parts),
    "generator of batches": lambda parts: (pa.RecordBatch.from_pandas(part) for part in parts),
    "reader": lambda parts: pa.Table.from_pandas(pd.concat(parts)).to_reader(),
    "stream": lambda parts: Stream(pa.Table.from_pandas(pd.concat(parts), preserve_index=False)),
    "lazy": lambda parts: as_polars(pd.concat(parts)).lazy(),
}


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds(data: Data, kind: str) -> None:
    parts = tables_of(data)
    given = KINDS[kind](parts)
    if kind == "reader":
        given = pa.RecordBatchReader.from_batches(
            given.schema.remove(given.schema.get_field_index("__index_level_0__"))
            if "__index_level_0__" in given.schema.names
            else given.schema,
            given,
        )
    check(RayDMatrix(given, "y"), data)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("mode", MODES)
def test_refs_in_all_modes(data: Data, mode: RayShardingMode) -> None:
    refs = [skate.put(part) for part in tables_of(data)]
    check(RayDMatrix(refs, "y", sharding=mode), data)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("convert", [np.asarray, scipy.sparse.csr_matrix])
def test_refs_of_blocks_without_names(data: Data, convert: Callable[[Any], Any]) -> None:
    x, y = data
    refs = [skate.put(convert(part)) for part in np.array_split(x, 3)]
    data = (convert(x), y)
    labels = [skate.put(part) for part in np.array_split(y, 3)]
    # One array, one for each block, or refs of these; weights as one ref.
    ones = skate.put(np.ones(len(y)))
    for label in (y, np.array_split(y, 3), labels):
        check(RayDMatrix(refs, label, weight=ones), data, None)


@pytest.mark.usefixtures("native")
def test_a_matrix_of_refs_travels(data: Data) -> None:
    matrix = RayDMatrix([skate.put(part) for part in tables_of(data)], "y")

    @skate.remote
    def rows(matrix: RayDMatrix) -> list[int | None]:
        return [loading.load(shard).rows for shard in matrix.shards(4)]

    assert skate.get(rows.remote(matrix), timeout=60) == [500] * 4


@pytest.mark.usefixtures("native")
def test_categories_of_blocks() -> None:
    rng = np.random.default_rng(1)
    color = rng.choice(["red", "green", "blue", "black"], size=600)
    color[:300] = rng.choice(["blue", "red"], size=300)
    y = ((color == "red") ^ (rng.random(600) < 0.05)).astype(float)
    whole = pd.DataFrame({"color": pd.Categorical(color), "x": rng.integers(0, 9, 600)})
    plain = xgboost.train(PARAMS, xgboost.DMatrix(whole, y, enable_categorical=True), 5)
    reference = plain.predict(xgboost.DMatrix(whole, enable_categorical=True))
    frames = [
        pd.DataFrame({"color": pd.Categorical(color[part]), "x": whole.x[part].to_numpy()})
        for part in (slice(0, 300), slice(300, 600))
    ]
    assert list(frames[0].color.cat.categories) == ["blue", "red"]
    for parts in (
        frames,
        [pa.Table.from_pandas(each) for each in frames],
        [pl.DataFrame(pa.Table.from_pandas(each)) for each in frames],
    ):
        refs = [skate.put(part) for part in parts]
        matrix = RayDMatrix(refs, y, enable_categorical=True)
        model = train(PARAMS, matrix, 5, ray_params=TWO)
        assert np.allclose(predict(model, matrix, TWO), reference, atol=1e-5)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("make", "arguments", "error", "text"),
    [
        (lambda: iter(()), {}, ValueError, "no blocks"),
        (lambda: iter([3]), {}, TypeError, "builtins.int"),
        (lambda: [skate.put("text")], {}, TypeError, "builtins.str"),
        (
            lambda: [skate.put(np.ones((2, 2))), skate.put(np.ones((2, 3)))],
            {"label": [1] * 4},
            ValueError,
            "block 1 has other columns than the first: 3, not 2",
        ),
        (
            lambda: [skate.put(np.ones((2, 2))), skate.put(pd.DataFrame({"a": [1], "b": [2]}))],
            {"label": [1] * 3},
            ValueError,
            "block 1 is of another kind",
        ),
        (
            lambda: [skate.put(np.ones((2, 2)))] * 2,
            {"label": [1] * 3},
            ValueError,
            "label has 3 values, but the data has 4 rows",
        ),
        (
            lambda: [skate.put(np.ones((2, 2)))] * 2,
            {"label": lambda: [skate.put(np.ones(2)), skate.put(np.ones(3))]},
            ValueError,
            "label of block 1 has 3 values, but the block has 2 rows",
        ),
        (
            lambda: [skate.put(pd.DataFrame({"a": [1]})), skate.put(pd.DataFrame({"a": ["x"]}))],
            {"label": [1] * 2},
            TypeError,
            "column 'a' of block 1 is of type",
        ),
    ],
)
def test_what_is_refused(
    make: Callable[[], Any], arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    made = {name: value() if callable(value) else value for name, value in arguments.items()}
    with pytest.raises(error, match=text):
        RayDMatrix(make(), **made)


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Two nodes of two CPUs; their ids."""
    skate.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    skate.init(cluster.address, engine="native")
    try:
        yield [node["NodeID"] for node in skate.nodes()]
    finally:
        skate.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize("mode", [RayShardingMode.BATCH, RayShardingMode.FIXED])
def test_blocks_are_read_where_they_are(
    two_nodes: list[str], data: Data, mode: RayShardingMode
) -> None:
    x, y = data

    @skate.remote
    def make(index: int) -> Any:
        # Large enough to be an object in the store of the node.
        return np.tile(np.column_stack([x, y])[index::4], (200, 1))

    def on(node: str) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(node, soft=False)

    refs = [
        make.options(scheduling_strategy=on(two_nodes[index % 2])).remote(index)
        for index in range(4)
    ]
    labels = np.concatenate([np.tile(y[index::4], 200) for index in range(4)])
    matrix = RayDMatrix(refs, labels, sharding=mode)
    assert matrix.nodes == set(two_nodes)
    for ranks in (two_nodes, two_nodes[::-1]):
        for shard, node in zip(matrix.shards(2, ranks), ranks, strict=True):
            assert [piece.nodes for piece in shard.pieces] == [(node,)] * 2
            assert sum(piece.rows or 0 for piece in shard.pieces) == len(labels) // 2
