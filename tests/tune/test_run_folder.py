"""The folder of a run, read back: after it, during it, after a crash, and by ``skate tune``."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click.testing
import pytest
from sessions import at_hand

from skate import tune
from skate.cli import main
from skate.tune.run_folder import find_runs, load_trial, read_log
from skate.tune.run_places import load
from skate.tune.schedulers import ASHAScheduler, HyperBandScheduler
from skate.tune.trial import Trial


def train(config: dict[str, Any]) -> None:
    for step in range(1, 10):
        if config["x"] == 4 and step == 3:
            raise ValueError("four")
        tune.report(loss=config["x"] + 1 / step, nested={"step": step})


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> tune.ExperimentAnalysis:
    at_hand(num_cpus=2, engine="inline")
    return tune.run(
        train,
        name="first",
        config={"x": tune.grid_search([1, 3, 0, 4, 2]), "constant": {"a": 1}},
        scheduler=ASHAScheduler(max_t=9, grace_period=4),
        max_concurrent_trials=1,
        metric="loss",
        mode="min",
        raise_on_failed_trial=False,
        verbose=0,
        storage_path=tmp_path_factory.mktemp("results"),
    )


def skate_tune(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["tune", *arguments], catch_exceptions=False)


def test_a_run_that_is_over(analysis: tune.ExperimentAnalysis) -> None:
    again = tune.ExperimentAnalysis(analysis.experiment_path)
    assert again.best_config == analysis.best_config == {"x": 0, "constant": {"a": 1}}
    assert (again.default_metric, again.default_mode) == ("loss", "min")
    for one, other in zip(analysis.trials, again.trials, strict=True):
        assert one.trial_id == other.trial_id
        assert (one.status, one.stop_reason) == (other.status, other.stop_reason)
        assert one.evaluated_params == other.evaluated_params
        assert one.history.column("loss") == other.history.column("loss")
        assert other.history.column("nested/step") == one.history.column("nested/step")
    assert "ValueError: four" in str(again.experiment.failed[0].error)
    assert again.dataframe().shape[0] == 5


def test_without_the_log_the_files_of_trials_are_enough(
    analysis: tune.ExperimentAnalysis, tmp_path: Path
) -> None:
    for trial in analysis.trials:
        assert trial.local_path is not None
        folder = tmp_path / f"train_{trial.trial_id}_of_another_name"
        folder.mkdir()
        for name in ("params.json", "progress.csv", "error.txt"):
            if (trial.local_path / name).exists():
                (folder / name).write_bytes((trial.local_path / name).read_bytes())
    again = tune.ExperimentAnalysis(tmp_path, default_metric="loss", default_mode="min")
    assert read_log(tmp_path).state == "unknown"
    assert again.best_config == analysis.best_config
    assert {trial.trial_id: trial.status for trial in again.trials} == {
        trial.trial_id: trial.status for trial in analysis.trials
    }
    assert again.trials[0].evaluated_params == {"x": 1}


@pytest.mark.parametrize("trial_id", ["518407_00000", "51840700", "518e0700"])
def test_ids_that_look_like_numbers_are_none(tmp_path: Path, trial_id: str) -> None:
    (tmp_path / "params.json").write_text("{}")
    lines = ["trial_id,loss,label", f"{trial_id},0.5,1_000"]
    (tmp_path / "progress.csv").write_text("\n".join(lines))
    trial, _ = load_trial(tmp_path)
    assert trial.trial_id == trial_id
    assert trial.last_result["trial_id"] == trial_id
    assert trial.last_result["loss"] == 0.5
    assert trial.last_result["label"] == "1_000"


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(tune.TuneError, match="no run of Tune in"):
        load(tmp_path)
    with pytest.raises(tune.TuneError, match=r"no params\.json"):
        load_trial(tmp_path)
    assert find_runs(tmp_path / "nowhere") == []


def test_a_trial_from_its_folder(analysis: tune.ExperimentAnalysis) -> None:
    path = analysis.best_logdir
    assert path is not None
    result = tune.Result.from_path(path)
    assert result.config == analysis.best_config
    assert result.metrics is not None
    assert result.metrics["loss"] == pytest.approx(1 / 9)
    assert list(result.metrics_dataframe["nested/step"]) == list(range(1, 10))
    assert result.checkpoint is None


class Counts(tune.Trainable):
    """Has a checkpoint whenever it is asked for one."""

    def setup(self, config: dict[str, Any]) -> None:
        self.count = 0

    def step(self) -> dict[str, Any]:
        self.count += 1
        return {"loss": abs(self.count - 3), "done": self.count == 5}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"count": self.count}


@pytest.mark.usefixtures("inline")
def test_checkpoints_have_the_metrics_that_they_came_with(tmp_path: Path) -> None:
    analysis = tune.run(
        Counts,
        name="counts",
        storage_path=tmp_path,
        metric="loss",
        mode="min",
        verbose=0,
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=3, checkpoint_at_end=True),
    )
    again = tune.ExperimentAnalysis(analysis.experiment_path)
    (trial,) = again.trials
    for each in (analysis, again):
        best = each.get_best_checkpoint(each.trials[0])
        assert best is not None
        assert best.to_dict()["count"] == 3
    assert [value for _, value in again.get_trial_checkpoints_paths(trial)] == [0, 2]
    result = tune.Result.from_path(trial.path or "")
    metrics = [metrics["training_iteration"] for _, metrics in result.best_checkpoints]
    assert metrics == [3, 5]
    best = result.get_best_checkpoint("loss", "min")
    assert best is not None
    assert best.to_dict()["count"] == 3
    # Without the state of the run nobody knows which report a checkpoint came with.
    (tmp_path / "counts" / "experiment_state.json").unlink()
    assert [metrics for _, metrics in tune.Result.from_path(trial.path or "").best_checkpoints] == [
        {},
        {},
    ]


def test_half_a_line_is_no_line(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / "params.json").write_text('{"x": 1}')
    (folder / "result.json").write_text('{"loss": 1.0}\n{"loss": 2.0}\n{"los')
    trial, _ = load_trial(folder)
    assert trial.history.column("loss") == [1.0, 2.0]


SCRIPT = """
import sys, time
from skate import tune

