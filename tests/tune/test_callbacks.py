"""Hooks about checkpoints: how often they are called, and with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.schedulers import HyperBandScheduler, PopulationBasedTraining

pytestmark = pytest.mark.usefixtures("engine")


class Hooks(tune.Callback):
    """Which hooks were called, and the steps of the checkpoints."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.starts: list[str] = []
        self.restores: list[str] = []
        self.saves: list[int] = []

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.events.append("start")
        if trial.checkpoint is not None:
            self.starts.append(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.events.append("recover")
        assert "once" in str(trial.error)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.events.append("error")

    def on_trial_save(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.saves.append(trial.checkpoint.iteration)

    def on_trial_restore(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.events.append("restore")
        self.restores.append(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self.events.append(f"result {result['step']}")

    def on_checkpoint(
        self, iteration: int, trials: Any, trial: Any, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        self.events.append(f"checkpoint {checkpoint.to_dict()['step']}")


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 10):
        if config.get("fails_at") == step and begin == 0:
            raise ValueError("once")
        every = config.get("every", 1)
        kept = tune.Checkpoint.from_dict({"step": step}) if step % every == 0 else None
        tune.report({"loss": config["x"] + 1 / step, "step": step}, checkpoint=kept)
        if step == config.get("last"):
            return


def run(hooks: Hooks, folder: Path, **options: Any) -> tune.ExperimentAnalysis:
    return tune.run(train, callbacks=[hooks], storage_path=folder, verbose=0, **options)


def test_a_trial_without_checkpoints(tmp_path: Path) -> None:
    hooks = Hooks()
    run(hooks, tmp_path, config={"x": 1, "every": 100, "last": 2})
    assert hooks.events == ["start", "result 1", "result 2"]


def test_a_failed_trial_is_restored(tmp_path: Path) -> None:
    hooks = Hooks()
    run(hooks, tmp_path, config={"x": 1, "every": 2, "fails_at": 4, "last": 4}, max_failures=1)
    assert hooks.events == [
        *("start", "result 1", "result 2", "checkpoint 2", "result 3", "recover"),
        *("start", "restore", "result 3", "result 4", "checkpoint 4"),
    ]
    assert hooks.saves == [2, 4]


def test_a_trial_fails_once_too_often(tmp_path: Path) -> None:
    hooks = Hooks()
    run(
        hooks, tmp_path, config={"x": 1, "fails_at": 1}, max_failures=1, raise_on_failed_trial=False
    )
    assert hooks.events == ["start", "recover", "start", "error"]


def test_a_resumed_run_restores(tmp_path: Path) -> None:
    class Interrupt(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            if result["step"] == 3:
                raise KeyboardInterrupt

    config = {"x": 1, "last": 4}
    tune.run(
        train, config=config, name="r", storage_path=tmp_path, verbose=0, callbacks=[Interrupt()]
    )
    hooks = Hooks()
    run(hooks, tmp_path, config=config, name="r", resume=True)
    assert hooks.events == [
        *("start", "restore", "result 3", "checkpoint 3", "result 4", "checkpoint 4"),
    ]


@pytest.mark.parametrize("scheduler", ["hyperband", "pbt"])
def test_pauses_and_clones_restore(tmp_path: Path, scheduler: str) -> None:
    hooks = Hooks()
    analysis = run(
        hooks,
        tmp_path,
        config={"x": tune.grid_search(list(range(9)))},
        metric="loss",
        mode="min",
        scheduler=HyperBandScheduler(max_t=9)
        if scheduler == "hyperband"
        else PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=2,
            hyperparam_mutations={"x": tune.uniform(0, 9)},
        ),
    )
    assert not analysis.experiment.failed
    assert hooks.restores
    assert hooks.restores == hooks.starts


class Counter(tune.Trainable):
    """Has a checkpoint when it is asked for one."""

    def setup(self, config: dict[str, Any]) -> None:
        self.count = 0

    def step(self) -> dict[str, Any]:
        self.count += 1
        return {"step": self.count, "done": self.count == 4}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"step": self.count}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.count = checkpoint["step"]


def test_a_class_has_one_at_its_end(tmp_path: Path) -> None:
    hooks = Hooks()
    tune.run(
        Counter,
        callbacks=[hooks],
        storage_path=tmp_path,
        verbose=0,
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=3, checkpoint_at_end=True),
    )
    assert [event for event in hooks.events if event[0] == "c"] == ["checkpoint 3", "checkpoint 4"]
