"""Runs under fire: processes of trials are killed at random, and all trials come to their end."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import pytest

import skate
from skate import tune
from skate.tune.schedulers import ASHAScheduler

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
