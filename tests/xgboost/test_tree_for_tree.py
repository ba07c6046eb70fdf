"""The same shards give the same trees as XGBoost's own tracker and processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, train

#: One rank, with nothing of Skate.
WORKER = """
import json, sys
import numpy as np, xgboost
from xgboost import collective

arguments, file, params, model = sys.argv[1:5]
with np.load(file) as parts, collective.CommunicatorContext(**json.loads(arguments)):
    matrix = xgboost.QuantileDMatrix(**parts, nthread=1)
    booster = xgboost.train(json.loads(params), matrix, 8)
    if collective.get_rank() == 0:
        booster.save_model(model)
"""


def of_xgboost_alone(shards: list[dict[str, Any]], params: Any, folder: Path) -> xgboost.Booster:
    """Train in processes, one for each shard, that XGBoost's tracker brings together."""
    tracker = xgboost.tracker.RabitTracker(len(shards), "127.0.0.1", sortby="task")
    tracker.start()
    model = folder / "model.json"
    processes = []
    for rank, shard in enumerate(shards):
        np.savez(folder / f"{rank}.npz", **shard)
        arguments = {**tracker.worker_args(), "dmlc_task_id": f"{rank:08d}"}
        command = [json.dumps(arguments), str(folder / f"{rank}.npz"), json.dumps(params)]
        processes.append(subprocess.Popen([sys.executable, "-c", WORKER, *command, str(model)]))
    waiting = threading.Thread(target=tracker.wait_for, daemon=True)
    waiting.start()
    try:
        assert [process.wait(50) for process in processes] == [0] * len(shards)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    waiting.join(10)
    return xgboost.Booster(model_file=model)


def trees(model: xgboost.Booster) -> Any:
    return json.loads(model.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("mode", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
def test_continuous_features(mode: RayShardingMode, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3001, 7)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    y = (np.nansum(x[:, :3], axis=1) + rng.normal(size=3001) > 0).astype(np.float32)
    weight = rng.random(3001).astype(np.float32)
    params = {"objective": "binary:logistic", "nthread": 1, "subsample": 0.8, "seed": 7}
    model = train(
        params,
        RayDMatrix(x, y, weight=weight, sharding=mode),
        8,
        ray_params=RayParams(num_actors=2),
    )
    rows = [slice(0, 1500), slice(1500, 3001)]
    if mode is RayShardingMode.INTERLEAVED:
        rows = [slice(0, None, 2), slice(1, None, 2)]
    shards = [{"data": x[part], "label": y[part], "weight": weight[part]} for part in rows]
    assert trees(model) == trees(of_xgboost_alone(shards, params, tmp_path))


@pytest.mark.usefixtures("native")
def test_query_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1000, 5)).astype(np.float32)
    y = rng.integers(0, 4, size=1000).astype(np.float32)
    qid = np.repeat(np.arange(125), 8)
    params = {"objective": "rank:ndcg", "nthread": 1, "lambdarank_pair_method": "topk"}
    model = train(params, RayDMatrix(x, y, qid=qid), 8, ray_params=RayParams(num_actors=2))
    # 125 groups cannot be halved: the cut is where a group ends.
    shards = [
        {"data": x[part], "label": y[part], "qid": qid[part]}
        for part in (slice(0, 496), slice(496, 1000))
    ]
    assert trees(model) == trees(of_xgboost_alone(shards, params, tmp_path))
