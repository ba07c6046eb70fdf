"""Trainings on the GPUs of this machine, where there are any."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import xgboost
from gpus import gpus

import skate
from skate import tune
from skate.exceptions import NotSupportedError
from skate.xgboost import (
    RayDeviceQuantileDMatrix,
    RayDMatrix,
    RayParams,
    RayXGBClassifier,
    predict,
    train,
)

PARAMS = {
    "objective": "binary:logistic",
    "eval_metric": ["logloss", "error"],
    "max_depth": 4,
    "device": "cuda",
}
ROUNDS = 10
ONE = RayParams(num_actors=1)
ROWS = 20_000

Data = tuple[Any, Any]

pytestmark = pytest.mark.timeout(170)


@pytest.fixture(scope="module")
def data() -> Data:
    """Continuous features, and labels that depend on them."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((ROWS, 8), dtype=np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] + rng.standard_normal(ROWS) > 0).astype(np.float32)
    return x, y


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[int]:
    """A session that finds its GPUs by itself; how many."""
    if not (number := gpus()):
        pytest.skip("no GPU here")
    with skate.init(num_cpus=4, engine="native"):
        yield number


class Notes(xgboost.callback.TrainingCallback):
    """Writes down in each round on which device XGBoost trains, and which GPUs it may see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        device = json.loads(model.save_config())["learner"]["generic_param"]["device"]
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        with (self.folder / "devices").open("a") as lines:
            lines.write(f"{device} of {visible}\n")
        return False

    @classmethod
    def read(cls, folder: Path) -> list[str]:
        """Return what was written down."""
        return (folder / "devices").read_text().splitlines()


class Dies(xgboost.callback.TrainingCallback):
    """Kills its process in round 6, once."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch == 6 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def plain(x: Any, y: Any) -> xgboost.Booster:
    """Return the model of XGBoost alone, trained on a GPU by a process that ends then."""

    @skate.remote(num_gpus=1, num_cpus=1)
    def alone() -> bytes:
        model = xgboost.train(PARAMS, xgboost.DMatrix(x, y), ROUNDS)
        return bytes(model.save_raw())

    return xgboost.Booster(model_file=bytearray(skate.get(alone.remote())))


