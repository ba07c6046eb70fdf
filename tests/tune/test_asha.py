"""ASHA on recorded learning curves, compared with what a pencil finds."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.tune.error import MetricError
from skate.tune.schedulers import (
    ASHAScheduler,
    AsyncHyperBandScheduler,
    FIFOScheduler,
    TrialScheduler,
    create_scheduler,
)
from skate.tune.schedulers.async_hyperband import Rung
from skate.tune.trial import Trial

GO, STOP, COMPLETE = TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.COMPLETE


class Board:
    """A scheduler with trials that report by hand."""

    def __init__(self, **options: Any) -> None:
        self.trials: list[Trial] = []
        self.scheduler = AsyncHyperBandScheduler(**options)
        self.scheduler.set_search_properties("loss", options.get("mode") or "min")

    def add(self) -> Trial:
        trial = Trial(f"t{len(self.trials)}", {}, {})
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def report(self, trial: Trial, iteration: float, loss: float) -> str:
        result = {"training_iteration": iteration, "loss": loss}
        return self.scheduler.on_trial_result(self, trial, result)


def test_arrivals_at_one_rung() -> None:
    # One of four may pass; the best so far always does.  By hand, for losses that arrive in this
    # order: 5 (first), 3 (best), 4 (a quarter of the way from 3 to 5 is 3.5), 6 (half of the way
    # from 3 to 4), 2 and 1 (best), 1.5 (a quarter of the way from 2 to 3), 1.8 (half of the way
    # from 1.5 to 2), 1.2 (three quarters of the way from 1.5 to 1.8).
    board = Board(max_t=100, grace_period=1, reduction_factor=4)
    losses = [5, 3, 4, 6, 2, 1, 1.5, 1.8, 1.2]
    verdicts = [board.report(board.add(), 1, loss) for loss in losses]
    assert verdicts == [GO, GO, STOP, STOP, GO, GO, GO, STOP, GO]


def test_recorded_curves_through_all_rungs() -> None:
    # Rungs at 1, 3 and 9, one of three passes.  Trials run one after the other.
    curves = {
        "steady": [9 - i for i in range(9)],  # 9, 8, 7, ... passes everything: it is the first
        "worse": [10.0] * 9,  # rung 1: 10 > 9
        "better": [5.0] * 9,  # rungs 1 and 3: best; rung 9: 5 > 1
        "early": [4.0, 8.0, 8.0, 8.0],  # rung 1: best; rung 3: a third of the way from 5 to 7
        "late": [6.0, 4.0, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6],  # rung 1: 6 > 5 of 4, 5, 9, 10
        # Rung 1: a third of the way from 5 to 6, of 4, 5, 6, 9, 10.  Best at the others.
        "sixth": [5.2, 4.1, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6],
    }
    board = Board(max_t=10, grace_period=1, reduction_factor=3)
    ended: dict[str, int] = {}
    for name, curve in curves.items():
        trial = board.add()
        for iteration, loss in enumerate(curve, start=1):
            if board.report(trial, iteration, loss) == STOP:
                ended[name] = iteration
                break
    assert ended == {"worse": 1, "better": 9, "early": 3, "late": 1}


def test_the_end_is_no_early_stop() -> None:
    board = Board(max_t=3, grace_period=1)
    trial = board.add()
    assert [board.report(trial, i, 1.0) for i in (1, 2, 3)] == [GO, GO, COMPLETE]
    endless = Board(max_t=3, grace_period=1, stop_last_trials=False)
    trial = endless.add()
    assert [endless.report(trial, i, 1.0) for i in (1, 2, 3, 4)] == [GO] * 4
    assert endless.scheduler.next_decision(trial) == {}


def test_trials_wait_only_at_rungs() -> None:
    board = Board(max_t=20, grace_period=2, reduction_factor=3)
    trial = board.add()
    gates = []
    for iteration in range(1, 20):
        gate = board.scheduler.next_decision(trial)
        assert gate is not None
        gates.append(gate["training_iteration"])
        board.report(trial, iteration, 1.0)
    assert gates == [2] * 2 + [6] * 4 + [18] * 12 + [20]


def test_equal_trials_are_equally_good() -> None:
    board = Board(max_t=100)
    assert {board.report(board.add(), 1, 0.5) for _ in range(20)} == {GO}


def test_nan_never_beats_a_number() -> None:
    board = Board(max_t=100)
    assert board.report(board.add(), 1, 1.0) == GO
    assert board.report(board.add(), 1, math.nan) == STOP
    assert board.report(board.add(), 1, 0.5) == GO


def test_maximizing() -> None:
    board = Board(max_t=100, mode="max")
    assert board.report(board.add(), 1, 0.5) == GO
    assert board.report(board.add(), 1, 0.4) == STOP
    assert board.report(board.add(), 1, 0.6) == GO


def test_a_trial_that_jumps_is_judged_once_at_the_last_rung_it_passed() -> None:
    board = Board(max_t=100, grace_period=1, reduction_factor=4)
    first, second = board.add(), board.add()
    assert board.report(first, 20, 1.0) == GO
    assert board.scheduler.next_decision(first) == {"training_iteration": 64}
    assert board.report(second, 1, 5.0) == GO  # nobody has been judged at the first rung
    assert board.report(second, 17, 5.0) == STOP


def test_brackets_begin_at_different_rungs() -> None:
    board = Board(max_t=27, grace_period=1, reduction_factor=3, brackets=3)
    firsts = [board.scheduler.next_decision(board.add()) for _ in range(40)]
    counts = [firsts.count({"training_iteration": rung}) for rung in (1, 3, 9)]
    assert sum(counts) == 40
    assert counts[0] > counts[1] > counts[2] > 0


def test_another_clock() -> None:
    scheduler = ASHAScheduler(time_attr="epochs", max_t=10, metric="loss", mode="min")
    trial = Trial("a", {}, {})
    board = Board()
    scheduler.on_trial_add(board, trial)
    assert scheduler.next_decision(trial) == {"epochs": 1}
    assert scheduler.on_trial_result(board, trial, {"epochs": 1, "loss": 1.0}) == GO
    with pytest.raises(MetricError, match=r"time_attr='epochs'.*reported: loss"):
        scheduler.on_trial_result(board, trial, {"loss": 1.0})


def test_a_report_without_the_metric_decides_nothing() -> None:
    board = Board(max_t=100)
    board.report(board.add(), 1, 1.0)
    trial = board.add()
    assert board.scheduler.on_trial_result(board, trial, {"training_iteration": 1}) == GO
    assert board.scheduler.next_decision(trial) == {"training_iteration": 1}
    assert board.report(trial, 2, 9.0) == STOP


@given(st.lists(st.floats(-1e9, 1e9), max_size=60), st.floats(-1e9, 1e9), st.floats(1.1, 8))
def test_a_rung_lets_pass_whoever_reaches_the_quantile(
    before: list[float], score: float, factor: float
) -> None:
    rung = Rung(1, sorted(before))
    # Where the difference is rounding, either is right.
    cutoff = float(numpy.quantile(before, 1 - 1 / factor)) if before else -math.inf
    close = math.isclose(score, cutoff, rel_tol=1e-9, abs_tol=1e-6)
    assert rung.enter(score, factor) == (score >= cutoff) or close
    assert rung.scores == sorted([*before, score])


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=60), st.floats(1.1, 8))
def test_the_best_so_far_always_passes(scores: list[float], factor: float) -> None:
    rung = Rung(1)
    for number, score in enumerate(scores):
        diverged = score == -math.inf and max(scores[:number], default=score) > score
        assert rung.enter(score, factor) or score < max(scores[:number]) or diverged


def test_some_that_have_diverged_stop_nobody() -> None:
    board = Board(max_t=100, grace_period=1, reduction_factor=2)
    losses = [math.nan, 3.0, math.nan, 2.5, math.nan, 1e308]
    # The first is the best so far.  Of five that three have diverged: any number is better.
    verdicts = [board.report(board.add(), 1, loss) for loss in losses]
    assert verdicts == [GO, GO, STOP, GO, STOP, GO]


def test_who_is_at_the_quantile_but_for_rounding_has_reached_it() -> None:
    # Two thirds of the way from 518 to 521: a third of four places from the best.
    before = [86.0, 478.0, 518.0, 521.0, 523.0]
    assert Rung(9, list(before)).enter(520.0, 3)
    assert not Rung(9, list(before)).enter(519.999, 3)


def test_about_one_of_four_passes_each_rung() -> None:
    rng = random.Random(0)
    board = Board(max_t=100, grace_period=1, reduction_factor=4)
    passed = sum(board.report(board.add(), 1, rng.random()) == GO for _ in range(1000))
    assert 205 < passed < 295  # 250, give or take three standard deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_t": 0}, "max_t"),
        ({"grace_period": 0}, "grace_period"),
        ({"grace_period": 20, "max_t": 10}, "grace_period"),
        ({"reduction_factor": 1}, "reduction_factor"),
        ({"brackets": 0}, "brackets"),
        ({"brackets": 5}, "between 1 and 4"),
        ({"mode": "maximum"}, "'min' or 'max'"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AsyncHyperBandScheduler(**options)


def test_schedulers_by_name() -> None:
    assert isinstance(create_scheduler("asha"), AsyncHyperBandScheduler)
    assert isinstance(create_scheduler("ASHA", max_t=5), AsyncHyperBandScheduler)
    assert isinstance(create_scheduler("fifo"), FIFOScheduler)
    with pytest.raises(ValueError, match="did you mean 'asha'"):
        create_scheduler("ahsa")
    with pytest.raises(ValueError, match="there are"):
        create_scheduler("something else")
