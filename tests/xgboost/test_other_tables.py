"""Tables of libraries that need not be installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, predict, train

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic"}


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("sharding", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_label_and_ignored_columns_by_name(
    data: Data, library: str, sharding: RayShardingMode
) -> None:
    module = pytest.importorskip(library)
    x, y = data
    columns = {name: x[:, index] for index, name in enumerate("abcdef")}
    columns |= {"y": y, "id": np.arange(len(y))}
    table = module.DataFrame(columns) if library == "polars" else module.table(columns)
    matrix = RayDMatrix(table, "y", ignore=["id"], sharding=sharding)
    model = train(PARAMS, matrix, 5, ray_params=RayParams(num_actors=2))
    assert model.feature_names == list("abcdef")
    reference = xgboost.train(PARAMS, xgboost.DMatrix(x, y), 5)
    predicted = predict(model, matrix, RayParams(num_actors=2))
    assert np.allclose(predicted, reference.predict(xgboost.DMatrix(x)), atol=1e-5)
