"""HyperBand: its brackets, its budgets, and who stops where on recorded learning curves."""

from __future__ import annotations

import collections
import copy
import pickle
from typing import Any

import pytest
from scheduler_board import Board

from skate import tune
from skate.tune.error import MetricError
from skate.tune.schedulers import HyperBandForBOHB, HyperBandScheduler, TrialScheduler
from skate.tune.search.optuna import OptunaSearch
from skate.tune.trial import Trial

PAUSE, STOP, COMPLETE = TrialScheduler.PAUSE, TrialScheduler.STOP, TrialScheduler.COMPLETE


def drive(board: Board, limit: int = 10_000) -> dict[str, int]:
    """Run all trials, one at a time; return how far each came.  A trial's score is its number."""
    while limit:
        trial = board.next()
        if trial is None:
            board.scheduler.on_idle(board)
            trial = board.next()
            if trial is None:
                break
        verdict: Any = TrialScheduler.CONTINUE
        while verdict == TrialScheduler.CONTINUE:
            limit -= 1
            verdict = board.report(trial, trial.iterations + 1, float(trial.trial_id[1:]))
    assert not board.live_trials
    return {trial.trial_id: trial.iterations for trial in board.trials}


def make(count: int, kind: type[HyperBandScheduler] = HyperBandScheduler, **options: Any) -> Board:
    board = Board(kind(**options), total=count)
    for _ in range(count):
        board.add(runs=False)
    return board


def test_brackets_are_those_of_the_paper() -> None:
    # Table 1 of Li et al. for R=81, eta=3: n_i and r_i of each bracket.
    scheduler = HyperBandScheduler(max_t=81, reduction_factor=3)
    assert scheduler.s_max == 4
    table = {
        4: ([81, 27, 9, 3, 1], [1, 3, 9, 27, 81]),
        3: ([34, 11, 3, 1], [3, 9, 27, 81]),
        2: ([15, 5, 1], [9, 27, 81]),
        1: ([8, 2], [27, 81]),
        0: ([5], [81]),
    }
    for s, (counts, milestones) in table.items():
        bracket = scheduler.make_bracket(s)
        assert [bracket.survivors(rung) for rung in range(s + 1)] == counts
        assert bracket.milestones == milestones
    # Trials go on where they were, so that each bracket uses at most B = (s_max + 1) R.
    budgets = {s: scheduler.make_bracket(s).budget for s in table}
    assert budgets == {
        4: 81 + 27 * 2 + 9 * 6 + 3 * 18 + 54,
        3: 34 * 3 + 11 * 6 + 3 * 18 + 54,
        2: 15 * 9 + 5 * 18 + 54,
        1: 8 * 27 + 2 * 54,
        0: 405,
    }
    assert all(budget <= 5 * 81 for budget in budgets.values())


def test_trials_of_one_band_stop_where_they_should() -> None:
    # R=9: brackets of 3, 5 and 9 trials, in this order.  The larger the number, the better.
    came = drive(make(17, max_t=9))
    assert [came[f"t{i}"] for i in range(3)] == [9, 9, 9]
    assert [came[f"t{i}"] for i in range(3, 8)] == [3, 3, 3, 3, 9]
    assert [came[f"t{i}"] for i in range(8, 17)] == [1, 1, 1, 1, 1, 1, 3, 3, 9]


def test_trials_fill_one_band_after_the_other() -> None:
    board = make(17 * 2 + 1, max_t=9)
    sizes = [[bracket.size for bracket in band] for band in board.scheduler.bands]
    assert sizes == [[3, 5, 9], [3, 5, 9], [3]]
    came = collections.Counter(drive(board).values())
    assert came == {9: 2 * 5 + 1, 3: 2 * (4 + 2), 1: 2 * 6}


def test_a_bracket_makes_do_with_fewer_trials_than_it_has_room_for() -> None:
    came = drive(make(3 + 5 + 4, max_t=9))
    # Four of nine: one goes on to 3, and, being alone, to the end.
    assert [came[f"t{i}"] for i in range(8, 12)] == [1, 1, 1, 9]


def test_trials_wait_for_each_other_at_milestones() -> None:
    board = make(3 + 5, max_t=9)
    members = board.trials[3:]
    for trial in members[:4]:
        assert board.scheduler.next_decision(trial) == {"training_iteration": 3}
        assert board.report(trial, 3, 1.0) == PAUSE
    for trial in board.trials[:3]:
        trial.status = Trial.RUNNING
    assert board.next() is members[4]
    members[4].status = Trial.RUNNING
    assert board.next() is None  # the others wait for it
    # It is the worst: it stops, and all others but the first of the equal ones do.
    assert board.report(members[4], 3, 0.0) == STOP
    assert [t.status for t in members] == ["PAUSED"] + ["TERMINATED"] * 4
    assert board.next() is members[0]
    assert board.scheduler.next_decision(members[0]) == {"training_iteration": 9}
    assert board.report(members[0], 9, 0.0) == COMPLETE


