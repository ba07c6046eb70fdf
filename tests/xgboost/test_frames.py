"""DataFrames of Dask and Modin, where these are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, predict, train

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic"}
TWO = RayParams(num_actors=2)
NAMES = list("abcdef")


def frame_of(data: Data) -> pd.DataFrame:
    x, y = data
    return pd.DataFrame(x, columns=NAMES).assign(y=y, id=np.arange(len(y)))


def check(matrix: RayDMatrix, data: Data) -> None:
    assert matrix.shape == (2000, 6)
    model = train(PARAMS, matrix, 5, ray_params=TWO)
    dmatrix = xgboost.DMatrix(*data, feature_names=NAMES)
    plain = xgboost.train(PARAMS, dmatrix, 5)
    assert np.allclose(predict(model, matrix, TWO), plain.predict(dmatrix), atol=1e-5)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("mode", list(RayShardingMode))
@pytest.mark.parametrize("partitions", [1, 5])
def test_dask(data: Data, mode: RayShardingMode, partitions: int) -> None:
    dask = pytest.importorskip("dask.dataframe")
    frame = dask.from_pandas(frame_of(data), npartitions=partitions)
    matrix = RayDMatrix(frame, "y", ignore=["id"], sharding=mode)
    if partitions == 1 and mode is RayShardingMode.FIXED:
        with pytest.raises(ValueError, match="2 actors cannot share 1 partitions"):
            train(PARAMS, matrix, 5, ray_params=TWO)
        return
    check(matrix, data)


@pytest.mark.usefixtures("native")
def test_columns_of_dask_are_checked(data: Data) -> None:
    dask = pytest.importorskip("dask.dataframe")
    frame = dask.from_pandas(frame_of(data).assign(t=pd.Timestamp(0)), npartitions=2)
    with pytest.raises(TypeError, match="column 't' is of type datetime64"):
        RayDMatrix(frame, "y")
    with pytest.raises(ValueError, match="label: there is no column 'w'"):
        RayDMatrix(frame, "w")


@pytest.mark.usefixtures("native")
def test_modin(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODIN_ENGINE", "python")
    modin = pytest.importorskip("modin.pandas")
    check(RayDMatrix(modin.DataFrame(frame_of(data)), "y", ignore=["id"]), data)
