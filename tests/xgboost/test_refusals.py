"""Wrong arguments: an error that says which, before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import xgboost
from listeners import tcp_listeners

import skate
from skate.exceptions import NotSupportedError, SerializationError
from skate.xgboost import RayDMatrix, RayParams, predict, train

Data = tuple[Any, Any]


class Holder(xgboost.callback.TrainingCallback):
    """A callback that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"params": [("max_depth", 3)]}, TypeError, "params must be a dict"),
        ({"dtrain": "plain"}, TypeError, "dtrain must be a skate.xgboost.RayDMatrix"),
        ({"dtrain": "unlabelled"}, ValueError, "dtrain has no label"),
        ({"num_boost_round": "10"}, TypeError, "num_boost_round"),
        ({"num_boost_round": -1}, ValueError, "num_boost_round"),
        ({"early_stopping_rounds": 3}, ValueError, "pass evals"),
        ({"evals": "eval"}, TypeError, "list of"),
        ({"evals": [("plain", "eval")]}, TypeError, "evaluation set 'eval'"),
        ({"evals": [("unlabelled", "eval")]}, ValueError, "has no label"),
        ({"evals": [("narrow", "eval")]}, ValueError, "has 2 feature columns"),
        ({"evals": [("good", "a-b")]}, ValueError, "cannot have a '-'"),
        ({"evals": [("good", "a"), ("good", "a")]}, ValueError, "called 'a'"),
        ({"evals": [("good", "a b")]}, ValueError, "a ':' or a space"),
        ({"evals": [("good", "a:b")]}, ValueError, "a ':' or a space"),
        ({"evals_result": []}, TypeError, "evals_result must be a dict"),
        ({"additional_results": []}, TypeError, "additional_results must be a dict"),
        ({"params": {3: 1}}, TypeError, "names in params"),
        ({"params": {"nthread": "two"}}, ValueError, "nthread must be a whole number"),
        ({"params": {"nthread": [2]}}, ValueError, "nthread must be a whole number"),
        ({"params": {"device": "cuda:1"}}, ValueError, "device='cuda:1'"),
        ({"xgb_model": b""}, ValueError, "bytes of a model are empty"),
        (
            {
                "params": {"process_type": "update"},
                "ray_params": RayParams(2, elastic_training=True, max_failed_actors=1),
            },
            ValueError,
            "do not go together",
        ),
        ({"verbose_eval": "yes"}, TypeError, "verbose_eval"),
        ({"callbacks": [print]}, TypeError, "TrainingCallback"),
        ({"callbacks": [Holder()], "native": True}, SerializationError, "lock"),
        ({"xgb_model": 3}, TypeError, "a model is"),
        ({"xgb_model": "missing.json"}, xgboost.core.XGBoostError, "missing.json"),
        ({"rounds": 3}, TypeError, "rounds"),
        ({"ray_params": 2}, TypeError, "ray_params"),
        ({"ray_params": {"num_actors": 1, "gpus": 1}}, TypeError, "no 'gpus'"),
        ({"ray_params": RayParams(num_actors=3000)}, ValueError, "cannot share 2000 rows"),
        ({"ray_params": RayParams(num_actors=2, cpus_per_actor=4)}, ValueError, "need 8, but"),
        ({"ray_params": RayParams(num_actors=1, gpus_per_actor=1)}, ValueError, r"num_gpus=\.\.\."),
        (
            {"ray_params": RayParams(num_actors=1, resources_per_actor={"x": 1})},
            ValueError,
            "with 1 x each",
        ),
        ({"ray_params": RayParams(num_actors=2)}, NotSupportedError, "need a process each"),
    ],
)
def test_train_refuses(
    data: Data, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    x, y = data
    matrices: dict[Any, Any] = {
        "plain": xgboost.DMatrix(x, y),
        "unlabelled": RayDMatrix(x),
        "narrow": RayDMatrix(x[:, :2], y),
        "good": RayDMatrix(x, y),
    }
    given: dict[str, Any] = {"params": {}, "dtrain": matrices["good"], **arguments}
    if isinstance(given["dtrain"], str):
        given["dtrain"] = matrices[given["dtrain"]]
    if isinstance(given.get("evals"), list):
        given["evals"] = [(matrices[which], name) for which, name in given["evals"]]
    if given.pop("native", False):
        skate.shutdown()
        skate.init(num_cpus=1, engine="native")
    try:
        with pytest.raises(error, match=text):
            train(**given)
    finally:
        if "native" in arguments:
            skate.shutdown()
            skate.init(num_cpus=2, engine="inline")


@pytest.mark.usefixtures("inline")
def test_a_refused_training_leaves_nothing_that_listens_in_this_process(data: Data) -> None:
    before = tcp_listeners([os.getpid()])
    with pytest.raises(NotSupportedError, match="need a process each"):
        train({}, RayDMatrix(*data), ray_params=RayParams(num_actors=2))
    assert tcp_listeners([os.getpid()]) == before


@pytest.mark.usefixtures("inline")
def test_predict_refuses(data: Data) -> None:
    x, y = data
    model = xgboost.train({}, xgboost.DMatrix(x, y), 1)
    with pytest.raises(TypeError, match="data must be a skate"):
        predict(model, x)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match="needs a model"):
        predict(None, RayDMatrix(x))
    with pytest.raises(ValueError, match="bytes of a model are empty"):
        predict(b"", RayDMatrix(x))
    with pytest.raises(ValueError, match="need 8, but"):
        predict(model, RayDMatrix(x), RayParams(num_actors=2, cpus_per_actor=4))
    with pytest.raises(xgboost.core.XGBoostError, match="columns"):
        predict(model, RayDMatrix([[1.0] * 7]))


def test_importing_it_imports_neither_xgboost_nor_numpy() -> None:
    code = (
        "import sys, skate.xgboost;"
        "print([m for m in ('xgboost', 'numpy', 'pandas', 'skate.tune') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"


def test_without_xgboost_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['xgboost'] = None\n"
        "import skate; from skate.xgboost import RayDMatrix, train\n"
        "skate.init(engine='inline')\n"
        "train({}, RayDMatrix([[1.0], [2.0]], [0, 1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "XGBoostNotInstalledError" in last
    assert "pip install 'skate[xgboost]'" in last
