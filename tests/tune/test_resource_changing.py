"""Trials that get more resources, or fewer, while they run."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from scheduler_board import Board

from skate import tune
from skate.tune.schedulers import (
    ASHAScheduler,
    DistributeResources,
    DistributeResourcesToTopJob,
    HyperBandForBOHB,
    PopulationBasedTraining,
    ResourceChangingScheduler,
    TrialScheduler,
)
from skate.tune.schedulers.trial_scheduler import Resize
from skate.tune.trial import Trial

GO = TrialScheduler.CONTINUE


def make(distribution: Any = None, count: int = 2, cpus: float = 8, **more: Any) -> Board:
    board = Board(ResourceChangingScheduler(None, distribution), total=count)
    board.total_resources = {"CPU": cpus, **more}
    for _ in range(count):
        board.add()
    return board


def cpus(trial: Trial) -> list[float]:
    return [bundle["CPU"] for bundle in trial.resources.bundles]


def test_equal_shares_grow_as_trials_end() -> None:
    board = make(count=4)
    for trial in board.trials:
        assert isinstance(board.report(trial, 1, 1.0), Resize)
        assert cpus(trial) == [2]
        assert board.report(trial, 2, 1.0) == GO
    board.end(board.trials[0])
    board.end(board.trials[1])
    # The others wait at their next report to get theirs.
    assert board.scheduler.next_decision(board.trials[2]) is None
    board.report(board.trials[2], 3, 1.0)
    board.report(board.trials[3], 3, 1.0)
    assert [cpus(trial) for trial in board.trials[2:]] == [[4], [4]]
    assert board.scheduler.next_decision(board.trials[2]) == {}


def test_trials_that_are_still_to_come_have_their_share() -> None:
    board = make(count=2, cpus=8)
    board.total = 8
    assert board.report(board.trials[0], 1, 1.0) == GO
    board.total = None  # nobody knows how many
    assert board.report(board.trials[0], 2, 1.0) == GO


def test_steps_bundles_limits_and_reserves() -> None:
    board = make(DistributeResources(add_bundles=True), count=2, cpus=6)
    board.report(board.trials[0], 1, 1.0)
    assert cpus(board.trials[0]) == [1, 1, 1]
    board = make(DistributeResources(increase_by={"CPU": 2}), count=2, cpus=8)
    board.report(board.trials[0], 1, 1.0)
    assert cpus(board.trials[0]) == [3]
    board = make(DistributeResources(increase_by_times=1), count=2, cpus=8)
    board.report(board.trials[0], 1, 1.0)
    assert cpus(board.trials[0]) == [2]
    board = make(DistributeResources(reserve_resources={"CPU": 4}), count=2, cpus=8)
    board.report(board.trials[0], 1, 1.0)
    assert cpus(board.trials[0]) == [2]
    board = make(DistributeResources(increase_by={"CPU": 1, "GPU": 1}), cpus=8, GPU=2)
    board.report(board.trials[0], 1, 1.0)
    assert board.trials[0].resources.head == {"CPU": 2, "GPU": 1}
    with pytest.raises(ValueError, match="adds nothing"):
        DistributeResources(increase_by={"CPU": 0})


def test_the_best_trial_gets_what_is_free() -> None:
    board = make(DistributeResourcesToTopJob(), count=3, cpus=8)
    first, second, third = board.trials
    board.report(first, 1, 1.0)
    assert cpus(first) == [6]
    board.report(second, 1, 2.0)  # better, but nothing is free yet
    assert cpus(second) == [1]
    board.report(first, 2, 1.0)
    assert cpus(first) == [1]
    board.report(second, 2, 2.0)
    assert cpus(second) == [6]
    assert board.report(third, 1, 0.0) == GO
    least = make(DistributeResourcesToTopJob(metric="loss", mode="min"), count=2, cpus=4)
    least.report(least.trials[0], 1, 9.0, loss=2.0)
    least.report(least.trials[1], 1, 0.0, loss=3.0)
    assert [cpus(trial) for trial in least.trials] == [[3], [1]]


def test_a_trial_without_checkpoints_keeps_what_it_has() -> None:
    board = make(count=1, cpus=4)
    board.saves = False
    trial = board.trials[0]
    for step in (1, 2, 3):
        assert board.report(trial, step, 1.0) == GO
        assert board.scheduler.next_decision(trial) is None
    with pytest.warns(UserWarning, match="no checkpoint to go on from"):
        assert board.report(trial, 4, 1.0) == GO
    assert board.scheduler.next_decision(trial) == {}


def test_the_other_scheduler_judges() -> None:
    scheduler = ResourceChangingScheduler(ASHAScheduler(max_t=9, grace_period=1))
    board = Board(scheduler, total=2)
    board.total_resources = {"CPU": 8}
    good = board.add()
    assert scheduler.next_decision(good) == {"training_iteration": 1}
    bad = board.add()
    assert scheduler.next_decision(good) is None  # there are no more to come
    assert isinstance(board.report(good, 1, 2.0), Resize)
    assert board.report(bad, 1, 1.0) == TrialScheduler.STOP
    assert "resources changed 1 times | arrived at rungs: 2 at 1" in scheduler.debug_string()


def test_it_goes_with_what_the_other_scheduler_goes_with() -> None:
    population = PopulationBasedTraining(hyperparam_mutations={"x": [1, 2]})
    wrapped = ResourceChangingScheduler(population)
    assert not wrapped.works_with_searchers
    assert wrapped.changes_config
    assert ResourceChangingScheduler(HyperBandForBOHB()).only_searchers == ("TuneBOHB",)
    with pytest.raises(TypeError, match="wants a TrialScheduler"):
        ResourceChangingScheduler("asha")  # type: ignore[arg-type]  # the mistake under test


def test_own_functions_say_what_a_trial_gets() -> None:
    def allocate(
        controller: Any, trial: Trial, result: Any, scheduler: ResourceChangingScheduler
    ) -> dict[str, float] | None:
        return {"cpu": 3} if result["training_iteration"] == 2 else None

    board = make(allocate, count=1)
    assert board.report(board.trials[0], 1, 1.0) == GO
    assert isinstance(board.report(board.trials[0], 2, 1.0), Resize)
    assert cpus(board.trials[0]) == [3]
    assert board.report(board.trials[0], 3, 1.0) == GO
    with pytest.raises(TypeError, match="resources_per_trial wants a dict"):
        make(lambda *_: 3, count=1).report(board.trials[0], 1, 1.0)


def test_state_has_that_of_the_other_scheduler() -> None:
    def fresh() -> ResourceChangingScheduler:
        return ResourceChangingScheduler(ASHAScheduler(max_t=9, grace_period=1))

    board = Board(fresh(), total=3)
    for score in (3.0, 2.0):
        board.report(board.add(), 1, score)
    twin = Board(fresh(), total=3)
    twin.scheduler.set_state(pickle.loads(pickle.dumps(board.scheduler.get_state())))
    twin.trials = list(board.trials)
    assert twin.scheduler.debug_string() == board.scheduler.debug_string()
    assert twin.report(twin.add(), 1, 2.5) == TrialScheduler.STOP


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = checkpoint.to_dict()["step"] if checkpoint else 0
    resources = tune.get_context().get_trial_resources()
    assert resources is not None
    for step in range(begin + 1, config["steps"] + 1):
        checkpoint = tune.Checkpoint.from_dict({"step": step})
        tune.report({"step": step, "cpus": resources.head["CPU"]}, checkpoint=checkpoint)


class Worker(tune.Trainable):
    """Reports what it runs with."""

    def setup(self, config: dict[str, Any]) -> None:
        self.steps = 0

    def step(self) -> dict[str, Any]:
        self.steps += 1
        resources = self.trial_resources
        assert resources is not None
        return {
            "step": self.steps,
            "cpus": resources.head["CPU"],
            "done": self.steps >= self.config["steps"],
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"step": self.steps}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.steps = checkpoint["step"]


@pytest.mark.parametrize("trainable", [train, Worker])
def test_a_whole_run(engine: str, trainable: Any) -> None:
    analysis = tune.run(
        trainable,
        config={"steps": 40},
        scheduler=ResourceChangingScheduler(),
        metric="step",
        mode="max",
        verbose=0,
    )
    (trial,) = analysis.trials
    assert trial.status == Trial.TERMINATED
    assert trial.history.column("step") == list(range(1, 41))
    # It is alone on two CPUs, and starts with one.
    assert trial.history.column("cpus")[0] == 1
    assert trial.history.column("cpus")[-1] == 2