def free_mb() -> int:
    """Return how much memory of the first GPU is free."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    codes = [
        cuda.cuInit(0),
        cuda.cuDeviceGet(ctypes.byref(device), 0),
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        cuda.cuCtxSetCurrent(context),
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
    ]
    assert not any(codes)
    return free.value >> 20


def dump(model: xgboost.Booster) -> list[str]:
    """Return all trees."""
    return model.get_dump(with_stats=True, dump_format="json")


@pytest.mark.parametrize("kind", [RayDMatrix, RayDeviceQuantileDMatrix])
def test_one_actor_gives_the_trees_of_xgboost(data: Data, tmp_path: Path, kind: Any) -> None:
    x, y = data
    model = train(PARAMS, kind(x, y), ROUNDS, ray_params=ONE, callbacks=[Notes(tmp_path)])
    assert Notes.read(tmp_path) == ["cuda:0 of 0"] * ROUNDS
    assert dump(model) == dump(plain(x, y))


def test_the_memory_of_a_gpu_is_free_after_a_training(data: Data) -> None:
    free = skate.remote(num_gpus=1)(free_mb)
    before = skate.get(free.remote())
    train(PARAMS, RayDMatrix(*data), ROUNDS, ray_params=ONE)
    assert skate.get(free.remote()) >= before - 16


def test_evaluation_early_stopping_and_continuation(data: Data) -> None:
    x, y = data
    dtrain, dvalid = RayDMatrix(x[:15000], y[:15000]), RayDMatrix(x[15000:], y[15000:])
    scores: dict[str, Any] = {}
    model = train(
        {**PARAMS, "max_depth": 8, "eta": 0.9},
        dtrain,
        200,
        evals=[(dtrain, "train"), (dvalid, "valid")],
        evals_result=scores,
        early_stopping_rounds=3,
        ray_params=ONE,
    )
    logged = scores["valid"]["error"]
    assert len(logged) == model.num_boosted_rounds() < 200
    assert model.best_iteration == int(np.argmin(logged))
    longer = train(PARAMS, dtrain, 2, xgb_model=model, ray_params=ONE)
    assert longer.num_boosted_rounds() == model.num_boosted_rounds() + 2


@pytest.mark.parametrize("frequency", [0, 5])
def test_a_training_whose_actor_is_killed_gives_the_same_model(
    data: Data, tmp_path: Path, frequency: int
) -> None:
    marker = tmp_path / "died"
    told: dict[str, Any] = {}
    model = train(
        PARAMS,
        RayDMatrix(*data),
        ROUNDS,
        callbacks=[Dies(marker)],
        additional_results=told,
        ray_params=RayParams(num_actors=1, checkpoint_frequency=frequency),
    )
    assert marker.exists()
    assert model.num_boosted_rounds() == ROUNDS
    margins = [
        each.predict(xgboost.DMatrix(data[0]), output_margin=True) for each in (model, plain(*data))
    ]
    # Sums of floating point numbers on a GPU may come in another order.
    assert np.allclose(*margins, atol=1e-3)


def test_custom_objective_and_metric(data: Data) -> None:
    def objective(margin: Any, dtrain: Any) -> tuple[Any, Any]:
        probability = 1 / (1 + np.exp(-margin))
        return probability - dtrain.get_label(), probability * (1 - probability)

    def mistakes(margin: Any, dtrain: Any) -> tuple[str, float]:
        return "mistakes", float(np.mean((margin > 0) != (dtrain.get_label() > 0)))

    scores: dict[str, Any] = {}
    dtrain = RayDMatrix(*data)
    train(
        {"device": "cuda", "disable_default_eval_metric": 1, "max_depth": 4, "base_score": 0.5},
        dtrain,
        ROUNDS,
        obj=objective,
        custom_metric=mistakes,
        evals=[(dtrain, "train")],
        evals_result=scores,
        ray_params=ONE,
    )
    assert scores["train"]["mistakes"][-1] < 0.32


def test_categories_and_ranking() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=2000), "b": rng.choice(list("xyz"), 2000)})
    frame["b"] = frame["b"].astype("category")
    y = (frame["b"] == "y").astype(int).to_numpy()
    model = train(PARAMS, RayDMatrix(frame, y, enable_categorical=True), ROUNDS, ray_params=ONE)
    assert model.get_fscore().keys() == {"b"}
    qid = np.sort(rng.integers(0, 50, 2000))
    ranking = {"objective": "rank:ndcg", "device": "cuda"}
    scores: dict[str, Any] = {}
    dtrain = RayDMatrix(frame[["a"]], (frame["a"] > 0).astype(int), qid=qid)
    train(ranking, dtrain, ROUNDS, evals=[(dtrain, "t")], evals_result=scores, ray_params=ONE)
    assert scores["t"]["ndcg@32"][-1] > 0.95


@pytest.mark.parametrize("kind", ["array", "pandas", "arrow", "sparse"])
def test_external_memory(data: Data, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("cupy")
    x, y = data
    x = np.where(np.abs(x) < 0.1, np.nan, x)
    names = list("abcdefgh")
    table: Any = {
        "array": lambda: x,
        "pandas": lambda: pd.DataFrame(x, columns=names),
        "arrow": lambda: pa.Table.from_pandas(pd.DataFrame(x, columns=names)),
        "sparse": lambda: sparse(x),
    }[kind]()
    inside = plain(x, y)
    dtrain = RayDMatrix(table, y, external_memory=str(tmp_path))
    scores: dict[str, Any] = {}
    model = train(
        PARAMS, dtrain, ROUNDS, evals=[(dtrain, "train")], evals_result=scores, ray_params=ONE
    )
    assert model.feature_names == (names if kind in ("pandas", "arrow") else None)
    model.feature_names = None
    margins = [each.predict(xgboost.DMatrix(x), output_margin=True) for each in (model, inside)]
    assert np.mean(np.abs(margins[0] - margins[1])) < 0.05
    assert scores["train"]["logloss"][-1] < 0.6
    assert not list(tmp_path.iterdir())


def test_external_memory_takes_no_categories_on_a_gpu() -> None:
    pytest.importorskip("cupy")
    frame = pd.DataFrame({"a": pd.Series(list("xyz") * 100, dtype="category")})
    dtrain = RayDMatrix(frame, np.arange(300) % 2, enable_categorical=True, external_memory=True)
    with pytest.raises(NotSupportedError, match="no categories"):
        train(PARAMS, dtrain, ROUNDS, ray_params=ONE)


def sparse(x: Any) -> Any:
    """Return a sparse matrix of what is not missing."""
    rows, columns = np.nonzero(~np.isnan(x))
    return scipy.sparse.csr_matrix((x[rows, columns], (rows, columns)), shape=x.shape)


def test_predictions_are_those_of_cpus(data: Data) -> None:
    x, y = data
    model = train(PARAMS, RayDMatrix(x, y), ROUNDS, ray_params=ONE)
    expected = model.predict(xgboost.DMatrix(x), output_margin=True)
    on_gpu = RayParams(num_actors=1, gpus_per_actor=1)
    predicted = predict(model, RayDMatrix(x), ray_params=on_gpu, output_margin=True)
    assert np.allclose(predicted, expected, atol=1e-5)


def test_estimators(data: Data) -> None:
    x, y = data
    estimator = RayXGBClassifier(n_estimators=ROUNDS, max_depth=4, device="cuda", n_jobs=1)
    estimator.fit(x, y)
    assert estimator.score(x, y) > 0.68
    assert estimator.predict_proba(x).shape == (ROWS, 2)


def test_trials_share_a_gpu(data: Data, tmp_path: Path) -> None:
    dtrain = RayDMatrix(*data)

    def trial(config: dict[str, Any]) -> None:
        train(
            {**PARAMS, "eta": config["eta"]},
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            callbacks=[Notes(tmp_path)],
            ray_params=RayParams(num_actors=1, gpus_per_actor=0.5),
        )

    results = tune.Tuner(
        tune.with_resources(
            trial, RayParams(num_actors=1, gpus_per_actor=0.5).get_tune_resources()
        ),
        param_space={"eta": tune.grid_search([0.1, 0.2, 0.3, 0.4])},
        run_config=tune.RunConfig(storage_path=str(tmp_path / "run")),
    ).fit()
    assert [result.metrics["training_iteration"] for result in results] == [ROUNDS] * 4
    assert set(Notes.read(tmp_path)) <= {f"cuda:0 of {index}" for index in range(gpus())}
