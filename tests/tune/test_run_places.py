"""Runs that are kept at a URL, read back: during the run, after it, and by ``skate tune``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
from s3_server import serving
from sessions import at_hand

from skate import tune
from skate.cli import main
from skate.tune.storage import open_storage

PLACE = "s3://runs/all"


def skate_tune(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["tune", *arguments], catch_exceptions=False)


def train(config: dict[str, Any]) -> None:
    for step in range(1, 4):
        if config["x"] == 2 and step == 2:
            raise ValueError("two")
        tune.report(
            {"loss": config["x"] + 1 / step}, checkpoint=tune.Checkpoint.from_dict({"step": step})
        )


class States(tune.Callback):
    """What ``skate tune ls`` says about the run while it goes on."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if not self.seen:
            rows = json.loads(skate_tune("ls", PLACE, "--json").output)
            self.seen += [row["state"] for row in rows]


@pytest.fixture(scope="module")
def states() -> States:
    return States()


@pytest.fixture(scope="module")
def analysis(
    states: States, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tune.ExperimentAnalysis]:
    at_hand(num_cpus=2, engine="inline")
    folder = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as monkeypatch, serving(folder, "runs", monkeypatch):
        monkeypatch.setenv("SKATE_RESULTS_DIR", str(folder / "local"))
        yield tune.run(
            train,
            name="first",
            config={"x": tune.grid_search([0, 1, 2])},
            metric="loss",
            mode="min",
            raise_on_failed_trial=False,
            verbose=0,
            storage_path=PLACE,
            callbacks=[states],
        )


def test_ls(
    analysis: tune.ExperimentAnalysis, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states.seen == ["running"]
    (row,) = json.loads(skate_tune("ls", PLACE + "/", "--json").output)
    assert row["path"] == f"{PLACE}/first"
    assert (row["state"], row["trials"], row["ended"], row["failed"]) == ("ended", 3, 3, 1)
    assert row["best"] == pytest.approx(1 / 3)
    # The folder of one run, and one where nothing is.
    assert json.loads(skate_tune("ls", f"{PLACE}/first", "--json").output) == [row]
    assert skate_tune("ls", f"{PLACE}/no").output == f"no runs in {PLACE}/no\n"
    monkeypatch.setenv("SKATE_RESULTS_DIR", PLACE)
    assert skate_tune("ls").output.splitlines()[1].startswith("first  ended  3 ")


def test_a_run_whose_driver_died(analysis: tune.ExperimentAnalysis) -> None:
    first, other = open_storage(f"{PLACE}/first"), open_storage("s3://runs/other/cut")
    log, state = first.read("run.jsonl"), first.read("experiment_state.json")
    assert log is not None
    assert state is not None
    lines = [{**json.loads(line), "time": 1e9} for line in log.splitlines()]
    other.write("run.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines[:-1]).encode())
    other.write("experiment_state.json", state)
    assert json.loads(skate_tune("ls", "s3://runs/other", "--json").output)[0]["state"] == "running"
    old = {**json.loads(state), "updated": 1e9}
    other.write("experiment_state.json", json.dumps(old).encode())
    assert json.loads(skate_tune("ls", "s3://runs/other", "--json").output)[0]["state"] == "cut off"


def test_show(analysis: tune.ExperimentAnalysis) -> None:
    output = skate_tune("show", f"{PLACE}/first").output
    assert output.startswith("first: ended, 3 trials, 1 failed")
    assert output == skate_tune("show", "first", "--folder", PLACE).output
    rows = json.loads(skate_tune("show", f"{PLACE}/first", "--json").output)
    assert [row["x"] for row in rows] == [0, 1, 2]
    shown = json.loads(skate_tune("show", f"{PLACE}/first", "00002", "--json").output)
    trial = analysis.trials[2]
    assert shown["path"] == f"{PLACE}/first/{trial.trial_id}"
    assert shown["checkpoint"] == f"{PLACE}/first/{trial.trial_id}/checkpoint_000000"
    assert "ValueError: two" in shown["error"]
    for url in (f"{PLACE}/nothing", "s3://nowhere/run"):
        missing = skate_tune("show", url)
        assert missing.exit_code == 1
        assert url in missing.output


def test_export(analysis: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(skate_tune("export", f"{PLACE}/first").output)))
    assert [row["config/x"] for row in rows] == ["0", "1", "2"]
    target = tmp_path / "reports.json"
    skate_tune("export", "first", "--folder", PLACE, "-o", str(target), "--reports")
    assert len(json.loads(target.read_text())) == 3 + 3 + 1


def test_results(analysis: tune.ExperimentAnalysis) -> None:
    again = tune.ExperimentAnalysis(f"{PLACE}/first")
    assert again.experiment_path == analysis.experiment_path == f"{PLACE}/first"
    assert again.best_config == {"x": 0}
    assert again.best_logdir == f"{PLACE}/first/{analysis.trials[0].trial_id}"
    assert again.best_trial is not None
    last = again.get_last_checkpoint(again.best_trial)
    assert last is not None
    assert last.to_dict() == {"step": 3}
    result = tune.Result.from_path(again.best_logdir)
    assert result.metrics is not None
    assert result.metrics["loss"] == pytest.approx(1 / 3)
    assert result.checkpoint is not None
    assert result.checkpoint.to_dict() == {"step": 3}
    with pytest.raises(tune.TuneError, match=rf"no trial of Tune in|at {PLACE}/first/none"):
        tune.Result.from_path(f"{PLACE}/first/none")
