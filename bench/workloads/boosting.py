"""Distributed XGBoost on actors with one CPU each, against XGBoost itself with two threads."""

from __future__ import annotations

import importlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from _system import SYSTEM, check, load, main, own_memory_mb, seconds, session_memory_mb

ROWS, COLUMNS, ROUNDS = 1_000_000, 28, 50
PARAMS = {"objective": "binary:logistic", "max_depth": 6, "tree_method": "hist"}
FILES = 8
#: Of the runs in which an actor is killed.
ACTORS, VICTIM, CHECKPOINT_FREQUENCY = 4, 1, 5
#: In the middle, and not just after a checkpoint.
KILLED_IN = ROUNDS // 2 + 2


def _data(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, COLUMNS), dtype=np.float32)
    weights = rng.standard_normal(COLUMNS, dtype=np.float32)
    y = (x @ weights + rng.standard_normal(rows, dtype=np.float32) > 0).astype(np.float32)
    return x, y


def _check(model: Any, x: Any, y: Any) -> None:
    check(model.num_boosted_rounds() == ROUNDS)
    guess = model.inplace_predict(x[:10_000]) > 0.5
    check(float(np.mean(guess == y[:10_000])) > 0.85)


# --------------------------------------------------------------------------- from arrays


def _plain(x: Any, y: Any, rounds: int) -> Any:
    # The faster of the two matrices that xgboost offers for this tree method.
    matrix = xgboost.QuantileDMatrix(x, y, nthread=2)
    return xgboost.train({**PARAMS, "nthread": 2}, matrix, rounds)


def _dask(x: Any, y: Any, rounds: int) -> Any:
    import dask.array
    from dask.distributed import get_client
    from xgboost import dask as xgboost_dask

    client = get_client()

    def divided(array: Any) -> Any:
        # A chunk for each worker, sent there at once: in a task graph large arrays are slower.
        chunks = np.array_split(array, 2)
        sent = map(dask.delayed, client.scatter(chunks))
        return dask.array.concatenate(
            [
                dask.array.from_delayed(future, chunk.shape, chunk.dtype)
                for future, chunk in zip(sent, chunks, strict=True)
            ]
        )

    matrix = xgboost_dask.DaskQuantileDMatrix(client, divided(x), divided(y))
    return xgboost_dask.train(client, PARAMS, matrix, num_boost_round=rounds)["booster"]


def _library() -> Any:
    return importlib.import_module("skate.xgboost" if SYSTEM == "skate" else "xgboost_ray")


def _distributed(x: Any, y: Any, rounds: int) -> Any:
    library = _library()
    return library.train(
        PARAMS,
        library.RayDMatrix(x, y),
        num_boost_round=rounds,
        ray_params=library.RayParams(num_actors=2, cpus_per_actor=1),
    )


_train_on: Callable[[Any, Any, int], Any] = {"plain": _plain, "dask": _dask}.get(
    SYSTEM, _distributed
)


def train() -> float:
    """Seconds from arrays in memory to a model of 50 rounds, after a training on few rows."""
    _train_on(*_data(1000), 2)
    x, y = _data(ROWS)
    models: list[Any] = []
    took = seconds(lambda: models.append(_train_on(x, y, ROUNDS)))
    _check(models[0], x, y)
    return took


def memory() -> float:
    """MB that the training adds, at its peak, to the process with the arrays and all others."""
    _train_on(*_data(1000), 2)
    x, y = _data(ROWS)
    before = own_memory_mb()
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, own_memory_mb() + session_memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        model = _train_on(x, y, ROUNDS)
    finally:
        ended.set()
        watcher.join()
    _check(model, x, y)
    return peak - before


# --------------------------------------------------------------------------- from files


