"""Schedulers on learning curves that were recorded, against what their papers say in a few lines.

``digits_curves.json``: 27 networks of scikit-learn (``MLPClassifier`` with one layer, drawn sizes,
rates, momenta and penalties), trained on its handwritten digits for 27 passes; after each of them
the number of images that they know, of 540 held out.  Some of them diverge, and many cross.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from scheduler_board import Board

from skate import tune
from skate.tune.schedulers import (
    ASHAScheduler,
    HyperBandForBOHB,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from skate.tune.schedulers.trial_scheduler import Exploit

CURVES: list[list[int]] = json.loads(Path(__file__).with_name("digits_curves.json").read_text())
EPOCHS = 27
ETA = 3


def known(trial: int, epoch: int) -> int:
    """Return what a network knows after so many passes."""
    return CURVES[trial][epoch - 1]


def one_after_the_other(board: Board) -> list[int]:
    """Run each trial until its scheduler stops it; return how far they came."""
    came = []
    for number, curve in enumerate(CURVES):
        trial = board.add()
        verdict: Any = TrialScheduler.CONTINUE
        while verdict == TrialScheduler.CONTINUE and trial.iterations < len(curve):
            epoch = trial.iterations + 1
            verdict = board.report(trial, epoch, known(number, epoch))
        came.append(trial.iterations)
    return came


def test_the_curves_cross() -> None:
    assert len(CURVES) == EPOCHS
    assert {len(curve) for curve in CURVES} == {EPOCHS}
    first = max(range(EPOCHS), key=lambda i: known(i, 1))
    last = max(range(EPOCHS), key=lambda i: known(i, EPOCHS))
    assert first != last


def test_asha_stops_who_does_not_reach_the_quantile_of_those_before() -> None:
    rungs: dict[int, list[int]] = {1: [], 3: [], 9: []}
    expected = []
    for number in range(len(CURVES)):
        came = EPOCHS
        for epoch, before in rungs.items():
            score = known(number, epoch)
            cutoff = numpy.quantile(before, 1 - 1 / ETA) if before else -math.inf
            before.append(score)
            if score < cutoff - 1e-9:
                came = epoch
                break
        expected.append(came)
    board = Board(ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=ETA))
    assert one_after_the_other(board) == expected
    # It is worth it: a fifth of the passes, and the best that is left is as good as any, but for
    # an image or two.
    assert sum(expected) < EPOCHS * EPOCHS / 3
    left = [known(i, EPOCHS) for i, came in enumerate(expected) if came == EPOCHS]
    assert max(left) >= max(known(i, EPOCHS) for i in range(EPOCHS)) - 3


def halved(trials: Sequence[int], milestones: Sequence[int]) -> dict[int, int]:
    """Return where successive halving stops each trial, as in the paper."""
    came = dict.fromkeys(trials, EPOCHS)
    alive = list(trials)
    for rung, milestone in enumerate(milestones[:-1], start=1):
        ranked = sorted(alive, key=lambda i: -known(i, milestone))
        alive = ranked[: max(1, int(len(trials) / ETA**rung))]
        came.update(dict.fromkeys(ranked[len(alive) :], milestone))
    return came


def together(scheduler: TrialScheduler, count: int) -> dict[int, int]:
    """Run trials on one slot until they have ended; return how far they came."""
    board = Board(scheduler, total=count)
    for _ in range(count):
        board.add(runs=False)
    while (trial := board.next()) is not None:
        verdict: Any = TrialScheduler.CONTINUE
        while verdict == TrialScheduler.CONTINUE:
            epoch = trial.iterations + 1
            verdict = board.report(trial, epoch, known(int(trial.trial_id[1:]), epoch))
    assert not board.live_trials
    return {number: trial.iterations for number, trial in enumerate(board.trials)}


def test_hyperband_halves_each_of_its_brackets() -> None:
    # R=27: brackets of 4, 6 and 12 trials, in this order.
    expected = {
        **halved(range(4), [27]),
        **halved(range(4, 10), [9, 27]),
        **halved(range(10, 22), [3, 9, 27]),
    }
    assert together(HyperBandScheduler(max_t=EPOCHS, reduction_factor=ETA), 22) == expected


def test_hyperband_for_bohb_halves_its_largest_bracket_first() -> None:
    expected = halved(range(27), [1, 3, 9, 27])
    assert together(HyperBandForBOHB(max_t=EPOCHS, reduction_factor=ETA), 27) == expected
    assert sorted(expected.values()) == [1] * 18 + [3] * 6 + [9] * 2 + [27]


@pytest.mark.parametrize("grace", [1, 4])
def test_the_median_rule_stops_whose_best_is_below_the_median_of_the_means(grace: int) -> None:
    expected: list[int] = []
    for number in range(len(CURVES)):
        came = EPOCHS
        for epoch in range(grace, EPOCHS + 1):
            means = [
                statistics.fmean(CURVES[other][grace - 1 : epoch])
                for other, its in enumerate(expected)
                if its >= epoch
            ]
            best = max(CURVES[number][:epoch])
            if len(means) >= 3 and best < statistics.median(means) - 1e-9:
                came = epoch
                break
        expected.append(came)
    board = Board(MedianStoppingRule("training_iteration", grace_period=grace))
    assert one_after_the_other(board) == expected
    assert EPOCHS > len([came for came in expected if came == EPOCHS]) > 3


def test_a_population_exchanges_its_worst_quarter_for_copies_of_its_best() -> None:
    random.seed(0)
    size, interval = 16, 3
    board = Board(
        PopulationBasedTraining(
            "training_iteration",
            perturbation_interval=interval,
            hyperparam_mutations={"x": tune.uniform(0, 1)},
        ),
        total=size,
    )
    #: Which curve each trial follows: its own, until it goes on as a copy.
    follows = {board.add(x=number / size).trial_id: number for number in range(size)}
    judged: dict[str, int] = {}
    exchanged = 0
    for epoch in range(1, EPOCHS + 1):
        for trial in board.trials:
            score = known(follows[trial.trial_id], epoch)
            gate = board.scheduler.next_decision(trial)
            assert gate is not None
            verdict = board.report(trial, epoch, score)
            if epoch < gate["training_iteration"]:
                assert verdict == TrialScheduler.CONTINUE
                continue
            judged[trial.trial_id] = score
            # Those that have been judged, in the order of the population.
            names = [each.trial_id for each in board.trials if each.trial_id in judged]
            ranked = sorted(names, key=lambda name: judged[name])
            few = min(math.ceil(len(ranked) / 4), len(ranked) // 2)
            worst, best = ranked[:few], ranked[len(ranked) - few :]
            assert isinstance(verdict, Exploit) == (trial.trial_id in worst)
            if isinstance(verdict, Exploit):
                exchanged += 1
                assert verdict.source.trial_id in best
                follows[trial.trial_id] = follows[verdict.source.trial_id]
    assert exchanged > size
    # Who is left follows good ones only.
    final = sorted(known(number, EPOCHS) for number in range(size))
    assert min(known(number, EPOCHS) for number in set(follows.values())) >= final[size // 2]
