"""Runs whose storage fails: before they start, in the middle, and one that works."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import serving
from small_disk import mounted

from skate import tune
from skate.tune.storage import open_storage

BUCKET = "runs"


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 7):
        if step == 5 and begin < 4 and config.get("fails"):
            raise ValueError("once")
        tune.report(
            {"loss": config["x"] + 1 / step, "begin": begin},
            checkpoint=tune.Checkpoint.from_dict({"step": step, "w": os.urandom(config["bytes"])}),
        )


def run(folder: str | Path, size: int = 1000, **more: Any) -> tune.ExperimentAnalysis:
    space = {"x": tune.grid_search([0, 1, 2]), "bytes": size, "fails": "max_failures" in more}
    return tune.run(train, config=space, storage_path=folder, name="run", verbose=0, **more)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with serving(tmp_path, BUCKET, monkeypatch) as server:
        yield server


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("inline")
def test_a_run_on_an_s3_server(server: Any, results_folder: Path) -> None:
    first = run(f"s3://{BUCKET}/all", max_failures=1, keep_checkpoints_num=2)
    assert first.experiment.storage_errors == []
    assert first.experiment_path == f"s3://{BUCKET}/all/run"
    for trial in first.trials:
        assert trial.history.column("begin") == [0, 0, 0, 0, 4, 4]
    storage = open_storage(f"s3://{BUCKET}/all/run")
    names = {name.partition("/")[2] for name in storage.files(first.trials[0].trial_id)}
    assert {"params.json", "progress.csv", "result.json"} <= names
    assert {name.split("/")[0] for name in names if "checkpoint_" in name} == {
        "checkpoint_000004",
        "checkpoint_000005",
    }
    path = first.experiment.checkpoints[first.trials[0].trial_id][-1].path
    assert path is not None
    assert path.startswith("s3://")
    assert tune.Checkpoint.from_directory(path).to_dict()["step"] == 6

    # Another machine has nothing but the URL.
    shutil.rmtree(results_folder)
    assert tune.Tuner.can_restore(f"s3://{BUCKET}/all/run")
    second = tune.Tuner.restore(f"s3://{BUCKET}/all/run", train).fit()
    assert [trial.history.column("loss") for trial in second.experiment.trials] == [
        trial.history.column("loss") for trial in first.trials
    ]


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("inline")
def test_a_bucket_that_cannot_be_reached_is_found_before_trials_start(server: Any) -> None:
    started: list[Any] = []

    class Started(tune.Callback):
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            started.append(trial)

    with pytest.raises(tune.StorageError, match="s3://nobodys/all/run"):
        run("s3://nobodys/all", callbacks=[Started()])
    server.stop()
    with pytest.raises(tune.StorageError, match=f"s3://{BUCKET}/all/run"):
        run(f"s3://{BUCKET}/all", callbacks=[Started()])
    assert started == []


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("inline")
def test_a_run_outlives_its_bucket(server: Any) -> None:
    class Stop(tune.Callback):
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            if len(trials) == 3:
                server.stop()

    with pytest.warns(RuntimeWarning, match="the run goes on"):
        analysis = run(f"s3://{BUCKET}/all", callbacks=[Stop()], max_failures=1)
    errors = analysis.experiment.storage_errors
    assert errors
    assert all(error.path.startswith(f"s3://{BUCKET}/all/run") for error in errors)
    # Also those that failed in the meantime went on from what was in memory.
    for trial in analysis.trials:
        assert trial.status == "TERMINATED"
        assert trial.history.column("begin") == [0, 0, 0, 0, 4, 4]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with mounted(tmp_path / "disk", "2m") as folder:
        yield folder


@pytest.mark.usefixtures("engine")
def test_a_run_outlives_a_full_disk(small_disk: Path) -> None:
    with pytest.warns(RuntimeWarning, match="No space left"):
        analysis = run(small_disk, size=300_000, max_failures=1)
    assert {str(small_disk / "run") in error.path for error in analysis.experiment.storage_errors}
    for trial in analysis.trials:
        assert trial.status == "TERMINATED"
        assert trial.history.column("begin") == [0, 0, 0, 0, 4, 4]
        # The newest checkpoint is in memory if it is nowhere else.
        assert analysis.experiment.checkpoints[trial.trial_id][-1].source is not None
    folders = list(small_disk.glob("run/*/checkpoint_*"))
    assert 0 < len(folders) < 18
    for folder in folders:
        assert tune.Checkpoint(folder).to_dict()["step"] > 0


@pytest.mark.usefixtures("inline")
def test_what_was_reported_while_the_disk_was_full_is_written_later(small_disk: Path) -> None:
    class Filler(tune.Callback):
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            if trial is trials[0]:
                with (small_disk / "filler").open("wb", buffering=0) as file:
                    while True:
                        try:
                            file.write(bytes(4096))
                        except OSError:
                            return

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            if len(trials) == 3 and trial is trials[-1]:
                (small_disk / "filler").unlink(missing_ok=True)

    with pytest.warns(RuntimeWarning, match=r"No space left"):
        analysis = run(small_disk, callbacks=[Filler()])
    for trial in analysis.trials:
        folder = small_disk / "run" / trial.trial_id
        lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        assert [line["loss"] for line in lines] == trial.history.column("loss")
        assert len((folder / "progress.csv").read_text().splitlines()) == 7


def test_a_full_disk_is_found_before_trials_start(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes((2 << 20) - 4096))
    with pytest.raises(tune.StorageError, match="No space left"):
        run(small_disk)
