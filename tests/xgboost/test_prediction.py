"""Predictions of several actors are those of XGBoost, in the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, predict

Data = tuple[Any, Any]


@pytest.fixture(scope="module")
def model(data: Data) -> xgboost.Booster:
    """A model of three classes."""
    x, _ = data
    y = (x[:, 0] // 14).clip(0, 2)
    return xgboost.train(
        {"objective": "multi:softprob", "num_class": 3, "max_depth": 3}, xgboost.DMatrix(x, y), 4
    )


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("sharding", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"output_margin": True},
        {"pred_leaf": True},
        {"pred_contribs": True},
        {"pred_contribs": True, "approx_contribs": True},
        {"pred_interactions": True},
        {"iteration_range": (0, 2)},
    ],
    ids=lambda arguments: " ".join(arguments) or "default",
)
def test_like_xgboost(
    data: Data, model: xgboost.Booster, sharding: RayShardingMode, arguments: dict[str, Any]
) -> None:
    x, y = data
    matrix = RayDMatrix(x, y, sharding=sharding)
    predicted = predict(model, matrix, RayParams(num_actors=2), **arguments)
    assert np.array_equal(predicted, model.predict(xgboost.DMatrix(x), **arguments))


@pytest.mark.usefixtures("inline")
class TestInline:
    def test_models_from_files_and_bytes(
        self, data: Data, model: xgboost.Booster, tmp_path: Path
    ) -> None:
        x, _ = data
        model.save_model(tmp_path / "model.ubj")
        expected = model.predict(xgboost.DMatrix(x))
        for given in (tmp_path / "model.ubj", str(tmp_path / "model.ubj"), model.save_raw()):
            assert np.array_equal(predict(given, RayDMatrix(x)), expected)

    def test_columns_are_checked_by_name(self, data: Data) -> None:
        x, y = data
        frame = pd.DataFrame(x, columns=list("abcdef"))
        named = xgboost.train({}, xgboost.DMatrix(frame, y), 2)
        expected = named.predict(xgboost.DMatrix(frame))
        labelled = frame.assign(y=y)
        assert np.array_equal(predict(named, RayDMatrix(labelled, label="y")), expected)
        with pytest.raises(ValueError, match="feature_names mismatch"):
            predict(named, RayDMatrix(frame.rename(columns={"a": "z"})))
        renamed = RayDMatrix(frame.rename(columns={"a": "z"}))
        assert np.array_equal(predict(named, renamed, validate_features=False), expected)

    def test_base_margin(self, data: Data) -> None:
        x, y = data
        model = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, y), 2)
        margin = np.linspace(-1, 1, len(y))
        expected = model.predict(xgboost.DMatrix(x, base_margin=margin))
        assert np.array_equal(predict(model, RayDMatrix(x, base_margin=margin)), expected)

    def test_no_rows(self, data: Data, model: xgboost.Booster) -> None:
        x, _ = data
        expected = model.predict(xgboost.DMatrix(x[:0]))
        assert np.array_equal(predict(model, RayDMatrix(x[:0])), expected)


@pytest.mark.usefixtures("native")
def test_fewer_rows_than_actors(data: Data, model: xgboost.Booster) -> None:
    x, _ = data
    predicted = predict(model, RayDMatrix(x[:2]), RayParams(num_actors=5))
    assert np.array_equal(predicted, model.predict(xgboost.DMatrix(x[:2])))
