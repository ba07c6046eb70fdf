"""A checkpoint that trials start from, and models that they export at their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.schedulers import FIFOScheduler, HyperBandScheduler, TrialScheduler
from skate.tune.trainable_class import ExportFormat


def counts(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    value = 0 if checkpoint is None else checkpoint.to_dict()["value"]
    for step in range(3):
        value += 1
        if config.get("fails") == step and value < 13:
            raise ValueError("no")
        saved = tune.Checkpoint.from_dict({"value": value}) if config.get("saves") else None
        tune.report({"value": value}, checkpoint=saved)


class Counter(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.value = config.get("from", 0)

    def step(self) -> dict[str, Any]:
        self.value += 1
        if self.config.get("fails"):
            raise ValueError("no")
        return {"value": self.value, "done": self.value >= 10}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"value": self.value}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.value = checkpoint["value"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def _export_model(self, export_formats: list[str], export_dir: str) -> dict[str, str]:
        if self.config.get("cannot"):
            raise OSError("no room")
        paths = {each: str(Path(export_dir, f"model.{each}")) for each in export_formats}
        for path in paths.values():
            with open(path, "a") as file:
                file.write(f"{self.value} ")
        return paths


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(tune.Checkpoint.from_dict({"value": 10}).to_directory(tmp_path / "start"))


def run(trainable: Any, folder: Path, **settings: Any) -> list[tune.Trial]:
    return tune.run(trainable, storage_path=folder / "results", verbose=0, **settings).trials


@pytest.mark.usefixtures("engine")
def test_each_trial_starts_from_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    for start in (str(checkpoint), checkpoint, tune.Checkpoint(checkpoint)):
        trials = run(counts, tmp_path, num_samples=2, restore=start)
        assert [trial.history.column("value") for trial in trials] == [[11, 12, 13]] * 2
        assert trials[0].checkpoint is None


@pytest.mark.usefixtures("engine")
def test_a_trial_that_fails_goes_on_from_its_own(tmp_path: Path, checkpoint: Path) -> None:
    settings = {"restore": checkpoint, "max_failures": 1}
    # It starts at 10 and fails after one report.
    (trial,) = run(counts, tmp_path, config={"fails": 1, "saves": True}, **settings)
    assert trial.history.column("value") == [11, 12, 13, 14]
    # Without one of its own it begins again, where it began.
    with pytest.raises(tune.TuneError, match="1 of 1 trials failed"):
        run(counts, tmp_path, config={"fails": 1, "saves": False}, **settings, name="fails")
    again = tune.Tuner.restore(tmp_path / "results" / "fails", counts, restart_errored=True).fit()
    assert again.num_errors == 1
    assert again.experiment.trials[0].history.column("value") == [11]


@pytest.mark.usefixtures("engine")
def test_a_class_counts_on_from_what_lies_behind_it(tmp_path: Path) -> None:
    (first,) = run(Counter, tmp_path, stop={"value": 4}, checkpoint_at_end=True)
    assert first.checkpoint is not None
    (trial,) = run(Counter, tmp_path, restore=first.checkpoint.path)
    assert trial.history.column("value") == [5, 6, 7, 8, 9, 10]
    assert trial.history.column("training_iteration") == [5, 6, 7, 8, 9, 10]


@pytest.mark.usefixtures("inline")
def test_a_start_is_no_checkpoint_to_pause_with(tmp_path: Path, checkpoint: Path) -> None:
    """A function that saves nothing cannot be paused; it would begin at the start for ever."""
    with pytest.raises(tune.TuneError, match="checkpoint"):
        run(
            counts,
            tmp_path,
            num_samples=4,
            restore=checkpoint,
            scheduler=HyperBandScheduler(max_t=3, metric="value", mode="max"),
        )


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("start", "error"), [("/nowhere", ValueError), (7, TypeError), ("memory://no", tune.TuneError)]
)
def test_what_is_no_checkpoint(tmp_path: Path, start: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(counts, tmp_path, restore=start)
    assert not (tmp_path / "results").exists()


# ------------------------------------------------------------------------------- exports


def exported(trial: tune.Trial, name: str = "model.model") -> str:
    assert trial.local_path is not None
    return (trial.local_path / name).read_text()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("stop", [None, {"value": 4}])
def test_classes_export_once_when_their_trial_is_over(tmp_path: Path, stop: Any) -> None:
    formats = [ExportFormat.MODEL, "ONNX"]
    trials = run(
        Counter,
        tmp_path,
        config={"from": tune.grid_search([0, 2, 3])},
        stop=stop,
        export_formats=formats,
    )
    last = "10 " if stop is None else "4 "
    assert [exported(trial) for trial in trials] == [last] * 3
    assert exported(trials[0], "model.onnx") == last


class Pausing(FIFOScheduler):
    """Pauses each trial once, and ends it at 6."""

    needs_checkpoints = True

    def next_decision(self, trial: Any) -> Any:
        return None

    def on_trial_result(self, controller: Any, trial: Any, result: Any) -> Any:
        if result["value"] == 3:
            return TrialScheduler.PAUSE
        return TrialScheduler.STOP if result["value"] == 6 else TrialScheduler.CONTINUE


@pytest.mark.usefixtures("engine")
def test_a_paused_trial_has_nothing_to_export_yet(tmp_path: Path) -> None:
    (trial,) = run(Counter, tmp_path, scheduler=Pausing(), export_formats="model")
    assert exported(trial) == "6 "


@pytest.mark.usefixtures("inline")
def test_failed_trials_export_nothing(tmp_path: Path) -> None:
    (trial,) = run(
        Counter,
        tmp_path,
        config={"fails": True},
        export_formats="model",
        raise_on_failed_trial=False,
    )
    assert trial.status == "ERROR"
    assert not list((trial.local_path or tmp_path).glob("model*"))


@pytest.mark.usefixtures("inline")
def test_an_export_that_fails_is_told_of(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="could not export its model: OSError: no room"):
        (trial,) = run(Counter, tmp_path, config={"cannot": True}, export_formats="model")
    assert trial.status == "TERMINATED"


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    class Plain(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"done": True}

    with pytest.raises(ValueError, match="'pickle' is no export format: checkpoint, model"):
        run(Counter, tmp_path, export_formats=["pickle"])
    for trainable in (counts, Plain):
        with pytest.raises(ValueError, match="export_formats is for Trainable classes"):
            run(trainable, tmp_path, export_formats=["model"])


def test_a_model_is_exported_outside_of_runs(tmp_path: Path) -> None:
    counter = Counter({"from": 3})
    paths = counter.export_model("model", tmp_path)
    assert json.dumps(paths) == json.dumps({"model": str(tmp_path / "model.model")})
    assert (tmp_path / "model.model").read_text() == "3 "
