"""The scikit-learn estimators: they behave as XGBoost's own, check by check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from skate.xgboost import RayParams
from skate.xgboost.sklearn import (
    RayXGBClassifier,
    RayXGBRanker,
    RayXGBRegressor,
    RayXGBRFClassifier,
    RayXGBRFRegressor,
)

Data = tuple[Any, Any]

PAIRS = [
    (RayXGBClassifier, xgboost.XGBClassifier),
    (RayXGBRegressor, xgboost.XGBRegressor),
    (RayXGBRFClassifier, xgboost.XGBRFClassifier),
    (RayXGBRFRegressor, xgboost.XGBRFRegressor),
]


def checked(estimator: Any) -> tuple[set[str], set[str]]:
    """Return the checks of scikit-learn that an estimator passes, and those that it does not."""
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {result["check_name"] for result in results if result["status"] != "passed"}
    # Some are done several times.
    return {result["check_name"] for result in results} - failed, failed


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("inline")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ours", "plain"), [*PAIRS, (RayXGBRanker, xgboost.XGBRanker)])
def test_passes_the_checks_that_plain_xgboost_passes(ours: Any, plain: Any) -> None:
    passed, failed = checked(ours(n_estimators=3, n_jobs=1))
    wanted, allowed = checked(plain(n_estimators=3, n_jobs=1))
    # No labels but 0, 1, ...; the objective is chosen by ``fit``; a ranker needs groups.
    assert failed <= allowed
    assert passed >= wanted
    assert len(passed) > 10


class TestTwoActors:
    @pytest.fixture(autouse=True)
    def session(self, native: None) -> None:
        """A session with two CPUs."""

    @pytest.mark.parametrize(("ours", "plain"), PAIRS)
    def test_fits_like_plain(self, data: Data, ours: Any, plain: Any) -> None:
        x, y = data
        # Rows and columns of the forests are drawn at random.
        forest = {"subsample": 1, "colsample_bynode": 1} if "RF" in ours.__name__ else {}
        first = ours(n_estimators=5, max_depth=4, n_jobs=2, **forest).fit(x, y)
        second = plain(n_estimators=5, max_depth=4, n_jobs=2, **forest).fit(x, y)
        assert np.allclose(first.predict(x), second.predict(x), atol=1e-4)
        assert np.allclose(first.feature_importances_, second.feature_importances_, atol=1e-3)
        assert first.additional_results_["total_n"] == len(y)

    def test_several_classes_and_evaluation(self, data: Data) -> None:
        x, _ = data
        y = (x[:, 0] // 14).astype(int)
        scores = []
        for kind in (RayXGBClassifier, xgboost.XGBClassifier):
            model = kind(n_estimators=20, max_depth=2, n_jobs=2, early_stopping_rounds=3)
            model.fit(x[:1500], y[:1500], eval_set=[(x[1500:], y[1500:])], verbose=False)
            assert model.predict_proba(x).shape == (len(y), 3)
            assert (model.predict(x) == y).all()
            scores.append((model.best_iteration, model.evals_result()["validation_0"]["mlogloss"]))
        assert scores[0][0] == scores[1][0]
        assert np.allclose(scores[0][1], scores[1][1], atol=1e-5)

    def test_custom_objective_and_metric(self, data: Data) -> None:
        x, y = data

        def squared(truth: Any, guess: Any) -> tuple[Any, Any]:
            return guess - truth, np.ones_like(truth)

        def worst(truth: Any, guess: Any) -> float:
            return float(np.abs(truth - guess).max())

        models = [
            kind(n_estimators=5, objective=squared, eval_metric=worst, n_jobs=1)
            for kind in (RayXGBRegressor, xgboost.XGBRegressor)
        ]
        for model in models:
            model.fit(x, y, eval_set=[(x, y)], verbose=False)
        assert np.allclose(models[0].predict(x), models[1].predict(x), atol=1e-4)
        assert "worst" in models[0].evals_result()["validation_0"]

    @pytest.mark.parametrize("as_groups", [True, False])
    def test_ranker(self, data: Data, as_groups: bool) -> None:
        x, y = data
        groups = len(y) // 20
        given: dict[str, Any] = (
            {"group": [20] * groups} if as_groups else {"qid": np.repeat(np.arange(groups), 20)}
        )
        model = RayXGBRanker(n_estimators=5, max_depth=3, n_jobs=2).fit(x, y, **given)
        assert model.predict(x).shape == y.shape
        assert model.score.__self__ is model
        order = model.predict(x)
        assert order[y == 1].mean() > order[y == 0].mean()

    def test_ray_params_of_fit_and_constructor(self, data: Data) -> None:
        x, y = data
        model = RayXGBClassifier(n_estimators=2, ray_params=RayParams(num_actors=2))
        assert model.get_params()["ray_params"] == RayParams(num_actors=2)
        assert clone(model).ray_params == RayParams(num_actors=2)
        model.fit(x, y)
        model.fit(x, y, ray_params={"num_actors": 1})
        assert "ray_params" not in model.get_xgb_params()
        with pytest.raises(ValueError, match="need 3"):
            model.fit(x, y, ray_params=RayParams(num_actors=3, cpus_per_actor=1))

    def test_model_selection(self, data: Data) -> None:
        x, y = data
        model = RayXGBClassifier(n_estimators=3, max_depth=3, n_jobs=2)
        assert cross_val_score(model, x, y, cv=2).min() > 0.8
        search = GridSearchCV(model, {"max_depth": [1, 4]}, cv=2).fit(x, y)
        assert search.best_params_ == {"max_depth": 4}

    def test_a_model_goes_on_and_is_saved(self, data: Data, tmp_path: Any) -> None:
        x, y = data
        first = RayXGBRegressor(n_estimators=3, n_jobs=2).fit(x, y)
        second = RayXGBRegressor(n_estimators=2, n_jobs=2).fit(x, y, xgb_model=first)
        assert second.get_booster().num_boosted_rounds() == 5
        second.save_model(tmp_path / "model.ubj")
        loaded = xgboost.XGBRegressor()
        loaded.load_model(tmp_path / "model.ubj")
        assert (loaded.predict(x) == second.predict(x)).all()
