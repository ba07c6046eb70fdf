"""Replaying what a population has found."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from climbing import climb
from scheduler_board import Board

from skate import tune
from skate.tune.error import TuneError
from skate.tune.schedulers import (
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
    TrialScheduler,
)
from skate.tune.schedulers.pbt_replay import Change
from skate.tune.schedulers.trial_scheduler import Exploit
from skate.tune.trial import Trial

GO = TrialScheduler.CONTINUE


def policy(folder: Path, *entries: list[Any]) -> Path:
    path = folder / "pbt_policy_t.txt"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture
def two_changes(tmp_path: Path) -> Path:
    return policy(
        tmp_path,
        ["a", "x", 4, 4, {"lr": 9}, {"lr": 8}],  # overwritten by what came next
        ["b", "c", 4, 5, {"lr": 1}, {"lr": 2}],
        ["a", "b", 8, 10, {"lr": 2}, {"lr": 3}],
    )


def test_a_policy_is_the_chain_that_led_to_its_trial(two_changes: Path) -> None:
    replay = PopulationBasedTrainingReplay(two_changes)
    assert replay.config == {"lr": 1}
    assert replay.changes == [Change(5, {"lr": 2}), Change(10, {"lr": 3})]


def test_one_trial_goes_through_all_configurations(two_changes: Path) -> None:
    replay = PopulationBasedTrainingReplay(two_changes)
    board = Board(replay, total=1)
    trial = board.add(steps=12)
    assert trial.config == {"steps": 12, "lr": 1}
    assert replay.next_decision(trial) == {"training_iteration": 5}
    assert board.report(trial, 4, 1.0) == GO
    change = board.report(trial, 5, 1.0)
    assert isinstance(change, Exploit)
    assert change.source is trial
    assert change.config == {"steps": 12, "lr": 2}
    twin = PopulationBasedTrainingReplay(two_changes)
    twin.set_state(pickle.loads(pickle.dumps(replay.get_state())))
    assert twin.next_decision(trial) == {"training_iteration": 10}
    assert isinstance(board.report(trial, 11, 1.0), Exploit)
    assert replay.next_decision(trial) == {}
    assert board.report(trial, 12, 1.0) == GO
    assert replay.debug_string().endswith("2 of 2 changes made")
    with pytest.raises(ValueError, match="replays one trial"):
        board.add()


def test_a_resumed_trial_goes_on_with_what_is_due(two_changes: Path) -> None:
    replay = PopulationBasedTrainingReplay(two_changes)
    board = Board(replay)
    trial = board.add()
    board.report(trial, 5, 1.0)
    board.report(trial, 10, 1.0)
    assert trial.config == {"lr": 3}
    assert trial.checkpoint is not None
    trial.checkpoint.iteration = 7
    replay.on_trial_add(board, trial)
    assert trial.config == {"lr": 2}
    assert replay.next_decision(trial) == {"training_iteration": 10}
    trial.checkpoint = None
    replay.on_trial_add(board, trial)
    assert trial.config == {"lr": 1}


def test_a_trial_without_checkpoints_is_told_so(two_changes: Path) -> None:
    board = Board(PopulationBasedTrainingReplay(two_changes))
    board.saves = False
    trial = board.add()
    assert [board.report(trial, step, 1.0) for step in (5, 6)] == [GO, GO]
    with pytest.raises(TuneError, match=r"has no checkpoint: report one with tune.report"):
        board.report(trial, 7, 1.0)


def test_files_that_are_no_policies(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="log_config=True"):
        PopulationBasedTrainingReplay(tmp_path / "nothing.txt")
    with pytest.raises(ValueError, match="never changed"):
        PopulationBasedTrainingReplay(policy(tmp_path))
    with pytest.raises(ValueError, match=r"line 1 of .* is no step"):
        PopulationBasedTrainingReplay(policy(tmp_path, ["a", "b"]))
    (tmp_path / "x.txt").write_text("hello\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is no step"):
        PopulationBasedTrainingReplay(tmp_path / "x.txt")


def test_a_replay_has_the_score_of_the_trial_of_the_population(engine: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "stop": {"training_iteration": 24},
        "metric": "score",
        "mode": "max",
        "verbose": 0,
    }
    scheduler = PopulationBasedTraining(
        "training_iteration",
        perturbation_interval=4,
        hyperparam_mutations={"x": tune.uniform(0, 1)},
        synch=True,  # somebody is the worst, however fast each of them is
    )
    population = tune.run(
        climb,
        num_samples=4,
        scheduler=scheduler,
        storage_path=str(tmp_path),
        name="population",
        **options,
    )
    path = max((tmp_path / "population").glob("pbt_policy_*.txt"), key=lambda p: len(p.read_text()))
    name = path.stem.removeprefix("pbt_policy_")
    (model,) = [trial for trial in population.trials if trial.trial_id == name]
    (trial,) = tune.run(climb, scheduler=PopulationBasedTrainingReplay(path), **options).trials
    assert trial.status == Trial.TERMINATED
    assert trial.history.column("training_iteration") == list(range(1, 25))
    assert trial.last_result["score"] == pytest.approx(model.last_result["score"])
    assert trial.config == model.config
