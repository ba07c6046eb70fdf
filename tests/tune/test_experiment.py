"""Experiments that are described beforehand, and settings that scripts of Ray Tune bring."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from sessions import at_hand

import skate
from skate import tune
from skate.exceptions import NotSupportedError
from skate.tune.experiment import as_experiments
from skate.tune.schedulers import FIFOScheduler


def train(config: dict[str, Any]) -> None:
    for step in range(1, config.get("steps", 3) + 1):
        tune.report(loss=config["x"] + 1 / step)


def fail(config: dict[str, Any]) -> None:
    raise ValueError("no")


@pytest.mark.usefixtures("engine")
def test_experiments_run_one_after_the_other(tmp_path: Path) -> None:
    class Counting(FIFOScheduler):
        added = 0

        def on_trial_add(self, controller: Any, trial: Any) -> None:
            self.added += 1

    scheduler = Counting()
    trials = tune.run_experiments(
        [
            tune.Experiment("first", train, config={"x": 1}, num_samples=2, storage_path=tmp_path),
            {"second": {"run": train, "config": {"x": 2}, "stop": {"training_iteration": 2}}},
        ],
        scheduler=scheduler,
        verbose=0,
    )
    assert [trial.config["x"] for trial in trials] == [1, 1, 2]
    assert trials[2].iterations == 2
    assert [Path(trial.path or "").parent.name for trial in trials] == ["first", "first", "second"]
    assert (tmp_path / "first").is_dir()
    assert not (tmp_path / "second").exists()
    # Each experiment has a scheduler that knows nothing of the others.
    assert scheduler.added == 0


@pytest.mark.usefixtures("inline")
def test_an_experiment_in_run(tmp_path: Path) -> None:
    tune.register_trainable("known", train)
    experiment = tune.Experiment(
        "mine", "known", config={"x": tune.grid_search([3, 1])}, storage_path=tmp_path
    )
    analysis = tune.run(experiment, metric="loss", mode="min", verbose=0)
    assert analysis.best_config == {"x": 1}
    assert analysis.experiment_path == str(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"num_samples belongs to the experiment: Experiment\("):
        tune.run(experiment, num_samples=3)
    with pytest.raises(ValueError, match="name belongs to the experiment"):
        tune.run(experiment, name="other")


@pytest.mark.usefixtures("inline")
def test_failed_trials_of_experiments(tmp_path: Path) -> None:
    experiments = {
        "bad": {"run": fail, "storage_path": tmp_path},
        "good": {"run": train, "config": {"x": 1}, "storage_path": tmp_path},
    }
    with pytest.raises(tune.TuneError, match="1 of 1 trials failed"):
        tune.run_experiments(experiments, verbose=0)
    assert not (tmp_path / "good").exists()
    trials = tune.run_experiments(experiments, raise_on_failed_trial=False, verbose=0)
    assert [trial.status for trial in trials] == ["ERROR", "TERMINATED"]
    # They are resumed by their names.
    again = tune.run_experiments(experiments, resume="AUTO", raise_on_failed_trial=False, verbose=0)
    assert [trial.trial_id for trial in again] == [trial.trial_id for trial in trials]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples has to be at least 1"),
        ({"config": {"x": tune.uniform}}, TypeError, "is tune.uniform itself"),
        ({"stop": 7}, TypeError, "stop"),
        ({"checkpoint_freq": -1}, ValueError, "has to be at least 0"),
        ({"log_to_file": "x\0"}, ValueError, "null character"),
        ({"resources_per_trial": {"cpu": -1}}, ValueError, "cpu"),
        ({"restore": "/nowhere"}, ValueError, "nowhere"),
        ({"config": {"x": threading.Lock()}}, skate.exceptions.SerializationError, "lock"),
    ],
)
def test_all_experiments_are_checked_before_one_begins(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    if error is skate.exceptions.SerializationError:
        at_hand(num_cpus=1, engine="native")  # inline shares what cannot be pickled
    experiments = [
        tune.Experiment("first", train, config={"x": 1}, storage_path=tmp_path),
        tune.Experiment("second", train, storage_path=tmp_path, **settings),
    ]
    with pytest.raises(error, match=message):
        tune.run_experiments(experiments, verbose=0)
    assert not (tmp_path / "first").exists()


@pytest.mark.usefixtures("inline")
def test_experiments_that_are_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    first = tune.Experiment("first", train, config={"x": 1}, storage_path=tmp_path)
    second = tune.Experiment("second", train, config={"x": 1}, storage_path=tmp_path)
    tune.run_experiments(first, verbose=0)
    before = (tmp_path / "first" / "run.jsonl").read_bytes()
    with pytest.raises(tune.TuneError, match=r"no run to resume at .*second"):
        tune.run_experiments([first, second], resume=True, verbose=0)
    assert (tmp_path / "first" / "run.jsonl").read_bytes() == before
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("experiments", "error", "message"),
    [
        (train, TypeError, "wants an Experiment, a dict"),
        ({"a": {"config": {}}}, TypeError, "'a' wants a dict with \"run\" in it"),
        ({"a": {"run": train, "num_sample": 3}}, TypeError, "did you mean 'num_samples'"),
        ({"a": {"run": 7}}, TypeError, "has to be a function"),
        ({"a": {"run": "nobody's"}}, ValueError, "nobody's"),
        ({7: {"run": train}}, TypeError, "name of an experiment is text"),
        ([{"a": {"run": train}}, {"a": {"run": train}}], ValueError, "two experiments are called"),
    ],
)
def test_what_are_no_experiments(experiments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        as_experiments(experiments)


# ------------------------------------------------------------------------------- SyncConfig


@pytest.mark.usefixtures("inline")
def test_the_place_may_be_named_as_in_2022(tmp_path: Path) -> None:
    sync = tune.SyncConfig(upload_dir=str(tmp_path), sync_period=60)
    analysis = tune.run(train, config={"x": 1}, sync_config=sync, name="run", verbose=0)
    assert analysis.experiment_path == str(tmp_path / "run")
    restored = tune.Tuner.restore(tmp_path / "run", train).fit()
    assert restored.experiment_path == str(tmp_path / "run")
    with pytest.raises(ValueError, match="older name of storage_path"):
        tune.RunConfig(storage_path=tmp_path, sync_config=sync)
    with pytest.raises(ValueError, match="older name of storage_path"):
        tune.run(train, local_dir=tmp_path, sync_config=sync)


def test_a_syncer_of_ones_own_is_refused() -> None:
    assert tune.SyncConfig(syncer=None).sync_artifacts is False
    with pytest.raises(NotSupportedError, match="Skate itself writes to the storage"):
        tune.SyncConfig(syncer=object())


def test_a_file_system_of_ones_own_is_refused() -> None:
    for refused in (tune.RunConfig, lambda **given: tune.run(train, **given)):
        with pytest.raises(NotSupportedError, match="give storage_path one that fsspec"):
            refused(storage_filesystem=object())
    with pytest.raises(NotSupportedError, match="give storage_path one that fsspec"):
        tune.Tuner.restore("/nowhere", train, storage_filesystem=object())
    with pytest.raises(NotSupportedError, match="give storage_path one that fsspec"):
        tune.Tuner.can_restore("/nowhere", object())


def test_files_of_trials_on_other_machines_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from skate.tune.execute import _warn_of_other_machines
    from skate.tune.storage import open_storage

    rows = [{"NodeManagerHostname": name, "Alive": True} for name in ("a", "b")]
    monkeypatch.setattr(skate, "nodes", lambda: rows)
    with pytest.warns(RuntimeWarning, match="on other machines"):
        _warn_of_other_machines(open_storage("memory://runs"))
    rows.pop()
    _warn_of_other_machines(open_storage("memory://runs"))


# ------------------------------------------------------------------------------- ends


@pytest.mark.usefixtures("inline")
def test_ctrl_c_ends_all_experiments(tmp_path: Path) -> None:
    class Press(tune.Callback):
        def on_trial_start(self, *args: Any, **info: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    def endless(config: dict[str, Any]) -> None:
        while True:
            tune.report(loss=1.0)

    experiments = [
        tune.Experiment(name, trainable, storage_path=tmp_path)
        for name, trainable in (("first", endless), ("second", train))
    ]
    (trial,) = tune.run_experiments(experiments, callbacks=[Press()], verbose=0)
    assert trial.stop_reason == "interrupted"
    assert not (tmp_path / "second").exists()
