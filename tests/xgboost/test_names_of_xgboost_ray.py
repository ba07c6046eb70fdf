"""What scripts for ``xgboost_ray`` import, pass and set, beside what its examples show."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from skate import tune
from skate.xgboost import (
    RayDMatrix,
    RayFileType,
    RayParams,
    RayShardingMode,
    combine_data,
    loading,
    predict,
    train,
)
from skate.xgboost.callback import EnvironmentCallback
from skate.xgboost.tune import TuneReportCheckpointCallback, load_model

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic"}
TWO = RayParams(num_actors=2)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "skate.xgboost",
            "Data RayDMatrix RayDeviceQuantileDMatrix RayFileType RayParams RayShardingMode"
            " RayXGBClassifier RayXGBRFClassifier RayXGBRFRegressor RayXGBRanker RayXGBRegressor"
            " __version__ combine_data predict train",
        ),
        ("skate.xgboost.main", "RayParams RayXGBoostTrainingError predict train"),
        (
            "skate.xgboost.matrix",
            "Data RayDMatrix RayDeviceQuantileDMatrix RayFileType RayQuantileDMatrix"
            " RayShardingMode combine_data",
        ),
        (
            "skate.xgboost.callback",
            "DistributedCallback DistributedCallbackContainer EnvironmentCallback",
        ),
        ("skate.xgboost.session", "get_actor_rank get_rabit_rank put_queue"),
        ("skate.xgboost.tune", "TuneReportCallback TuneReportCheckpointCallback load_model"),
        (
            "skate.xgboost.sklearn",
            "RayXGBClassifier RayXGBRFClassifier RayXGBRFRegressor RayXGBRanker RayXGBRegressor",
        ),
    ],
)
def test_names_are_where_they_were(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("sharding", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
@pytest.mark.parametrize("shape", [(7,), (7, 3), (2,)])
def test_results_are_put_in_order(sharding: RayShardingMode, shape: tuple[int, ...]) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape)
    if sharding is RayShardingMode.BATCH:
        parts = np.array_split(whole, 3)
    else:
        parts = [whole[rank::3] for rank in range(3)]
    assert np.array_equal(combine_data(sharding, parts), whole)


def test_results_of_fixed_parts_have_no_order() -> None:
    with pytest.raises(ValueError, match="BATCH or INTERLEAVED"):
        combine_data(RayShardingMode.FIXED, [np.ones(2)])


@pytest.mark.usefixtures("inline")
class TestLoading:
    def test_data_is_stored_when_that_is_asked_for(self, data: Data) -> None:
        x, y = (each.copy() for each in data)
        matrix = RayDMatrix(x, y, num_actors=2, lazy=False)
        deferred = RayDMatrix(x, y, num_actors=2, lazy=True)
        # What is stored does not change with the user's array.
        x[:] = 0
        assert [self.first_value(each) for each in (matrix, deferred)] == [data[0][0, 0], 0]

    def test_what_was_stored_can_be_forgotten(self, data: Data) -> None:
        x, y = (each.copy() for each in data)
        matrix = RayDMatrix(x, y)
        matrix.load_data(2)
        x[:] = 0
        assert self.first_value(matrix) == data[0][0, 0]
        matrix.unload_data()
        assert self.first_value(matrix) == 0

    def test_the_number_of_actors_is_needed(self, data: Data) -> None:
        with pytest.raises(ValueError, match=r"load_data\(num_actors\)"):
            RayDMatrix(*data).load_data()

    @staticmethod
    def first_value(matrix: RayDMatrix) -> float:
        (batch,) = loading.load(matrix.shards(2)[0]).batches
        return float(batch.features[0, 0])


@pytest.mark.usefixtures("inline")
class TestFiles:
    @pytest.fixture
    def frame(self, data: Data) -> pd.DataFrame:
        """Features a to f and the label y."""
        x, y = data
        return pd.DataFrame(x, columns=list("abcdef")).assign(y=y)

    def test_columns_of_parquet(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        file = str(tmp_path / "data.parquet")
        frame.assign(text="unfit").to_parquet(file, index=False)
        matrix = RayDMatrix(file, "y", columns=["y", "c", "a"], filetype=RayFileType.PARQUET)
        assert train(PARAMS, matrix, 2).feature_names == ["c", "a"]
        with pytest.raises(ValueError, match=r"columns of .*: there is no column 'z', only a, b"):
            RayDMatrix(file, "y", columns=["y", "z"])
        with pytest.raises(TypeError, match="no options for Parquet files but columns: engine"):
            RayDMatrix(file, "y", engine="pyarrow")

    def test_csv_without_a_header(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        file = tmp_path / "data.csv.gz"
        frame.to_csv(file, header=False, index=False)
        matrix = RayDMatrix(os.fspath(file), label="y", names=list(frame.columns))
        assert matrix.shape == (2000, 6)
        assert train(PARAMS, matrix, 2).feature_names == list("abcdef")

    def test_columns_in_names_of_folders_can_be_ignored(
        self, frame: pd.DataFrame, tmp_path: Path
    ) -> None:
        for part in range(2):
            folder = tmp_path / f"partition={part}"
            folder.mkdir()
            frame.iloc[part::2].to_parquet(folder / "0.parquet", index=False)
        matrix = RayDMatrix(os.fspath(tmp_path), "y", ignore=["partition"])
        assert matrix.shape == (2000, 6)
        with pytest.raises(ValueError, match="ignore: there is no column 'part'"):
            RayDMatrix(os.fspath(tmp_path), "y", ignore=["part"])

    def test_petastorm_is_refused(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        frame.to_parquet(tmp_path / "data.parquet")
        with pytest.raises(ValueError, match=r"Petastorm .* RayFileType\.PARQUET"):
            RayDMatrix(str(tmp_path), "y", filetype=RayFileType.PETASTORM)


@pytest.mark.usefixtures("inline")
def test_settings_of_the_other_library_are_noticed(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = RayDMatrix(*data)
    monkeypatch.setenv("RXGB_USE_SPREAD_STRATEGY", "0")
    with pytest.warns(UserWarning, match="RXGB_USE_SPREAD_STRATEGY: .* do nothing here"):
        model = train(PARAMS, matrix, 2, _remote=False)
    with pytest.warns(UserWarning, match="placement_options"):
        predict(model, matrix, _remote=False)


@pytest.mark.usefixtures("native")
def test_variables_of_the_environment_of_actors(data: Data, tmp_path: Path) -> None:
    class Notes(xgboost.callback.TrainingCallback):
        def after_training(self, model: Any) -> Any:
            (tmp_path / os.environ["MY_VARIABLE"] / str(os.getpid())).touch()
            return model

    (tmp_path / "value").mkdir()
    params = RayParams(
        num_actors=2, distributed_callbacks=[EnvironmentCallback({"MY_VARIABLE": "value"})]
    )
    train(PARAMS, RayDMatrix(*data), 2, callbacks=[Notes()], ray_params=params)
    assert len(list((tmp_path / "value").iterdir())) == 2
    assert "MY_VARIABLE" not in os.environ


@pytest.mark.usefixtures("native")
@pytest.mark.timeout(120)
def test_the_file_of_a_checkpoint_is_called_as_one_says(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKATE_RESULTS_DIR", str(tmp_path))
    dtrain = RayDMatrix(*data)

    def trial(config: dict[str, Any]) -> None:
        callback = TuneReportCheckpointCallback(
            {"loss": "train-logloss"},
            filename="model.json",
            frequency=0,
            results_postprocessing_fn=lambda scores: {"gain": -scores["loss"]},
        )
        train(PARAMS, dtrain, 7, evals=[(dtrain, "train")], callbacks=[callback], ray_params=TWO)

    analysis = tune.run(
        trial, metric="gain", mode="max", verbose=0, resources_per_trial=TWO.get_tune_resources()
    )
    assert analysis.best_trial.iterations == 7
    assert analysis.best_result["gain"] < 0
    checkpoint = analysis.best_checkpoint
    (name,) = (file for file in os.listdir(checkpoint.path) if file.startswith("model"))
    assert name == "model.json"
    assert Path(checkpoint.path, name).read_bytes().startswith(b"{")
    for model in (
        load_model(Path(checkpoint.path) / name),
        TuneReportCheckpointCallback.get_model(checkpoint, name),
    ):
        assert model.num_boosted_rounds() == 7


@pytest.mark.usefixtures("inline")
def test_callbacks_for_trainings_in_one_process_are_refused(data: Data) -> None:
    from skate.tune.integration.xgboost import TuneReportCheckpointCallback as InOneProcess

    with pytest.raises(TypeError, match=r"TuneReportCheckpointCallback of skate\.xgboost\.tune"):
        train({}, RayDMatrix(*data), callbacks=[InOneProcess()])


def test_names_of_checkpoint_files_have_no_folder() -> None:
    with pytest.raises(ValueError, match="without a folder"):
        TuneReportCheckpointCallback(filename="models/model.json")
