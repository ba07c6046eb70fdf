"""Data that is not to be in memory: the same model, and files that go in every case."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from skate.xgboost import RayDMatrix, RayParams, loading, predict, train
from skate.xgboost.cache import CacheFolder
from skate.xgboost.errors import XGBoostNotInstalledError

pytest.importorskip("pyarrow")

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic", "tree_method": "hist"}


class Looks(xgboost.callback.TrainingCallback):
    """Counts what is in a folder after each round, and says so in a file."""

    def __init__(self, folder: Path, found: Path) -> None:
        self.folder = str(folder)
        self.found = str(found)

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        files = [name for _, _, names in os.walk(self.folder) for name in names]
        with open(self.found, "a") as file:
            print(len(files), file=file)
        return False


@pytest.fixture
def file(data: Data, tmp_path: Path) -> str:
    """Rows in a Parquet file with several row groups."""
    x, y = data
    path = tmp_path / "data.parquet"
    frame = pd.DataFrame(x, columns=list("abcdef")).assign(y=y)
    frame.to_parquet(path, row_group_size=300, index=False)
    return str(path)


@pytest.mark.usefixtures("native")
def test_the_model_is_the_same_and_the_files_are_gone(
    data: Data, file: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    found = tmp_path / "found"
    matrix = RayDMatrix(file, "y", external_memory=str(cache))
    params = RayParams(num_actors=2)
    model = train(PARAMS, matrix, 5, ray_params=params, callbacks=[Looks(cache, found)])
    counts = [int(line) for line in found.read_text().split()]
    assert len(counts) == 10
    assert min(counts) > 0
    plain = xgboost.train(PARAMS, xgboost.QuantileDMatrix(*data), 5)
    dmatrix = xgboost.DMatrix(data[0], feature_names=list("abcdef"))
    reference = plain.predict(xgboost.DMatrix(data[0]))
    assert np.allclose(model.predict(dmatrix), reference, atol=1e-5)
    assert np.allclose(predict(model, matrix, params), reference, atol=1e-5)
    # The actors were killed; what removes the files notices that.
    deadline = time.monotonic() + 30
    while list(cache.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(cache.iterdir())


@pytest.mark.usefixtures("inline")
def test_rows_are_read_in_batches(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "EXTERNAL_BATCH_BYTES", 4 * 6 * 1024)
    (shard,) = RayDMatrix(file, "y", external_memory=True).shards(1)
    loaded = loading.load(shard)
    assert not loaded.batches
    assert [batch.rows for batch in loaded.all()] == [1024, 976]
    matrix = loading.build(loaded, PARAMS, threads=1, binned=True)
    assert isinstance(matrix, xgboost.ExtMemQuantileDMatrix)
    assert (matrix.num_row(), matrix.num_col()) == (2000, 6)


def test_the_folder_goes_with_its_owner(tmp_path: Path) -> None:
    class Owner:
        pass

    owner = Owner()
    folder = CacheFolder(str(tmp_path))
    (Path(folder.path) / "file").touch()
    folder.belongs_to(owner)
    assert Path(folder.path).is_dir()
    del owner
    assert not list(tmp_path.iterdir())


def test_the_folder_goes_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys; from skate.xgboost.cache import CacheFolder\n"
        "print(CacheFolder(sys.argv[1]).path, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    folder = Path(process.stdout.readline().strip())
    (folder / "file").touch()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdin.close()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(tmp_path.iterdir())


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="external_memory must be"):
        RayDMatrix(np.ones((2, 2)), external_memory=3)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.usefixtures("native")
def test_on_a_gpu_it_needs_cupy(data: Data, tmp_path: Path) -> None:
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    dtrain = RayDMatrix(*data, external_memory=str(tmp_path))
    on_gpu = {**PARAMS, "device": "cuda"}
    with pytest.raises(XGBoostNotInstalledError, match="pip install cupy"):
        train(on_gpu, dtrain, 2, ray_params=RayParams(num_actors=1, gpus_per_actor=0))
    assert not list(tmp_path.iterdir())
