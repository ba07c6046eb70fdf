"""Distributed XGBoost on two actors with one CPU each, against XGBoost itself with two threads."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import xgboost
from _system import SYSTEM, check, load, main, seconds

ROWS, COLUMNS, ROUNDS = 1_000_000, 28, 50
PARAMS = {"objective": "binary:logistic", "max_depth": 6, "tree_method": "hist"}


def _data(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, COLUMNS), dtype=np.float32)
    weights = rng.standard_normal(COLUMNS, dtype=np.float32)
    y = (x @ weights + rng.standard_normal(rows, dtype=np.float32) > 0).astype(np.float32)
    return x, y


def _plain(x: Any, y: Any, rounds: int) -> Any:
    # The faster of the two matrices that xgboost offers for this tree method.
    matrix = xgboost.QuantileDMatrix(x, y, nthread=2)
    return xgboost.train({**PARAMS, "nthread": 2}, matrix, rounds)


def _distributed(x: Any, y: Any, rounds: int) -> Any:
    library = importlib.import_module("skate.xgboost" if SYSTEM == "skate" else "xgboost_ray")
    return library.train(
        PARAMS,
        library.RayDMatrix(x, y),
        num_boost_round=rounds,
        ray_params=library.RayParams(num_actors=2, cpus_per_actor=1),
    )


def train() -> float:
    """Seconds from arrays in memory to a model of 50 rounds, after a training on few rows."""
    train_on = _plain if SYSTEM == "plain" else _distributed
    train_on(*_data(1000), 2)
    x, y = _data(ROWS)
    models: list[Any] = []
    took = seconds(lambda: models.append(train_on(x, y, ROUNDS)))
    check(models[0].num_boosted_rounds() == ROUNDS)
    guess = models[0].inplace_predict(x[:10_000]) > 0.5
    check(float(np.mean(guess == y[:10_000])) > 0.85)
    return took


if __name__ == "__main__":
    if SYSTEM == "plain":
        main(train)
    else:
        api = load()
        api.init()
        main(train)
        api.shutdown()
