"""Searchers and schedulers find what is good, with every one of several seeds."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from scheduler_board import Board

from skate import tune
from skate.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
)
from skate.tune.schedulers.trial_scheduler import Exploit
from skate.tune.search import create_searcher

SEEDS = range(5)

# --------------------------------------------------------------------------- searchers

SPACE: dict[str, Any] = {
    "lr": tune.loguniform(1e-5, 1.0),
    "momentum": tune.uniform(0, 1),
    "layers": tune.randint(1, 9),
    "kind": tune.choice(["a", "b", "c"]),
}


def loss(config: dict[str, Any]) -> float:
    """Least, 0, at lr=1e-3, momentum=0.9, five layers, kind b."""
    return (
        (math.log10(config["lr"]) + 3) ** 2
        + 4 * (config["momentum"] - 0.9) ** 2
        + 0.1 * abs(config["layers"] - 5)
        + (config["kind"] != "b")
    )


def search(name: str, seed: int, trials: int) -> float:
    """Return the least loss of so many trials, four at a time."""
    searcher = create_searcher(name, seed=seed)
    searcher.set_search_properties("loss", "min", SPACE)
    searcher.total(trials)
    live: dict[str, float] = {}
    losses = []
    for number in range(trials):
        if len(live) == 4:
            oldest = next(iter(live))
            searcher.on_trial_complete(oldest, {"loss": live.pop(oldest)})
        config = searcher.suggest(f"trial_{number}")
        assert isinstance(config, dict)
        live[f"trial_{number}"] = loss(config)
        losses.append(loss(config))
    return min(losses)


def test_optuna_converges() -> None:
    pytest.importorskip("optuna")
    found = [search("optuna", seed, 100) for seed in SEEDS]
    assert max(found) < 0.1
    drawn = [search("random", seed, 100) for seed in SEEDS]
    assert statistics.median(found) < 0.5 * statistics.median(drawn)


def test_random_search_covers_the_space() -> None:
    # Of 400 points, the best has to be among the best 2 % with a chance of 1 - 0.98^400.
    rng = random.Random(0)
    every = sorted(
        loss(
            {
                "lr": 10 ** rng.uniform(-5, 0),
                "momentum": rng.random(),
                "layers": rng.randrange(1, 9),
                "kind": rng.choice("abc"),
            }
        )
        for _ in range(5000)
    )
    assert all(search("random", seed, 400) < every[100] for seed in SEEDS)


# --------------------------------------------------------------------------- early stopping

EPOCHS = 81


def curves(seed: int, count: int) -> list[list[float]]:
    """Return learning curves that fall to their limits at different paces, with noise."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        limit, pace = rng.uniform(0.1, 1), rng.uniform(0.05, 0.3)
        made.append(
            [limit + math.exp(-pace * epoch) + rng.gauss(0, 0.01) for epoch in range(1, EPOCHS + 1)]
        )
    return made


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["epoch"]
    for epoch in range(begin, EPOCHS):
        saved = None
        if epoch + 1 in (1, 3, 9, 27, 81):  # where it may be paused
            saved = tune.Checkpoint.from_dict({"epoch": epoch + 1})
        tune.report({"loss": config["curve"][epoch]}, checkpoint=saved)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("make", "share"),
    [
        (lambda: ASHAScheduler(max_t=EPOCHS, reduction_factor=3), 0.25),
        (lambda: HyperBandScheduler(max_t=EPOCHS, reduction_factor=3), 0.3),
    ],
    ids=["asha", "hyperband"],
)
def test_early_stopping_finds_what_is_good_for_less(
    make: Callable[[], FIFOScheduler], share: float
) -> None:
    count = 60
    for seed in SEEDS[:3]:
        every = curves(seed, count)
        analysis = tune.run(
            train,
            config={"curve": tune.grid_search(every)},
            scheduler=make(),
            metric="loss",
            mode="min",
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        )
        assert len(analysis.trials) == count
        spent = sum(trial.iterations for trial in analysis.trials)
        assert spent < share * count * EPOCHS
        final = sorted(curve[-1] for curve in every)
        # Among the best tenth of those that nobody stopped.
        assert analysis.best_result["loss"] <= final[count // 10]


# --------------------------------------------------------------------------- populations


def climb_stand_in(theta: list[float], h: list[float]) -> list[float]:
    """Go a step along the gradient of 1.2 - h0 theta0^2 - h1 theta1^2."""
    return [value - 0.01 * 2 * weight * value for value, weight in zip(theta, h, strict=True)]


def score(theta: list[float]) -> float:
    return 1.2 - theta[0] ** 2 - theta[1] ** 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_population_finds_what_no_constant_configuration_does(seed: int) -> None:
    """Figure 2 of the PBT paper: two workers, each of which sees one half of the problem."""
    random.seed(seed)
    halves = [[1.0, 0.0], [0.0, 1.0]]
    alone = [[0.9, 0.9] for _ in halves]
    for _ in range(200):
        alone = [climb_stand_in(theta, h) for theta, h in zip(alone, halves, strict=True)]
    assert max(map(score, alone)) == pytest.approx(0.39, abs=0.01)

    draws = {name: tune.uniform(0, 1) for name in ("h0", "h1")}
    board = Board(
        PopulationBasedTraining(
            "training_iteration", perturbation_interval=4, hyperparam_mutations=draws
        ),
        total=2,
    )
    thetas: dict[str, list[float]] = {}
    for h0, h1 in halves:
        thetas[board.add(h0=h0, h1=h1).trial_id] = [0.9, 0.9]
    for step in range(1, 201):
        for trial in board.trials:
            h = [trial.config["h0"], trial.config["h1"]]
            thetas[trial.trial_id] = climb_stand_in(thetas[trial.trial_id], h)
            verdict = board.report(trial, step, score(thetas[trial.trial_id]))
            if isinstance(verdict, Exploit):
                thetas[trial.trial_id] = thetas[verdict.source.trial_id]
    assert max(map(score, thetas.values())) > 1.1
