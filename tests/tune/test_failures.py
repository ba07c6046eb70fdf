"""Trials whose process dies, that do not listen, and a driver that is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.exceptions import ActorDiedError
from skate.tune.schedulers import ASHAScheduler

pytestmark = pytest.mark.usefixtures("native")


class KillOnce(tune.Callback):
    """Kills the process of one trial after its second report."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.killed: int | None = None

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if trial is trials[self.index] and trial.iterations == 2 and self.killed is None:
            self.killed = result["pid"]
            os.kill(result["pid"], signal.SIGKILL)


def patient(config: dict[str, Any]) -> None:
    pause = threading.Event()
    for step in range(1, 9):
        tune.report(loss=1 / step + config["x"])
        pause.wait(0.02)


def test_a_killed_trial_is_an_error_and_the_others_go_on() -> None:
    killer = KillOnce(1)
    analysis = tune.run(
        patient,
        config={"x": tune.grid_search([0, 1, 2, 3])},
        callbacks=[killer],
        stop=lambda trial_id, result: False,  # have every report looked at
        raise_on_failed_trial=False,
        verbose=0,
    )
    assert killer.killed is not None
    assert [t.status for t in analysis.trials] == [
        "TERMINATED",
        "ERROR",
        "TERMINATED",
        "TERMINATED",
    ]
    error = analysis.trials[1].error
    assert isinstance(error, ActorDiedError)
    assert "SIGKILL" in str(error)
    assert [trial.iterations for trial in analysis.trials if trial.error is None] == [8, 8, 8]
    assert analysis.best_config == {"x": 0}
    assert (Path(analysis.trials[1].path or "") / "error.txt").exists()


def test_a_killed_trial_starts_again_in_a_fresh_process() -> None:
    killer = KillOnce(0)
    analysis = tune.run(
        patient,
        config={"x": tune.grid_search([0, 1])},
        callbacks=[killer],
        stop=lambda trial_id, result: False,
        max_failures=1,
        verbose=0,
    )
    trial = analysis.trials[0]
    assert (trial.status, trial.failures, trial.iterations) == ("TERMINATED", 1, 8)
    assert trial.last_result["pid"] != killer.killed


def test_a_process_that_ends_itself() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0)
        if config["x"]:
            os._exit(7)

    analysis = tune.run(
        train, config={"x": tune.grid_search([1, 0, 1])}, raise_on_failed_trial=False, verbose=0
    )
    assert [t.status for t in analysis.trials] == ["ERROR", "TERMINATED", "ERROR"]
    assert "7" in str(analysis.trials[0].error)


def test_a_function_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skate.tune.runner.STOP_GRACE_S", 0.2)

    def stubborn(config: dict[str, Any]) -> None:
        while True:
            try:
                tune.report(loss=config["x"])
            except BaseException:
                time.sleep(0.001)  # swallowed: this function cannot be ended from inside

    began = time.monotonic()
    analysis = tune.run(
        stubborn,
        config={"x": tune.grid_search([1.0, 2.0, 3.0, 4.0])},
        scheduler=ASHAScheduler(max_t=2),
        verbose=0,
    )
    assert time.monotonic() - began < 10
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 4
    assert len({trial.last_result["pid"] for trial in analysis.trials}) == 4


def test_a_fresh_process_for_each_trial_if_wanted() -> None:
    analysis = tune.run(patient, config={"x": 1}, num_samples=3, reuse_actors=False, verbose=0)
    assert len({trial.last_result["pid"] for trial in analysis.trials}) == 3


def test_ctrl_c_ends_the_run_and_returns_what_was_reached(tmp_path: Path) -> None:
    code = """
        import threading
        import skate
        from skate import tune

        def train(config):
            pause = threading.Event()
            for step in range(10**6):
                tune.report(loss=1 / (step + 1))
                pause.wait(0.01)

        class Ready(tune.Callback):
            said = False
            def on_trial_result(self, iteration, trials, trial, result, **info):
                if not self.said and result["training_iteration"] == 3:
                    self.said = True
                    print("reporting", flush=True)

        if __name__ == "__main__":
            skate.init(num_cpus=2, engine="native")
            analysis = tune.run(train, config={"x": tune.uniform(0, 1)}, num_samples=10,
                                callbacks=[Ready()])
            print("statuses", [t.stop_reason for t in analysis.trials])
            print("best", analysis.best_result["loss"] < 1, flush=True)
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "reporting" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "statuses ['interrupted', 'interrupted']" in output
    assert "ended by interrupted" in output
    assert "best True" in output
    assert process.returncode == 0
