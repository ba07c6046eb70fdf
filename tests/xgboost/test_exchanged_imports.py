"""Scripts as people have them for ``xgboost_ray``, with ``skate.xgboost`` in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import skate
import skate.xgboost
from skate import tune
from skate.util import get_node_ip_address
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


def test_predictions_of_estimators_by_actors() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, _ = train_test_split(x, y, train_size=0.25, random_state=42)
    two = RayParams(num_actors=2)
    clf = RayXGBClassifier(n_jobs=2, random_state=42).fit(train_x, train_y, ray_params=two)
    assert (clf.predict(test_x, ray_params=two) == clf.predict(test_x)).all()
    assert (clf.predict_proba(test_x, ray_params=two) == clf.predict_proba(test_x)).all()


def made_up_frame() -> Any:
    """Rows of four features that say a little about the label."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, size=(32, 4))
    return pd.DataFrame(x).assign(label=(x[:, 0] > 3).astype(int))


@pytest.mark.parametrize("actors", [2, 4])
def test_partitions_in_the_object_store(actors: int) -> None:
    frame = made_up_frame()
    refs = [skate.put(frame.iloc[start : start + 8]) for start in range(0, 32, 8)]
    scores: dict[str, Any] = {}
    train_set = RayDMatrix(refs, "label")
    train(
        {"tree_method": "approx", "objective": "binary:logistic", "eval_metric": "error"},
        train_set,
        evals=[(train_set, "train")],
        evals_result=scores,
        ray_params=RayParams(num_actors=actors, gpus_per_actor=0),
        verbose_eval=False,
    )
    assert scores["train"]["error"][-1] < 0.5


class Partitioned:
    """A table whose parts are with actors."""

    def __init__(self, parts: list[Any], rows: int, columns: int, tiling: Any = None) -> None:
        each = rows // len(parts)
        self.__partitioned__ = {
            "shape": (rows, columns),
            "partition_tiling": tiling or (len(parts), 1),
            "get": skate.get if isinstance(parts[0], skate.ObjectRef) else lambda part: part,
            "partitions": {
                (index, 0): {
                    "start": (index * each, 0),
                    "shape": (each, columns),
                    "data": part,
                    "location": [get_node_ip_address()],
                }
                for index, part in enumerate(parts)
            },
        }


@skate.remote(num_cpus=0)
class Maker:
    """Makes a part of the data."""

    def rows(self, rank: int, ranks: int) -> Any:
        x, y = load_breast_cancer(return_X_y=True)
        return np.column_stack([x, y])[rank * 142 : (rank + 1) * 142]


@pytest.mark.parametrize("as_refs", [True, False])
def test_a_structure_of_partitions(as_refs: bool) -> None:
    makers = [Maker.remote() for _ in range(4)]
    parts = [maker.rows.remote(rank, 4) for rank, maker in enumerate(makers)]
    given = parts if as_refs else skate.get(parts, timeout=60)
    matrix = RayDMatrix(Partitioned(given, 568, 31), "f30")
    assert matrix.shape == (568, 30)
    model = train({"objective": "binary:logistic"}, matrix, ray_params=RayParams(num_actors=2))
    x, y = load_breast_cancer(return_X_y=True)
    plain = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x[:568], y[:568]))
    wrong = np.mean((predict(model, matrix) > 0.5) != y[:568])
    assert wrong <= np.mean((plain.predict(xgboost.DMatrix(x[:568])) > 0.5) != y[:568]) + 0.01
    # Without a word about columns arrays stay what they are.
    labels = skate.put(y[:568])
    assert RayDMatrix(Partitioned(given, 568, 31), labels).shape == (568, 31)
    with pytest.raises(ValueError, match="only rows may be divided"):
        RayDMatrix(Partitioned(given, 568, 31, (2, 2)), "f30")


def test_the_best_model_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKATE_RESULTS_DIR", str(tmp_path))
    ray_params = RayParams(num_actors=1, cpus_per_actor=1, gpus_per_actor=0, max_actor_restarts=1)

    def train_model(config: dict[str, Any], ray_params: RayParams) -> None:
        train_x, test_x, train_y, test_y = train_test_split(*load_breast_cancer(return_X_y=True))
        train(
            config,
            RayDMatrix(train_x, train_y),
            evals=[(RayDMatrix(test_x, test_y), "eval")],
            ray_params=ray_params,
            verbose_eval=False,
        ).save_model("tuned.ubj")

    analysis = tune.run(
        tune.with_parameters(train_model, ray_params=ray_params),
        resources_per_trial=ray_params.get_tune_resources(),
        config={"objective": "binary:logistic", "eval_metric": ["logloss", "error"]},
        num_samples=2,
        metric="eval-error",
        mode="min",
        verbose=0,
    )
    path = os.path.join(analysis.best_trial.local_path, "tuned.ubj")
    assert skate.xgboost.tune.load_model(path).num_boosted_rounds() == 10
    assert analysis.best_result["eval-error"] < 0.2
