"""Distributed XGBoost on actors with one CPU each, against XGBoost itself with two threads."""

from __future__ import annotations

import importlib
import os
import signal
import tempfile
import threading
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
ACTORS = 4


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


def _timed(x: Any, y: Any, actors: int = ACTORS, rounds: int = ROUNDS, **options: Any) -> float:
    """Train, and return the seconds that it took."""
    return _observed(x, y, actors, rounds, **options)[0]


def _observed(
    x: Any, y: Any, actors: int = ACTORS, rounds: int = ROUNDS, **options: Any
) -> tuple[float, list[Any]]:
    """Train; return the seconds that it took, and who has died."""
    library = _library()
    additional: dict[str, Any] = {}
    models: list[Any] = []

    def work() -> None:
        models.append(
            library.train(
                PARAMS,
                library.RayDMatrix(x, y),
                num_boost_round=rounds,
                additional_results=additional,
                ray_params=library.RayParams(num_actors=actors, cpus_per_actor=1, **options),
            )
        )

    took = seconds(work)
    if rounds == ROUNDS:
        _check(models[0], x, y)
    return took, additional["failures"]


def _killed(x: Any, y: Any, after: float, **options: Any) -> tuple[float, int]:
    """The same while an actor is killed after so many seconds; return the rounds lost with it."""
    from skate import state

    def kill() -> None:
        victim = max(state.list_actors(), key=lambda actor: int(actor["actor_id"], 16))
        os.kill(victim["pid"], signal.SIGKILL)

    timer = threading.Timer(after, kill)
    timer.start()
    took, failures = _observed(x, y, **options)
    timer.join()
    check(len(failures) == 1)
    return took, failures[0].rounds_done - failures[0].resumed_from


def _undisturbed(x: Any, y: Any) -> tuple[float, float]:
    """Return how long a training takes in which nobody dies, and what of that is no rounds."""
    # The first training of a session finds nothing in caches.
    _timed(x, y)
    return _timed(x, y), _timed(x, y, rounds=0)


def elastic() -> float:
    """How many times the undisturbed training that takes in the middle of which one actor dies."""
    x, y = _data(ROWS)
    undisturbed, loaded = _undisturbed(x, y)
    options = {"elastic_training": True, "max_failed_actors": 1}
    return _killed(x, y, (loaded + undisturbed) / 2, **options)[0] / undisturbed


def warm_restart() -> float:
    """The same without elasticity, against the undisturbed one and what is to be done again.

    That is to start an actor and load one shard, which is what one actor does in a training on
    these rows without rounds, and the rounds since the checkpoint.
    """
    x, y = _data(ROWS)
    undisturbed, loaded = _undisturbed(x, y)
    reload = _timed(x[: ROWS // ACTORS], y[: ROWS // ACTORS], actors=1, rounds=0)
    took, lost = _killed(x, y, (loaded + undisturbed) / 2)
    return took / (undisturbed + reload + lost * (undisturbed - loaded) / ROUNDS)


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
