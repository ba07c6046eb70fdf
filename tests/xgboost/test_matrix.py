"""What a RayDMatrix may be made of, and what is refused at once."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import skate
from skate.xgboost import RayDMatrix, RayQuantileDMatrix, RayShardingMode, loading

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.astype(np.float32),
        np.asfortranarray(X),
        X.astype(np.int64),
        X > 3,
        X[::-1],
        X.tolist(),
        pd.DataFrame(X, columns=["a", "b"]),
        scipy.sparse.csr_matrix(X),
        scipy.sparse.csr_array(X),
    ],
)
def test_shape(data: Any) -> None:
    assert RayDMatrix(data, Y).shape == (6, 2)


def test_columns_by_name() -> None:
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "id": range(6), "y": Y, "w": 1.0})
    matrix = RayDMatrix(frame, label="y", weight="w", ignore=["id"])
    assert matrix.shape == (6, 2)
    assert matrix.has_label
    # The user's own frame stays as it was.
    assert list(frame.columns) == ["a", "b", "id", "y", "w"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"data": "data.csv"}, FileNotFoundError, "data.csv"),
        ({"data": {"a": [1]}}, TypeError, "builtins.dict"),
        ({"data": X[:, 0]}, ValueError, "two-dimensional"),
        ({"data": np.array([["a", "b"]])}, TypeError, "numbers"),
        ({"data": np.zeros((3, 0))}, ValueError, "no columns"),
        ({"data": X, "label": Y[:4]}, ValueError, "label has 4 values, but the data has 6 rows"),
        ({"data": X, "weight": [1.0]}, ValueError, "weight has 1 values"),
        ({"data": X, "label": "y"}, TypeError, "the data has no names"),
        ({"data": X, "label": ["a"] * 6}, TypeError, "label must be numbers"),
        ({"data": X, "label": 1}, TypeError, "label must be an array"),
        ({"data": X, "feature_names": ["a"]}, ValueError, "feature_names has 1 entries"),
        ({"data": X, "feature_weights": 3}, TypeError, "feature_weights must have an entry"),
        ({"data": X, "missing": "NA"}, TypeError, "missing must be a number"),
        ({"data": X, "num_actors": "2"}, TypeError, "num_actors must be a whole number"),
        ({"data": X, "num_actors": -1}, ValueError, "num_actors must be at least 0"),
        (
            {"data": pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", "a"])},
            ValueError,
            "2 columns are called 'a'",
        ),
        ({"data": X, "qid": [2, 1, 1, 1, 1, 1]}, ValueError, "sorted"),
        ({"data": X, "sharding": "BATCH"}, TypeError, "RayShardingMode"),
        (
            {"data": X, "qid": [1] * 6, "sharding": RayShardingMode.INTERLEAVED},
            ValueError,
            "stay together",
        ),
    ],
)
def test_wrong_input_is_refused_at_once(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        RayDMatrix(**arguments)


@pytest.mark.parametrize(("wrong", "error"), [("many", TypeError), (1, ValueError)])
def test_wrong_numbers_of_bins_are_refused_at_once(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_bin"):
        RayQuantileDMatrix(X, Y, max_bin=wrong)


def test_columns_of_one_name_may_be_ignored() -> None:
    frame = pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", "a"])
    assert RayDMatrix(frame, ignore=["a"]).shape == (2, 1)


@pytest.mark.parametrize("argument", ["label", "weight", "qid"])
def test_a_missing_column_is_named(argument: str) -> None:
    frame = pd.DataFrame({"a": [1.0], "b": [2.0]})
    with pytest.raises(ValueError, match=f"{argument}: there is no column 'x', only a, b"):
        RayDMatrix(frame, **{argument: "x"})


def test_weights_of_query_groups() -> None:
    qid = [1, 1, 1, 2, 2, 3]
    assert RayDMatrix(X, Y, qid=qid, weight=[1.0, 2.0, 3.0]).shape == (6, 2)
    with pytest.raises(ValueError, match="3 query groups"):
        RayDMatrix(X, Y, qid=qid, weight=[1.0] * 6)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("num_actors", [1, 3])
def test_the_data_is_stored_once_and_travels_as_a_reference(num_actors: int) -> None:
    big = np.random.default_rng(0).normal(size=(50_000, 10))
    before = _stored().keys()
    matrix = RayDMatrix(big, big[:, 0])
    for _ in range(2):
        shards = matrix.shards(num_actors)
    stored = sum(bytes_ for key, bytes_ in _stored().items() if key not in before)
    size = big.nbytes + len(big) * 8
    assert size <= stored < 1.01 * size + 100_000
    batches = [loading.load(shard).batches for shard in shards]
    assert all(len(each) == 1 for each in batches)
    assert np.array_equal(np.concatenate([each[0].features for each in batches]), big)
    for (batch,) in batches:
        assert not batch.features.flags.owndata
        assert not batch.features.flags.writeable

    @skate.remote
    def size_of(matrix: RayDMatrix) -> int:
        import cloudpickle

        matrix.shards(num_actors)
        return len(cloudpickle.dumps(matrix))

    assert skate.get(size_of.remote(matrix), timeout=30) < 5000
    assert len(pickle.dumps(matrix)) < 5000
    assert all(len(pickle.dumps(shard)) < 3000 for shard in shards)
    # What the task returns is small enough to be no object in the store.
    assert stored == sum(bytes_ for key, bytes_ in _stored().items() if key not in before)


def _stored() -> dict[str, int]:
    from skate import state

    return {each.object_id: each.object_size or 0 for each in state.list_objects()}


def test_a_matrix_outlives_a_session() -> None:
    matrix = RayDMatrix(X, Y)
    for _ in range(2):
        skate.shutdown()
        skate.init(engine="inline")
        (shard,) = matrix.shards(1)
        assert np.array_equal(loading.load(shard).batches[0].features, X)
    skate.shutdown()
