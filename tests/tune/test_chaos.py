"""Runs under fire: processes of trials are killed at random, and all trials come to their end."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import skate
from skate import tune
from skate.tune.schedulers import ASHAScheduler, FIFOScheduler
from skate.tune.schedulers.trial_scheduler import Controller, Exploit, Gate, Resize, Verdict
from skate.tune.trial import Trial

pytestmark = pytest.mark.usefixtures("native")


class Killer(tune.Callback):
    """Kills the process that has just reported, now and then."""

    def __init__(self, seed: int, share: float, most: int) -> None:
        self.rng = random.Random(seed)
        self.share = share
        self.most = most
        self.killed: list[int] = []

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if len(self.killed) < self.most and self.rng.random() < self.share:
            try:
                os.kill(result["pid"], signal.SIGKILL)
            except ProcessLookupError:  # killed a moment ago
                return
            self.killed.append(result["pid"])


def train(config: dict[str, Any]) -> None:
    pause = threading.Event()
    for step in range(1, 13):
        tune.report(loss=(config["x"] - 3) ** 2 + 1 / step)
        pause.wait(config["pause"])


def assert_all_is_free() -> None:
    deadline = time.monotonic() + 10
    while skate.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, "trials still hold CPUs after the run"
        time.sleep(0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
def test_killed_trials_come_back(seed: int, scheduler: str) -> None:
    killer = Killer(seed, share=0.1, most=12)
    analysis = tune.run(
        train,
        config={"x": tune.uniform(0, 10), "pause": 0.002},
        num_samples=16,
        scheduler=ASHAScheduler(max_t=9, reduction_factor=3) if scheduler == "asha" else None,
        stop=lambda trial_id, result: False,  # have every report looked at
        max_failures=-1,
        callbacks=[killer],
        seed=seed,
        verbose=0,
    )
    assert killer.killed
    assert len(analysis.trials) == 16
    assert {trial.status for trial in analysis.trials} == {"TERMINATED"}
    failures = sum(trial.failures for trial in analysis.trials)
    assert 0 < failures <= len(killer.killed)
    for trial in analysis.trials:
        steps = trial.history.column("training_iteration")
        assert steps == [float(step) for step in range(1, len(steps) + 1)]
    assert_all_is_free()


class Restless(FIFOScheduler):
    """Pauses, clones and resizes trials at random."""

    needs_checkpoints = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.verdicts: set[str] = set()

    def next_decision(self, trial: Trial) -> Gate:
        return {"training_iteration": trial.last_result.get("training_iteration", 0) + 2}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        kind = self.rng.choice(["CONTINUE", "PAUSE", "clone", "resize"])
        if kind == "clone":
            source = self.rng.choice(controller.trials)
            if source.checkpoint is None or source.checkpoint.iteration >= 12:
                return self.CONTINUE
            self.verdicts.add(kind)
            return Exploit(source, dict(source.config))
        self.verdicts.add(kind)
        if kind == "resize":
            cpus = self.rng.choice([0.5, 1, 2])
            return Resize(tune.PlacementGroupFactory([{"CPU": cpus}]))
        return kind


def save_and_go_on(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    pause = threading.Event()
    for step in range(begin + 1, 13):
        saved = tune.Checkpoint.from_dict({"step": step, "ballast": bytes(200_000)})
        tune.report({"loss": config["x"], "step": step}, checkpoint=saved)
        pause.wait(0.002)


class SaveAndGoOn(tune.Trainable):
    """The same as a class."""

    def setup(self, config: dict[str, Any]) -> None:
        self.done = 0

    def step(self) -> dict[str, Any]:
        self.done += 1
        return {"loss": self.config["x"], "step": self.done, "done": self.done >= 12}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"step": self.done, "ballast": bytes(200_000)}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.done = checkpoint["step"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.done = 0
        return True


class Saves(tune.Callback):
    """Counts the checkpoints of each trial."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def on_trial_save(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.of[trial.trial_id] += 1


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("trainable", [save_and_go_on, SaveAndGoOn])
def test_trials_that_are_moved_about_and_killed_come_to_their_end(
    trainable: Any, seed: int
) -> None:
    killer = Killer(seed, share=0.05, most=8)
    saves = Saves()
    scheduler = Restless(seed)
    analysis = tune.run(
        trainable,
        config={"x": tune.uniform(0, 10)},
        num_samples=8,
        scheduler=scheduler,
        max_failures=-1,
        keep_checkpoints_num=2,
        callbacks=[killer, saves],
        seed=seed,
        verbose=0,
    )
    assert killer.killed
    assert scheduler.verdicts >= {"PAUSE", "clone", "resize"}
    assert {trial.status for trial in analysis.trials} == {"TERMINATED"}
    for trial in analysis.trials:
        assert trial.last_result["step"] == 12
        assert trial.last_result["training_iteration"] == 12
        folders = list((trial.local_path or Path()).glob("checkpoint_*"))
        # A class is asked for one when its trial is moved, which may happen once only.
        assert len(folders) == min(2, saves.of[trial.trial_id])
        assert len(folders) == 2 or trainable is SaveAndGoOn
        for folder in folders:
            assert tune.Checkpoint(folder).to_dict()["step"] <= 12
    assert_all_is_free()


def test_without_retries_the_killed_ones_are_errors_and_no_other() -> None:
    killer = Killer(seed=5, share=0.05, most=4)
    analysis = tune.run(
        train,
        config={"x": tune.uniform(0, 10), "pause": 0.002},
        num_samples=16,
        stop=lambda trial_id, result: False,
        callbacks=[killer],
        raise_on_failed_trial=False,
        seed=5,
        verbose=0,
    )
    errors = [trial for trial in analysis.trials if trial.status == "ERROR"]
    assert 0 < len(errors) <= len(killer.killed)
    assert {trial.iterations for trial in analysis.trials if trial not in errors} == {12}
    assert analysis.best_config is not None
    assert_all_is_free()


def test_a_run_leaves_nothing_behind_however_it_ends() -> None:
    with pytest.raises(tune.MetricError):
        tune.run(train, config={"x": 1, "pause": 0.002}, metric="auc", num_samples=9, verbose=0)
    assert_all_is_free()

    class Broken(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            raise ZeroDivisionError("in a callback")

    with pytest.raises(ZeroDivisionError, match="in a callback"):
        tune.run(train, config={"x": 1, "pause": 0.002}, callbacks=[Broken()], verbose=0)
    assert_all_is_free()
    tune.run(train, config={"x": 1, "pause": 10}, time_budget_s=0.3, num_samples=5, verbose=0)
    assert_all_is_free()
    tune.run(train, config={"x": 1, "pause": 0}, num_samples=5, verbose=0)
    assert_all_is_free()