def test_nobody_waits_for_one_that_failed() -> None:
    board = make(3 + 5, max_t=9)
    members = board.trials[3:]
    for score, trial in enumerate(members[:4]):
        board.report(trial, 3, score)
    members[4].status = Trial.ERROR
    board.scheduler.on_trial_error(board, members[4])
    assert [t.status for t in members[:4]] == ["TERMINATED"] * 3 + ["PAUSED"]


def test_the_last_ones_may_go_on() -> None:
    board = make(3, max_t=9, stop_last_trials=False)
    trial = board.trials[0]
    assert board.scheduler.next_decision(trial) == {}
    assert board.report(trial, 9, 1.0) == TrialScheduler.CONTINUE
    assert board.report(trial, 99, 1.0) == TrialScheduler.CONTINUE


def test_bohb_begins_with_the_largest_bracket_and_tells_the_budget() -> None:
    board = make(17, HyperBandForBOHB, max_t=9)
    assert [bracket.size for bracket in board.scheduler.bands[0]] == [9, 5, 3]
    trial = board.trials[0]
    board.report(trial, 1, 0.0)
    assert trial.last_result["hyperband_info"] == {"budget": 1}
    came = collections.Counter(drive(board).values())
    assert came == {9: 5, 3: 6, 1: 6}


def test_bohb_goes_with_its_own_searcher_only(inline: None) -> None:
    with pytest.raises(ValueError, match=r"TuneBOHB only.*use HyperBandScheduler"):
        tune.run(
            lambda config: None,
            config={"x": tune.uniform(0, 1)},
            search_alg=OptunaSearch(),
            scheduler=HyperBandForBOHB(),
            metric="score",
            mode="max",
        )


def test_state_goes_on_as_if_nothing_had_happened() -> None:
    board = make(17, max_t=9)
    for trial in board.trials[8:14]:
        board.report(trial, 1, float(trial.trial_id[1:]))
    other = HyperBandScheduler(max_t=9)
    other.set_state(pickle.loads(pickle.dumps(board.scheduler.get_state())))
    twin = Board(other, total=17)
    twin.trials = copy.deepcopy(board.trials)
    assert drive(twin) == drive(board)


def test_results_without_time() -> None:
    board = make(3, max_t=9)
    with pytest.raises(MetricError, match="time_attr='training_iteration'"):
        board.scheduler.on_trial_result(board, board.trials[0], {"score": 1.0})


def test_arguments_without_sense() -> None:
    with pytest.raises(ValueError, match="max_t has to be above 0"):
        HyperBandScheduler(max_t=0)
    with pytest.raises(ValueError, match="reduction_factor has to be above 1"):
        HyperBandScheduler(reduction_factor=1)


def climb(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = checkpoint.to_dict()["step"] if checkpoint else 0
    for step in range(begin + 1, 100):
        checkpoint = tune.Checkpoint.from_dict({"step": step})
        tune.report({"score": config["x"], "step": step}, checkpoint=checkpoint)


class Climber(tune.Trainable):
    """The same as a class."""

    def setup(self, config: dict[str, Any]) -> None:
        self.steps = 0

    def step(self) -> dict[str, Any]:
        self.steps += 1
        return {"score": self.config["x"], "step": self.steps}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"step": self.steps}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.steps = checkpoint["step"]


@pytest.mark.parametrize("trainable", [climb, Climber])
@pytest.mark.parametrize("kind", [HyperBandScheduler, HyperBandForBOHB])
def test_whole_runs(engine: str, kind: type[HyperBandScheduler], trainable: Any) -> None:
    analysis = tune.run(
        trainable,
        config={"x": tune.grid_search(list(range(8)))},
        scheduler=kind(max_t=4, reduction_factor=2),
        metric="score",
        mode="max",
        verbose=0,
    )
    assert all(trial.status == Trial.TERMINATED for trial in analysis.trials)
    for trial in analysis.trials:
        assert trial.history.column("step") == list(range(1, trial.iterations + 1))
    came = [trial.iterations for trial in analysis.trials]
    if kind is HyperBandScheduler:  # 3 up to 4; 3 with a halving at 2; 2 of 4 that halve at 1 and 2
        assert came == [4, 4, 4, 2, 2, 4, 1, 4]
    else:  # 4 that halve at 1 and 2; 3 that halve at 2; 1 up to 4
        assert came == [1, 1, 2, 4, 2, 2, 4, 4]


def test_functions_without_checkpoints_are_told_so(engine: str) -> None:
    def train(config: dict[str, Any]) -> None:
        for _ in range(9):
            tune.report(score=1.0)

    analysis = tune.run(
        train,
        config={"x": tune.grid_search(list(range(6)))},
        scheduler=HyperBandScheduler(max_t=9),
        metric="score",
        mode="max",
        verbose=0,
        raise_on_failed_trial=False,
    )
    failed = [trial for trial in analysis.trials if trial.status == Trial.ERROR]
    assert failed
    assert "HyperBandScheduler pauses trials" in str(failed[0].error)
    assert "tune.Checkpoint.from_dict" in str(failed[0].error)