def parquet() -> float:
    """Seconds from eight Parquet files to a model, after a training on a small file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(path: Path, x: Any, y: Any) -> str:
        columns = {f"f{index}": x[:, index] for index in range(COLUMNS)}
        pq.write_table(pa.table({**columns, "label": y}), path)
        return str(path)

    def plain(paths: list[str], rounds: int) -> Any:
        table = pq.read_table(paths if len(paths) > 1 else paths[0])
        label = table.column("label").to_numpy()
        matrix = xgboost.QuantileDMatrix(table.drop_columns(["label"]), label, nthread=2)
        return xgboost.train({**PARAMS, "nthread": 2}, matrix, rounds)

    def distributed(paths: list[str], rounds: int) -> Any:
        library = _library()
        return library.train(
            PARAMS,
            library.RayDMatrix(paths, label="label"),
            num_boost_round=rounds,
            ray_params=library.RayParams(num_actors=2, cpus_per_actor=1),
        )

    train_on = plain if SYSTEM == "plain" else distributed
    with tempfile.TemporaryDirectory() as folder:
        small = [write(Path(folder, f"small{index}.parquet"), *_data(500)) for index in range(2)]
        train_on(small, 2)
        x, y = _data(ROWS)
        parts = zip(np.array_split(x, FILES), np.array_split(y, FILES), strict=True)
        paths = [
            write(Path(folder, f"part{index}.parquet"), *part) for index, part in enumerate(parts)
        ]
        models: list[Any] = []
        took = seconds(lambda: models.append(train_on(paths, ROUNDS)))
    # The columns of a table have names, those of an array do not.
    models[0].feature_names = None
    _check(models[0], x, y)
    return took


# --------------------------------------------------------------------------- an actor is killed


class _Killer(xgboost.callback.TrainingCallback):
    """Notes when rounds begin, and kills one actor in one round, once."""

    def __init__(self, folder: str, victim: int | None) -> None:
        self._folder, self._victim = Path(folder), victim

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        from skate.xgboost import session

        first = self._folder / "first"
        if session.get_actor_rank() == 0 and not first.exists():
            first.write_text(repr(time.time()))
        if session.get_actor_rank() == self._victim and epoch == KILLED_IN:
            marker = self._folder / "killed"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return False


def _timed(
    x: Any, y: Any, victim: int | None, actors: int = ACTORS, **options: Any
) -> tuple[float, float]:
    """Train; return the seconds that it took, and those until its first round."""
    library = _library()
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        model = library.train(
            PARAMS,
            library.RayDMatrix(x, y),
            num_boost_round=ROUNDS,
            callbacks=[_Killer(folder, victim)],
            ray_params=library.RayParams(
                num_actors=actors,
                cpus_per_actor=1,
                checkpoint_frequency=CHECKPOINT_FREQUENCY,
                **options,
            ),
        )
        took = time.time() - began
        check(Path(folder, "killed").exists() == (victim is not None))
        loaded = float(Path(folder, "first").read_text()) - began
    _check(model, x, y)
    return took, loaded


def elastic() -> float:
    """How many times the undisturbed training that takes in which one of four actors is killed."""
    x, y = _data(ROWS)
    _timed(x, y, None)
    undisturbed = _timed(x, y, None)[0]
    return _timed(x, y, VICTIM, elastic_training=True, max_failed_actors=1)[0] / undisturbed


def warm_restart() -> float:
    """The same without elasticity, against the undisturbed one and what is to be done again.

    That is to start an actor and load one shard, which takes as long as it takes one actor to
    begin to train on that many rows, and the rounds since the checkpoint.
    """
    x, y = _data(ROWS)
    _timed(x, y, None)
    undisturbed, loaded = _timed(x, y, None)
    reload = _timed(x[: ROWS // ACTORS], y[: ROWS // ACTORS], None, actors=1)[1]
    again = KILLED_IN % CHECKPOINT_FREQUENCY * (undisturbed - loaded) / ROUNDS
    return _timed(x, y, VICTIM)[0] / (undisturbed + reload + again)


if __name__ == "__main__":
    if SYSTEM == "plain":
        main(train, memory, parquet)
    elif SYSTEM == "dask":
        from dask.distributed import Client

        with Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
            main(train)
    else:
        api = load()
        # As many as the largest of these trainings has actors, whatever the machine has.
        api.init(num_cpus=ACTORS)
        main(train, memory, parquet, elastic, warm_restart)
        api.shutdown()
