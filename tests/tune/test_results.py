"""``ResultGrid``, ``Result`` and ``ExperimentAnalysis`` under the names of Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sessions import at_hand

from skate import tune

pytestmark = pytest.mark.usefixtures("inline")


def train(config: dict[str, Any]) -> None:
    for step in range(1, 5):
        checkpoint = tune.Checkpoint.from_dict({"step": step}) if config["x"] < 3 else None
        # The second report is the best one of each trial.
        tune.report({"loss": config["x"] + (step - 2) ** 2}, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tune.ResultGrid:
    at_hand(num_cpus=2, engine="inline")
    return tune.Tuner(
        train,
        param_space={"x": tune.grid_search([2, 1, 3]), "model": {"depth": 4}},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(
            name="run",
            storage_path=tmp_path_factory.mktemp("results"),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=3, checkpoint_score_attribute="loss", checkpoint_score_order="min"
            ),
            verbose=0,
        ),
    ).fit()


@pytest.fixture(scope="module")
def analysis(grid: tune.ResultGrid) -> tune.ExperimentAnalysis:
    return tune.ExperimentAnalysis(grid.experiment)


def test_checkpoints_of_a_result(grid: tune.ResultGrid) -> None:
    best = grid.get_best_result()
    assert best.config == {"x": 1, "model": {"depth": 4}}
    assert best.checkpoint is not None
    assert best.checkpoint.to_dict() == {"step": 4}
    kept = [(c.to_dict()["step"], metrics["loss"]) for c, metrics in best.best_checkpoints]
    assert kept == [(2, 1), (3, 2), (4, 5)]
    chosen = best.get_best_checkpoint("loss", "min")
    assert chosen is not None
    assert chosen.to_dict() == {"step": 2}
    assert best.path is not None
    assert Path(chosen.path).parent == Path(best.path) == best.log_dir
    with pytest.raises(RuntimeError, match=r"no checkpoint came with 'acc'; they have: .*loss"):
        best.get_best_checkpoint("acc", "max")
    with pytest.raises(ValueError, match="mode has to be"):
        best.get_best_checkpoint("loss", "best")


def test_a_result_without_checkpoints(grid: tune.ResultGrid) -> None:
    result = grid[2]
    assert result.checkpoint is None
    assert result.best_checkpoints == []
    assert result.get_best_checkpoint("loss", "min") is None


def test_checkpoints_of_an_analysis(analysis: tune.ExperimentAnalysis) -> None:
    best = analysis.best_checkpoint
    assert best is not None
    assert best.to_dict() == {"step": 2}
    last = analysis.get_last_checkpoint()
    assert last is not None
    assert last.to_dict() == {"step": 4}
    assert analysis.get_last_checkpoint(analysis.trials[2]) is None
    assert analysis.get_best_checkpoint(analysis.trials[2]) is None
    paths = analysis.get_trial_checkpoints_paths(analysis.trials[0])
    assert [value for _, value in paths] == [2, 3, 6]
    assert all(Path(path).is_dir() for path, _ in paths)


def test_tables(analysis: tune.ExperimentAnalysis) -> None:
    pytest.importorskip("pandas")
    table = analysis.results_df
    assert list(table.index) == [trial.trial_id for trial in analysis.trials]
    assert list(table["config/model/depth"]) == [4, 4, 4]
    assert list(analysis.best_result_df["loss"]) == [5]
    assert list(analysis.best_dataframe["loss"]) == [2, 1, 2, 5]
    assert list(analysis.dataframe("loss", "min")["loss"]) == [2, 1, 3]
    assert set(analysis.trial_dataframes) == set(table.index)


def test_configurations(analysis: tune.ExperimentAnalysis) -> None:
    first = analysis.trials[0].trial_id
    assert analysis.get_all_configs()[first] == {"x": 2, "model": {"depth": 4}}
    assert analysis.get_all_configs(prefix=True)[first] == {"config/x": 2, "config/model/depth": 4}


def test_an_analysis_by_another_metric_and_of_some_trials(grid: tune.ResultGrid) -> None:
    worst = tune.ExperimentAnalysis(grid.experiment_path, default_metric="loss", default_mode="max")
    assert worst.best_config is not None
    assert worst.best_config["x"] == 3
    assert grid.get_best_result().config["x"] == 1
    some = tune.ExperimentAnalysis(grid.experiment, trials=grid.experiment.trials[:1])
    assert len(some.trials) == 1
    assert len(tune.ResultGrid(some)) == 1


def test_checkpoints_that_lie_in_a_folder(grid: tune.ResultGrid) -> None:
    again = tune.ResultGrid(tune.ExperimentAnalysis(grid.experiment_path))
    checkpoint = again.get_best_result().checkpoint
    assert checkpoint is not None
    assert checkpoint.to_dict() == {"step": 4}


def test_the_file_system_is_one_of_pyarrow(grid: tune.ResultGrid) -> None:
    fs = pytest.importorskip("pyarrow.fs")
    assert isinstance(grid.filesystem, fs.LocalFileSystem)
    assert isinstance(grid[0].filesystem, fs.LocalFileSystem)
