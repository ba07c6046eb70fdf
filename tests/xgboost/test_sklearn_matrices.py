"""Estimators that take a ``RayDMatrix``, and those whose predictions are made by actors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, prediction
from skate.xgboost.sklearn import (
    RayXGBClassifier,
    RayXGBRanker,
    RayXGBRegressor,
    RayXGBRFClassifier,
    RayXGBRFRegressor,
)

Data = tuple[Any, Any]

TWO = RayParams(num_actors=2)
SMALL: dict[str, Any] = {"n_estimators": 4, "max_depth": 3}

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many actors predicted, each time."""
    calls: list[int] = []
    original = prediction.predict

    def noted(model: Any, data: RayDMatrix, ray_params: RayParams, **options: Any) -> Any:
        calls.append(ray_params.num_actors)
        return original(model, data, ray_params, **options)

    monkeypatch.setattr(prediction, "predict", noted)
    return calls


@pytest.mark.parametrize("kind", [RayXGBRegressor, RayXGBRFRegressor])
def test_regressors_predict_the_same_on_actors(data: Data, asked: list[int], kind: Any) -> None:
    x, y = data
    model = kind(**SMALL, n_jobs=2).fit(x, y)
    here = model.predict(x)
    assert asked == []
    for given in (
        {"ray_params": TWO},
        {"ray_params": {"num_actors": 2}, "_remote": False},
        {"ray_dmatrix_params": {"sharding": RayShardingMode.INTERLEAVED}},
    ):
        assert np.array_equal(model.predict(x, **given), here)
    assert np.array_equal(model.predict(RayDMatrix(x)), here)
    assert asked == [2] * 4
    options: dict[str, Any] = {"base_margin": np.arange(len(y)), "iteration_range": (0, 1)}
    expected = model.predict(x, **options)
    assert np.allclose(model.predict(x, ray_params=TWO, **options), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [RayXGBClassifier, RayXGBRFClassifier])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers_predict_the_same_on_actors(
    data: Data, asked: list[int], kind: Any, classes: int
) -> None:
    x, _ = data
    y = (x[:, 0] * classes // 40).astype(int)
    model = kind(**SMALL, n_jobs=2).fit(x, y)
    assert np.array_equal(model.predict(x, ray_params=TWO), model.predict(x))
    assert np.array_equal(model.predict_proba(x, ray_params=TWO), model.predict_proba(x))
    margins = model.predict(x, output_margin=True)
    assert np.array_equal(model.predict(x, output_margin=True, ray_params=TWO), margins)
    assert asked == [2] * 3
    assert model.score(RayDMatrix(x), y) == model.score(x, y)


def test_a_ranker_leaves_out_the_column_of_groups(data: Data, asked: list[int]) -> None:
    x, y = data
    frame = pd.DataFrame(x, columns=list("abcdef"))
    ranked = frame.assign(qid=np.repeat(np.arange(len(y) // 20), 20))
    model = RayXGBRanker(**SMALL, n_jobs=2).fit(ranked, y)
    assert np.array_equal(model.predict(ranked, ray_params=TWO), model.predict(frame))
    assert asked == [2]


@pytest.mark.parametrize(("classes", "kind"), [(2, RayXGBClassifier), (3, RayXGBRFClassifier)])
def test_a_classifier_is_trained_on_a_matrix(data: Data, classes: int, kind: Any) -> None:
    x, _ = data
    y = (x[:, 0] * classes // 40).astype(int)
    matrix, test = RayDMatrix(x[:1500], y[:1500]), RayDMatrix(x[1500:], y[1500:])
    # Rows and columns of forests are drawn at random.
    options = {**SMALL, "n_jobs": 2, "subsample": 1, "colsample_bynode": 1}
    model = kind(num_class=classes, **options).fit(matrix, eval_set=[(test, "test")], verbose=False)
    reference = kind(**options).fit(x[:1500], y[:1500])
    assert np.array_equal(model.predict(x), reference.predict(x))
    assert np.array_equal(model.predict_proba(x), reference.predict_proba(x))
    assert list(model.evals_result()) == ["test"]
    assert model.n_classes_ == classes


def test_a_regressor_and_a_ranker_are_trained_on_a_matrix(data: Data) -> None:
    x, y = data
    weight = np.linspace(0.1, 2, len(y))
    model = RayXGBRegressor(**SMALL, n_jobs=2).fit(RayDMatrix(x, y, weight=weight))
    reference = RayXGBRegressor(**SMALL, n_jobs=2).fit(x, y, sample_weight=weight)
    assert np.array_equal(model.predict(x), reference.predict(x))
    qid = np.repeat(np.arange(len(y) // 20), 20)
    ranker = RayXGBRanker(**SMALL, n_jobs=2).fit(RayDMatrix(x, y, qid=qid))
    expected = RayXGBRanker(**SMALL, n_jobs=2).fit(x, y, qid=qid)
    assert np.array_equal(ranker.predict(x), expected.predict(x))


def test_arguments_of_the_matrix(data: Data) -> None:
    x, y = data
    frame = pd.DataFrame(x, columns=list("abcdef"))
    model = RayXGBRegressor(**SMALL, n_jobs=2)
    model.fit(frame, y, ray_dmatrix_params={"ignore": ["b"]}, _remote=False)
    assert list(model.get_booster().feature_names) == list("acdef")


def test_what_is_refused(data: Data) -> None:
    x, y = data
    matrix = RayDMatrix(x, y)
    with pytest.raises(ValueError, match=r"RayXGBClassifier\(num_class=\.\.\.\)"):
        RayXGBClassifier().fit(matrix)
    with pytest.raises(TypeError, match="list of \\(RayDMatrix, name\\)"):
        RayXGBRegressor().fit(matrix, eval_set=[(x, y)])
    with pytest.raises(TypeError, match="but X is none"):
        RayXGBRegressor().fit(x, y, eval_set=[(matrix, "test")])
    with pytest.raises(TypeError, match=r"RayXGBRegressor\(early_stopping_rounds=\.\.\.\)"):
        RayXGBRegressor().fit(x, y, early_stopping_rounds=3)
    with pytest.warns(UserWarning, match="y, sample_weight is ignored"):
        RayXGBRegressor(n_estimators=1).fit(matrix, y, sample_weight=np.ones(len(y)))
    with pytest.raises(ValueError, match="query groups"):
        RayXGBRanker().fit(x, y)


def test_plain_xgboost_is_as_it_was(data: Data) -> None:
    x, y = data
    RayXGBRegressor(n_estimators=1).fit(x, y)
    plain = xgboost.XGBRegressor(n_estimators=1).fit(x, y)
    assert not hasattr(plain, "additional_results_")
    assert xgboost.sklearn.train is xgboost.train
