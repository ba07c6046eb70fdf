"""Runs whose files are damaged: the error names the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

from skate import tune
from skate.cli import main

pytestmark = pytest.mark.usefixtures("inline")


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = checkpoint.to_dict()["step"] if checkpoint else 0
    for step in range(begin + 1, 4):
        if step == 3 and begin == 0:
            raise ValueError("once")
        tune.report({"loss": step}, checkpoint=tune.Checkpoint.from_dict({"step": step}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    analysis = tune.run(
        train,
        name="run",
        storage_path=tmp_path,
        num_samples=2,
        raise_on_failed_trial=False,
        verbose=0,
    )
    return Path(analysis.experiment_path)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def junk(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\n{}\n[1]\n")


def another_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps([1, 2]))


def a_list(file: Path) -> None:
    file.write_bytes(b"[1]\n")


@pytest.mark.parametrize("damage", [cut, junk, another_pickle])
@pytest.mark.parametrize("name", ["experiment_state.pkl", "tuner.pkl"])
def test_a_damaged_state_is_named(path: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(path / name)
    with pytest.raises(tune.TuneError, match=rf"cannot be resumed, .*{name} cannot be read"):
        tune.Tuner.restore(path, train).fit()


@pytest.mark.parametrize("damage", [junk, a_list, cut])
def test_damaged_results_do_not_keep_a_run_from_going_on(
    path: Path, damage: Callable[[Path], None]
) -> None:
    for file in path.glob("*/result.json"):
        damage(file)
    again = tune.Tuner.restore(path, train, resume_errored=True).fit()
    assert again.num_errors == 0
    assert [result.metrics["loss"] for result in again if result.metrics] == [3, 3]
    tune.ExperimentAnalysis(path)


@pytest.mark.parametrize("damage", [junk, a_list])
@pytest.mark.parametrize("name", ["*/result.json", "*/params.json", "run.jsonl"])
def test_tools_name_what_is_damaged(path: Path, name: str, damage: Callable[[Path], None]) -> None:
    for file in path.glob(name):
        damage(file)
    with pytest.raises(tune.TuneError, match=rf"{name.removeprefix('*/')} is damaged"):
        tune.ExperimentAnalysis(path)
    runner = click.testing.CliRunner()
    shown = runner.invoke(main, ["tune", "show", str(path)])
    assert shown.exit_code == 1
    assert "is damaged" in shown.output
    listed = runner.invoke(main, ["tune", "ls", str(path.parent)], catch_exceptions=False)
    assert "run" in listed.output
    assert ("damaged" in listed.output) == (name == "run.jsonl")
