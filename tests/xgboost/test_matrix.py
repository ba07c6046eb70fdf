"""What a RayDMatrix may be made of, and what is refused at once."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import skate
from skate.xgboost import RayDMatrix, RayShardingMode

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
        ({"data": "data.csv"}, TypeError, "builtins.str"),
        ({"data": X[:, 0]}, ValueError, "two-dimensional"),
        ({"data": np.array([["a", "b"]])}, TypeError, "numbers"),
        ({"data": np.zeros((3, 0))}, ValueError, "no columns"),
        ({"data": X, "label": Y[:4]}, ValueError, "label has 4 values, but the data has 6 rows"),
        ({"data": X, "weight": [1.0]}, ValueError, "weight has 1 values"),
        ({"data": X, "label": "y"}, TypeError, "the data has no names"),
        ({"data": X, "label": ["a"] * 6}, TypeError, "label must be numbers"),
        ({"data": X, "label": 1}, TypeError, "label must be an array"),
        ({"data": X, "feature_names": ["a"]}, ValueError, "feature_names has 1 entries"),
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
def test_the_data_is_stored_once_and_travels_as_a_reference() -> None:
    big = np.random.default_rng(0).normal(size=(50_000, 10))
    matrix = RayDMatrix(big, big[:, 0])
    assert matrix.ref() is matrix.ref()
    payload = skate.put(matrix)
    copy: RayDMatrix = skate.get(payload)
    assert copy.ref() == matrix.ref()
    stored = skate.get(copy.ref())
    assert np.array_equal(stored.features, big)
    assert not stored.features.flags.owndata

    @skate.remote
    def size(matrix: RayDMatrix) -> int:
        import cloudpickle

        return len(cloudpickle.dumps(matrix))

    assert skate.get(size.remote(matrix), timeout=30) < 2000
    assert len(pickle.dumps(matrix)) < 2000


def test_a_matrix_outlives_a_session() -> None:
    matrix = RayDMatrix(X, Y)
    for _ in range(2):
        skate.shutdown()
        skate.init(engine="inline")
        assert np.array_equal(skate.get(matrix.ref()).features, X)
    skate.shutdown()
