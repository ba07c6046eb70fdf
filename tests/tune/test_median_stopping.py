"""The median stopping rule on recorded learning curves, compared with what a pencil finds."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from scheduler_board import Board

from skate import tune
from skate.tune.schedulers import MedianStoppingRule, TrialScheduler

GO, STOP, PAUSE = TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.PAUSE


def make(total: int | None = None, **options: Any) -> Board:
    options = {
        "time_attr": "training_iteration",
        "grace_period": 1,
        "min_samples_required": 2,
        **options,
    }
    return Board(MedianStoppingRule(**options), total)


def test_a_trial_stops_when_its_best_is_below_the_median_of_the_means() -> None:
    board = make()
    curves = {"a": [2, 4, 6], "b": [4, 4, 4], "c": [6, 2, 10]}
    for curve in curves.values():
        trial = board.add()
        assert [board.report(trial, i, v) for i, v in enumerate(curve, 1)] == [GO] * 3
    # Means up to 1, 2 and 3: a 2, 3, 4; b 4, 4, 4; c 6, 4, 6.  Medians: 4, 4, 4.
    equal = board.add()
    assert [board.report(equal, i, 4) for i in (1, 2, 3)] == [GO] * 3
    # Its best result counts, not its newest.
    once = board.add()
    assert [board.report(once, i, v) for i, v in enumerate([5, 0, 0], 1)] == [GO] * 3
    late = board.add()
    assert board.report(late, 1, 3) == STOP
    # Means at 1 are 2, 4, 6, 4, 5 and 3 now, at 2 (for those that came there) 3, 4, 4, 4 and 2.5.
    last = board.add()
    assert [board.report(last, i, v) for i, v in enumerate([4, 0], 1)] == [GO] * 2
    assert board.report(board.add(), 1, 3.7) == STOP


def test_less_is_better_with_min() -> None:
    board = make(mode="min")
    for loss in (1.0, 2.0, 3.0):
        board.report(board.add(), 1, loss)
    assert board.report(board.add(), 1, 2.5) == STOP
    assert board.report(board.add(), 1, 1.5) == GO
    assert board.report(board.add(), 1, float("nan")) == STOP


def test_nobody_stops_in_the_grace_period_or_without_enough_others() -> None:
    board = make(grace_period=3, min_samples_required=3)
    for score in (5, 6, 7):
        trial = board.add()
        assert board.scheduler.next_decision(trial) == {"training_iteration": 3}
        assert [board.report(trial, i, score) for i in (1, 2, 3)] == [GO] * 3
        assert board.scheduler.next_decision(trial) is None
    bad = board.add()
    assert [board.report(bad, i, 0) for i in (1, 2, 3)] == [GO, GO, STOP]
    # Results before the grace period are not part of the means.
    board = make(grace_period=2, min_samples_required=1)
    first = board.add()
    board.report(first, 1, 100.0)
    board.report(first, 2, 1.0)
    second = board.add()
    board.report(second, 1, 2.0)
    assert board.report(second, 2, 2.0) == GO


def test_one_that_cannot_be_judged_makes_room_for_others() -> None:
    board = make(min_time_slice=2)
    first, second = board.add(), board.add(runs=False)
    assert board.report(first, 1, 1.0) == PAUSE
    assert board.next() is second
    second.status = second.RUNNING
    assert board.report(second, 1, 1.0) == PAUSE
    assert board.next() is first
    assert board.report(first, 2, 1.0) == GO  # its slice is 2
    assert board.report(first, 3, 1.0) == GO
    assert board.report(first, 4, 1.0) == PAUSE
    board.saves = False
    third = board.add()
    assert board.report(third, 1, 1.0) != PAUSE  # it could not go on


def test_soft_stops_go_on_when_nothing_else_is_to_be_done() -> None:
    board = make(total=4, hard_stop=False)
    good = [board.add() for _ in range(3)]
    for trial in good:
        board.report(trial, 1, 5.0)
    bad = board.add()
    assert board.report(bad, 1, 0.0) == PAUSE
    good[0].status = good[0].PAUSED
    assert board.next() is good[0]
    good[0].status = good[0].RUNNING
    assert board.next() is bad
    assert board.report(bad, 2, 0.0) == GO
    assert board.scheduler.next_decision(bad) == {}


def test_state_goes_on_as_if_nothing_had_happened() -> None:
    board = make()
    for score in (1.0, 2.0, 3.0):
        board.report(board.add(), 1, score)
    twin = make()
    twin.scheduler.set_state(pickle.loads(pickle.dumps(board.scheduler.get_state())))
    twin.trials = copy.deepcopy(board.trials)
    for score in (1.9, 2.1, 0.0):
        assert twin.report(twin.add(), 1, score) == board.report(board.add(), 1, score)


def test_a_whole_run(engine: str) -> None:
    def train(config: dict[str, Any]) -> None:
        for step in range(10):
            tune.report(score=config["x"] * (step + 1))

    scheduler = MedianStoppingRule("training_iteration", grace_period=3, min_samples_required=2)
    analysis = tune.run(
        train,
        config={"x": tune.grid_search([5, 4, 3, 2, 1])},
        scheduler=scheduler,
        metric="score",
        mode="max",
        max_concurrent_trials=1,
        verbose=0,
    )
    # The third is the first to have two others; its 9 at iteration 3 is below the median of their
    # means, (15 + 12) / 2 since only iteration 3 counts.
    assert [trial.iterations for trial in analysis.trials] == [10, 10, 3, 3, 3]
    assert "3 trials stopped" in scheduler.debug_string()


def test_arguments_without_sense() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MedianStoppingRule(min_samples_required=0)
