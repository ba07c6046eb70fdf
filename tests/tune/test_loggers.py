"""Loggers, each against the real library; MLflow against a real server."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.air.integrations.mlflow import setup_mlflow
from skate.air.integrations.wandb import setup_wandb
from skate.tune.logger import (
    CSVLoggerCallback,
    JsonLoggerCallback,
    LoggerCallback,
    MLflowLoggerCallback,
    WandbLoggerCallback,
)

pytestmark = pytest.mark.usefixtures("inline")


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 4):
        if step == 3 and config["x"] == 1 and begin == 0:
            raise ValueError("once")
        tune.report(
            {"loss": config["x"] + 1 / step, "valid": {"acc": 0.5}},
            checkpoint=tune.Checkpoint.from_dict({"step": step}),
        )
    if config["x"] == 2:
        raise ValueError("for good")


def run(folder: Path, *callbacks: tune.Callback) -> tune.ExperimentAnalysis:
    return tune.run(
        train,
        config={"x": tune.grid_search([0, 1, 2]), "nested": {"a b:c": "text"}},
        storage_path=folder,
        name="run",
        callbacks=callbacks,
        max_failures=1,
        raise_on_failed_trial=False,
        verbose=0,
    )


def test_what_happens_to_a_trial(tmp_path: Path) -> None:
    class Log(LoggerCallback):
        def __init__(self) -> None:
            super().__init__()
            self.events: dict[str, list[str]] = {}

        def note(self, trial: Any, event: str) -> None:
            self.events.setdefault(trial.trial_id[-1], []).append(event)

        def log_trial_start(self, trial: Any) -> None:
            self.note(trial, "start")

        def log_trial_restart(self, trial: Any) -> None:
            self.note(trial, "restart")

        def log_trial_result(self, iteration: int, trial: Any, result: Any) -> None:
            self.note(trial, str(result["training_iteration"]))

        def log_trial_end(self, trial: Any, failed: bool = False) -> None:
            self.note(trial, "failed" if failed else "end")

    log = Log()
    run(tmp_path, log, CSVLoggerCallback(), JsonLoggerCallback())
    assert log.events == {
        "0": ["start", "1", "2", "3", "end"],
        "1": ["start", "1", "2", "restart", "3", "end"],
        "2": ["start", "1", "2", "3", "restart", "failed"],
    }


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "mlflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "mlflow.server.fastapi_app:app",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            stdout=file,
            stderr=file,
            env={
                **os.environ,
                "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{tmp_path}/mlflow.db",
                "_MLFLOW_SERVER_ARTIFACT_ROOT": str(tmp_path / "artifacts"),
                "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
            },
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 100
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=30):
                break
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                pytest.fail(f"the server does not start: {log.read_text()}")
            time.sleep(0.1)
    yield url
    process.kill()
    process.wait()


@pytest.mark.timeout(200)
def test_mlflow(tmp_path: Path, mlflow_server: str) -> None:
    from mlflow.tracking import MlflowClient

    callback = MLflowLoggerCallback(mlflow_server, experiment_name="tuned", tags={"team": "a"})
    analysis = run(tmp_path, callback)
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("tuned")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {trial.trial_id for trial in analysis.trials}
    for trial in analysis.trials:
        logged = runs[trial.trial_id]
        assert logged.info.status == ("FAILED" if trial.status == "ERROR" else "FINISHED")
        assert logged.data.params["x"] == str(trial.config["x"])
        assert logged.data.params["nested/a b_c"] == "text"
        assert logged.data.tags["team"] == "a"
        history = client.get_metric_history(logged.info.run_id, "loss")
        assert {point.step: point.value for point in history} == pytest.approx(
            {1: trial.config["x"] + 1.0, 2: trial.config["x"] + 0.5, 3: trial.config["x"] + 1 / 3}
        )


@pytest.mark.timeout(200)
def test_mlflow_within_trials(tmp_path: Path, mlflow_server: str) -> None:
    from mlflow.tracking import MlflowClient

    def train(config: dict[str, Any]) -> None:
        mlflow = setup_mlflow(config, mlflow_server, tags={"team": "a"})
        for step in range(2):
            mlflow.log_metric("loss", config["x"] + step, step=step)
        if config["x"] == 1:
            mlflow.end_run()  # it may do that itself
        tune.report(loss=1.0)
        if config["x"] == 2:
            raise ValueError("no")

    analysis = tune.run(
        train,
        config={"x": tune.grid_search([0, 1, 2]), "nested": {"y": 3}},
        storage_path=tmp_path,
        name="the run",
        raise_on_failed_trial=False,
        verbose=0,
    )
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("the run")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {trial.trial_id for trial in analysis.trials}
    for trial in analysis.trials:
        logged = runs[trial.trial_id]
        x = trial.config["x"]
        assert logged.info.status == ("FAILED" if x == 2 else "FINISHED")
        assert logged.data.params == {"x": str(x), "nested/y": "3"}
        assert logged.data.metrics == {"loss": x + 1}
        assert logged.data.tags["team"] == "a"
    # Outside of trials, and what is not there.
    with pytest.raises(ValueError, match="wants experiment_name"):
        setup_mlflow({}, mlflow_server)
    with pytest.raises(ValueError, match="no experiment 'other'; create_experiment"):
        setup_mlflow({}, mlflow_server, experiment_name="other")
    with pytest.raises(ValueError, match="no experiment with the id '777'"):
        setup_mlflow({}, mlflow_server, experiment_id="777")
    module = setup_mlflow(None, mlflow_server, experiment_id="777", experiment_name="the run")
    assert module.active_run().info.experiment_id == experiment.experiment_id
    module.end_run()
    created = setup_mlflow(
        {}, mlflow_server, experiment_name="other", create_experiment_if_not_exists=True
    )
    assert client.get_experiment_by_name("other") is not None
    created.end_run()


@pytest.fixture
def offline_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # It reports errors of its own to its makers, from threads that outlive the test.
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield wandb
    wandb.teardown()  # its service would go on until this process ends


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("offline_wandb")
def test_wandb_within_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT_NAME", "from the environment")
    key = tmp_path / "key"
    key.write_text("0" * 40 + "\nnot this\n")
    monkeypatch.setenv("WANDB_API_KEY", "")

    def train(config: dict[str, Any]) -> None:
        run = setup_wandb(config, api_key_file=key, mode="offline")
        assert os.environ["WANDB_API_KEY"] == "0" * 40
        assert (run.group, run.project) == ("run", "from the environment")
        assert run.name == run.id == tune.get_trial_name()
        assert dict(run.config) == {"x": config["x"]}
        run.log({"loss_of_mine": config["x"]})
        tune.report(loss=1.0)

    analysis = tune.run(
        train,
        config={"x": tune.grid_search([0, 1]), "wandb": {"tags": ["a"]}},
        storage_path=tmp_path,
        name="run",
        verbose=0,
    )
    for trial in analysis.trials:
        assert trial.local_path is not None
        (log,) = trial.local_path.glob("wandb/offline-run-*/*.wandb")
        content = log.read_bytes()
        assert b"loss_of_mine" in content
    with pytest.raises(ValueError, match="not both"):
        setup_wandb(api_key="1", api_key_file=key)


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("offline_wandb")
def test_wandb_offline(tmp_path: Path) -> None:
    analysis = run(tmp_path, WandbLoggerCallback("project", mode="offline"))
    for trial in analysis.trials:
        assert trial.local_path is not None
        (folder,) = trial.local_path.glob("wandb/offline-run-*")
        assert folder.name.endswith(trial.trial_id)
        (log,) = folder.glob("*.wandb")
        content = log.read_bytes()
        assert b"loss" in content
        assert b"valid/acc" in content


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("mlflow.tracking", MLflowLoggerCallback, "mlflow"),
        ("wandb", WandbLoggerCallback, "wandb"),
        ("mlflow", setup_mlflow, "mlflow"),
        ("wandb", setup_wandb, "wandb"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Any, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"skate\[{extra}\]"):
        make()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "own",
    [
        {"timestamp": "2026-01-01"},
        {"timestamp": 10**400},
        {"timestamp": None},
        {"training_iteration": math.nan},
        {"training_iteration": -math.inf},
        {"training_iteration": 2**70},
        {"name\udc80": 1.0},
        {"loss": 10**400},
    ],
)
def test_fields_of_ones_own_end_no_run(own: dict[str, Any]) -> None:
    """What a function calls by the names that Skate has need not be what Skate has there."""
    (trial,) = tune.run(
        lambda config: {"loss": 1.0, **own},
        config={"path\udc80": tune.choice(["x\udc80"])},
        scheduler="asha",
        metric="loss",
        mode="min",
        verbose=0,
    ).trials
    assert trial.local_path is not None
    assert [*trial.local_path.glob("events*")]
