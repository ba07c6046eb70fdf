"""Scripts as people have them for ``xgboost_ray``, with ``skate.xgboost`` in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skate import tune
from skate.xgboost import (
    RayDMatrix,
    RayParams,
    RayXGBClassifier,
    RayXGBRegressor,
    predict,
    train,
)
from skate.xgboost.tune import TuneReportCheckpointCallback

pytestmark = [pytest.mark.usefixtures("native"), pytest.mark.timeout(120)]


def test_the_example_of_the_talk(tmp_path: Path) -> None:
    train_x, train_y = load_breast_cancer(return_X_y=True)
    train_set = RayDMatrix(train_x, train_y)
    bst = train({"objective": "binary:logistic"}, train_set, ray_params=RayParams(num_actors=2))
    bst.save_model(tmp_path / "trained.ubj")
    assert xgboost.Booster(model_file=tmp_path / "trained.ubj").num_boosted_rounds() == 10


def test_scores_and_prediction() -> None:
    train_x, train_y = load_breast_cancer(return_X_y=True)
    train_set = RayDMatrix(train_x, train_y)
    evals_result: dict[str, Any] = {}
    bst = train(
        {"objective": "binary:logistic", "eval_metric": ["logloss", "error"]},
        train_set,
        evals_result=evals_result,
        evals=[(train_set, "train")],
        verbose_eval=False,
        ray_params=RayParams(
            num_actors=2,
            cpus_per_actor=1,
            elastic_training=True,
            max_failed_actors=1,
            max_actor_restarts=2,
        ),
    )
    assert evals_result["train"]["error"][-1] < 0.02
    predicted = predict(bst, RayDMatrix(train_x), ray_params=RayParams(num_actors=2))
    assert predicted.shape == train_y.shape


def test_estimators() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, train_size=0.25, random_state=42)
    clf = RayXGBClassifier(n_jobs=2, random_state=42)
    clf.fit(train_x, train_y)
    assert clf.predict(test_x).shape == test_y.shape
    assert clf.predict_proba(test_x).shape == (len(test_y), 2)
    clf.fit(train_x, train_y, ray_params=RayParams(num_actors=2))
    assert clf.score(test_x, test_y) > 0.9
    RayXGBRegressor(n_jobs=2).fit(train_x, train_y)


def test_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKATE_RESULTS_DIR", str(tmp_path))
    ray_params = RayParams(num_actors=2, cpus_per_actor=1)

    def train_model(config: dict[str, Any]) -> None:
        train_x, train_y = load_breast_cancer(return_X_y=True)
        train_set = RayDMatrix(train_x, train_y)
        evals_result: dict[str, Any] = {}
        bst = train(
            params=config,
            dtrain=train_set,
            evals_result=evals_result,
            evals=[(train_set, "train")],
            callbacks=[TuneReportCheckpointCallback({"error": "train-error"})],
            verbose_eval=False,
            ray_params=ray_params,
        )
        assert bst.num_boosted_rounds() == 10

    config = {
        "tree_method": "approx",
        "objective": "binary:logistic",
        "eval_metric": ["logloss", "error"],
        "eta": tune.loguniform(1e-4, 1e-1),
        "subsample": tune.uniform(0.5, 1.0),
        "max_depth": tune.randint(1, 9),
    }
    analysis = tune.run(
        train_model,
        config=config,
        metric="error",
        mode="min",
        num_samples=2,
        verbose=0,
        resources_per_trial=ray_params.get_tune_resources(),
    )
    assert set(analysis.best_config) == set(config)
    model = Path(analysis.best_checkpoint.path, "model.ubj")
    assert xgboost.Booster(model_file=model).num_boosted_rounds() == 10
