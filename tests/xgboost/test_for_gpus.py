"""What is done for GPUs, as far as that shows without one: kinds of matrices, and their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost

from skate.xgboost import RayDMatrix, attempts, loading
from skate.xgboost.data import tables
from skate.xgboost.messages import TrainingSpec

pa = pytest.importorskip("pyarrow")


def numbers() -> pd.DataFrame:
    """Return columns of all types that may be missing somewhere."""
    return pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "truth": pd.array([True, False, None], dtype="boolean"),
            "real": [1.5, None, 2],
            "arrow": pd.array([1, 2, None], dtype="int64[pyarrow]"),
        }
    )


NAN = np.nan
EXPECTED = [[1, 1, 1.5, 1], [NAN, 0, NAN, 2], [3, NAN, 2, NAN]]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (numbers(), EXPECTED),
        (pa.Table.from_pandas(numbers()), EXPECTED),
        (scipy.sparse.csr_matrix([[1, 0], [0, 2.0]]), [[1, NAN], [NAN, 2]]),
        (np.array([[True, False]]), [[1, 0]]),
    ],
    ids=["pandas", "arrow", "sparse", "array"],
)
def test_dense(table: Any, expected: list[list[float]]) -> None:
    found = tables.dense(table)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "gpu"])
def test_bins_of_data_in_memory_are_found_on_the_gpu(data: Any, device: str) -> None:
    (shard,) = RayDMatrix(*data).shards(1)
    params = {"device": device}
    matrix = loading.build(loading.load(shard), params, threads=1, binned=True)
    on_cpu = device == "cpu"
    assert type(matrix) is (xgboost.QuantileDMatrix if on_cpu else xgboost.DMatrix)


@pytest.mark.parametrize(("device", "reusable"), [("cpu", True), ("cuda", False)])
def test_matrices_on_gpus_do_not_outlive_a_world(device: str, reusable: bool) -> None:
    spec = TrainingSpec(params={"device": device}, num_boost_round=1, evals=[], threads=1)
    assert attempts.is_reusable(spec) is reusable