def train(config):
    for step in range(3):
        tune.report(loss=config["x"] + step)
    if config["x"] == 2:
        print("waits", flush=True)
        time.sleep(600)

tune.run(train, config={"x": tune.grid_search([1, 2])}, name="slow", storage_path=sys.argv[1],
         max_concurrent_trials=1, verbose=0)
"""


@pytest.mark.timeout(180)
def test_a_run_that_goes_on_and_one_that_was_killed(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdin=subprocess.DEVNULL
    )
    try:
        folder = tmp_path / "slow"
        deadline = time.monotonic() + 120
        while True:
            log = read_log(folder) if folder.is_dir() else None
            reported = [t.iterations for t in load(folder).trials] if log and log.trials else []
            if reported == [3, 3]:
                break
            assert time.monotonic() < deadline, reported
            assert driver.poll() is None
            time.sleep(0.05)
        assert log is not None
        assert log.state == "running"
        assert [trial.status for trial in load(folder).trials] == ["TERMINATED", "RUNNING"]
        shown = skate_tune("show", str(folder)).output
        assert shown.startswith("slow: running, 2 trials, 1 running")
        assert "running" in skate_tune("ls", str(tmp_path)).output
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert read_log(folder).state == "cut off"
    assert [trial.stop_reason for trial in load(folder).trials] == ["completed", "interrupted"]
    assert skate_tune("show", str(folder)).output.startswith("slow: cut off, 2 trials")


class Shown(tune.Callback):
    """Asks ``skate tune`` at each turn of a run how its trials stand, and keeps what is new."""

    def setup(self, **info: Any) -> None:
        self.path = str(info["path"])
        self.heads: list[str] = []
        self.statuses: list[dict[str, str]] = []
        self.truths: list[dict[str, str]] = []

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        truths = {trial.trial_id: trial.status for trial in trials}
        if truths in self.truths:
            return
        self.truths.append(truths)
        self.heads.append(skate_tune("show", self.path).output.splitlines()[0])
        rows = json.loads(skate_tune("show", self.path, "--json").output)
        self.statuses.append({row["trial"]: row["status"] for row in rows})


def stepwise(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 10):
        tune.report(
            {"loss": config["x"] + 1 / step}, checkpoint=tune.Checkpoint.from_dict({"step": step})
        )


@pytest.mark.usefixtures("inline")
def test_trials_that_are_paused_are_shown_as_such(tmp_path: Path) -> None:
    shown = Shown()
    tune.run(
        stepwise,
        name="paused",
        config={"x": tune.grid_search(list(range(9)))},
        scheduler=HyperBandScheduler(max_t=9),
        max_concurrent_trials=1,
        metric="loss",
        mode="min",
        verbose=0,
        storage_path=tmp_path,
        callbacks=[shown],
    )
    assert any("PAUSED" in truths.values() for truths in shown.truths)
    for truths, statuses, head in zip(shown.truths, shown.statuses, shown.heads, strict=True):
        # Those that ended while they waited are told of with the next turn.
        words = {id_: truths[id_].lower() for id_ in statuses if truths[id_] != "TERMINATED"}
        assert {id_: statuses[id_] for id_ in words} == words
        paused = list(statuses.values()).count("paused")
        assert (f", {paused} paused" in head) == bool(paused)
    assert "paused" not in skate_tune("show", str(tmp_path / "paused"), "--json").output


def test_ls(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    storage = str(Path(analysis.experiment_path).parent)
    lines = skate_tune("ls", storage).output.splitlines()
    assert lines[0] == "NAME   STATE  TRIALS  ENDED  FAILED  BEST    METRIC  BEGAN"
    assert lines[1].split()[:7] == ["first", "ended", "5", "5", "1", "0.1111", "loss"]
    rows = json.loads(skate_tune("ls", storage, "--json").output)
    assert rows[0]["path"] == analysis.experiment_path
    assert rows[0]["best"] == pytest.approx(1 / 9)
    assert skate_tune("ls", str(tmp_path)).output == f"no runs in {tmp_path}\n"


def test_show(analysis: tune.ExperimentAnalysis) -> None:
    path = Path(analysis.experiment_path)
    output = skate_tune("show", "first", "--folder", str(path.parent)).output.splitlines()
    assert output[0].startswith("first: ended, 5 trials, 2 stopped early, 1 failed, ")
    assert output[1].startswith("best loss (min): 0.111111 in ")
    assert output[2].split() == ["TRIAL", "STATUS", "LOSS", "ITER", "TIME_S", "X"]
    assert [line.split()[-1] for line in output[3:]] == ["0", "1", "2", "3", "4"]
    rows = json.loads(skate_tune("show", str(path), "--json", "--mode", "max").output)
    assert [row["x"] for row in rows] == [4, 3, 2, 1, 0]
    assert rows[0]["status"] == "failed"


def test_show_one_trial(analysis: tune.ExperimentAnalysis) -> None:
    path = analysis.experiment_path
    output = skate_tune("show", path, "00003").output
    assert 'status: "failed"' in output
    assert "ValueError: four" in output
    shown = json.loads(skate_tune("show", path, "00002", "--json").output)
    assert shown["config"] == {"x": 0, "constant": {"a": 1}}
    assert len(shown["curves"]["loss"]) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no run in"),
        (["first", "9"], "has no trial '9'"),
        (["first", "--metric", "acc"], "no trial reported 'acc'"),
    ],
)
def test_what_is_not_there(
    analysis: tune.ExperimentAnalysis, arguments: list[str], message: str
) -> None:
    folder = str(Path(analysis.experiment_path).parent)
    result = skate_tune("show", *arguments, "--folder", folder)
    assert result.exit_code == 1
    assert message in result.output


def test_export(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    path = analysis.experiment_path
    rows = list(csv.DictReader(io.StringIO(skate_tune("export", path).output)))
    assert [row["config/x"] for row in rows] == ["1", "3", "0", "4", "2"]
    assert [row["status"] for row in rows].count(Trial.ERROR) == 1
    target = tmp_path / "reports.json"
    skate_tune("export", path, "-o", str(target), "--reports")
    reports = json.loads(target.read_text())
    assert len(reports) == sum(trial.iterations for trial in analysis.trials)
    assert reports[0]["nested/step"] == 1
    assert reports[0]["training_iteration"] == 1
    assert skate_tune("export", path, "-o", str(tmp_path / "x.doc")).exit_code == 2


def test_export_pictures(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = analysis.experiment_path
    skate_tune("export", path, "-o", str(tmp_path / "page.html"), "--metric", "nested/step")
    assert "nested/step" in (tmp_path / "page.html").read_text()
    skate_tune("export", path, "-o", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("inline")
def test_a_run_in_the_folder_of_one_that_goes_on_does_not_begin(tmp_path: Path) -> None:
    """Two that resume the same run would both run its trials, in the same folders."""
    options: dict[str, Any] = {"name": "twice", "storage_path": tmp_path, "verbose": 0}

    class Another(tune.Callback):
        def on_trial_start(self, *args: Any, **info: Any) -> None:
            with pytest.raises(tune.TuneError, match=r"another run goes on in .*twice"):
                tune.run(lambda config: {"loss": 2.0}, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune.run(lambda config: {"loss": 1.0}, callbacks=[Another()], **options)
        tune.run(lambda config: {"loss": 3.0}, **options)
