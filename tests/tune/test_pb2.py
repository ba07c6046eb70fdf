"""Population Based Bandits: the bandit alone, and against random exploration."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from climbing import climb
from scheduler_board import Board

from skate import tune
from skate.tune.schedulers import PB2, PopulationBasedTraining
from skate.tune.schedulers.time_varying_bandit import Kernel, Process, propose
from skate.tune.schedulers.trial_scheduler import Exploit
from skate.tune.trial import Trial


def make(**options: Any) -> PB2:
    options = {
        "time_attr": "training_iteration",
        "perturbation_interval": 4,
        "hyperparam_bounds": {"x": [0.0, 1.0]},
        **options,
    }
    return PB2(**options)


# --------------------------------------------------------------------------- the bandit


def test_the_process_is_that_of_the_textbook() -> None:
    # One observation y=1 at x=0, noise 0.25: mean and variance by hand.
    process = Process(Kernel(length=1.0, fading=0.5, noise=0.25), np.zeros((1, 2)), np.ones(1))
    at = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    k = np.array([1.0, np.exp(-2.0), 0.5])
    assert process.mean(at) == pytest.approx(k / 1.25)
    assert process.deviation(at) == pytest.approx(np.sqrt(1 - k**2 / 1.25), rel=1e-6)


def test_the_bandit_finds_where_scores_grow_fastest() -> None:
    rng = np.random.default_rng(0)
    settings = rng.uniform(size=(60, 2))
    rates = 1 - (settings[:, 0] - 0.7) ** 2 - (settings[:, 1] - 0.2) ** 2
    observed = np.hstack([np.zeros((60, 2)), settings])
    none, bounds = np.empty((0, 2)), np.array([[0.0, 0.0], [1.0, 1.0]])
    found = propose(observed, rates, none, np.zeros(2), bounds, rng)
    assert found == pytest.approx([0.7, 0.2], abs=0.15)


def test_the_past_fades() -> None:
    rng = np.random.default_rng(0)
    time = np.repeat([0.0, 100.0], 40)
    setting = rng.uniform(size=80)
    best = np.where(time == 0.0, 0.1, 0.9)
    observed = np.column_stack([time, np.zeros(80), setting])
    rates = 1 - (setting - best) ** 2
    none, bounds = np.empty((0, 1)), np.array([[0.0], [1.0]])
    now = np.array([100.0, 0.0])
    assert propose(observed, rates, none, now, bounds, rng)[0] == pytest.approx(0.9, abs=0.15)


def test_what_others_try_is_not_tried_again() -> None:
    observed = np.column_stack([np.zeros(2), np.zeros(2), [0.45, 0.55]])
    rates, bounds = np.zeros(2), np.array([[0.0], [1.0]])

    def found(running: list[float]) -> float:
        rng = np.random.default_rng(1)
        rows = np.array(running).reshape(-1, 1)
        return float(propose(observed, rates, rows, np.zeros(2), bounds, rng)[0])

    assert found([0.0]) > 0.9
    assert found([1.0]) < 0.1


# --------------------------------------------------------------------------- the scheduler


def test_configurations_stay_within_bounds_and_keep_their_types() -> None:
    bounds = {"x": [0.0, 1.0], "net": {"width": [4, 64]}}
    board = Board(make(hyperparam_bounds=bounds), total=4)
    for number in range(4):
        board.add(x=number / 4, net={"width": 8 + number}, fix="as it is")
    exploits = 0
    for step in range(4, 80, 4):
        for number, trial in enumerate(board.trials):
            verdict = board.report(trial, step, random.Random(step + number).random())
            exploits += isinstance(verdict, Exploit)
            assert 0 <= trial.config["x"] <= 1
            assert 4 <= trial.config["net"]["width"] <= 64
            assert isinstance(trial.config["net"]["width"], int)
            assert trial.config["fix"] == "as it is"
    assert exploits > 5


def test_what_the_space_lacks_is_drawn_from_the_bounds() -> None:
    trial = Board(make(hyperparam_bounds={"x": [2, 3]})).add()
    assert 2 <= trial.config["x"] <= 3


def test_state_goes_on_as_if_nothing_had_happened() -> None:
    board = Board(make(), total=4)
    for number in range(4):
        board.add(x=number / 4)
    for step in (4, 8, 12):
        for trial in board.trials:
            board.report(trial, step, trial.config["x"] * step)
    other = make()
    other.set_state(pickle.loads(pickle.dumps(board.scheduler.get_state())))
    twin = Board(other, total=4)
    twin.trials = copy.deepcopy(board.trials)
    for step in (16, 20, 24):
        for number in range(4):
            board.report(board.trials[number], step, float(number))
            twin.report(twin.trials[number], step, float(number))
            assert twin.trials[number].config == board.trials[number].config


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        (None, ValueError, "nothing to change"),
        ({"x": [1, 2, 3]}, TypeError, "wants two numbers"),
        ({"a": {"x": [2, 1]}}, ValueError, "'a/x'.: the least value"),
    ],
)
def test_arguments_without_sense(bounds: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(hyperparam_bounds=bounds)


# --------------------------------------------------------------------------- against PBT

#: (state, configuration, generator of noise) -> new state.  A state is what a checkpoint has; the
#: first of its numbers is the score.
Problem = Callable[[list[float], dict[str, Any], random.Random], list[float]]


def surrogate(state: list[float], config: dict[str, Any], noise: random.Random) -> list[float]:
    """The toy of the PBT paper: climb 1.2 - |theta|^2 by the gradient of a stand-in for it."""
    first, second = state[1] * (1 - 0.02 * config["a"]), state[2] * (1 - 0.02 * config["b"])
    return [1.2 - first**2 - second**2, first, second]


def drifting(state: list[float], config: dict[str, Any], noise: random.Random) -> list[float]:
    """What pays changes while it trains; measurements of the growth are noisy."""
    score, step = state
    best = 0.2 + 0.6 * step / 100
    growth = 1 - 4 * (config["a"] - best) ** 2 - 4 * (config["b"] - 1 + best) ** 2
    return [score + max(growth, -1) + noise.gauss(0, 0.2), step + 1]


def simulate(
    scheduler: PopulationBasedTraining,
    problem: Problem,
    begin: list[float],
    configs: list[dict[str, Any]],
    steps: int,
    seed: int,
) -> float:
    """Train a population in lock-step; return the best score at the end."""
    noise = random.Random(seed)
    board = Board(scheduler, total=len(configs))
    states: dict[str, list[float]] = {}
    for config in configs:
        states[board.add(**config).trial_id] = begin
    for step in range(1, steps + 1):
        for trial in board.trials:
            states[trial.trial_id] = problem(states[trial.trial_id], trial.config, noise)
            verdict = board.report(trial, step, states[trial.trial_id][0])
            if isinstance(verdict, Exploit):
                states[trial.trial_id] = states[verdict.source.trial_id]
    return max(state[0] for state in states.values())


@pytest.mark.parametrize("name", ["surrogate", "drifting"])
def test_a_small_population_gets_further_than_with_random_exploration(name: str) -> None:
    means = compare(name, seeds=20)
    assert means["pb2"] > means["pbt"]


def compare(name: str, seeds: int) -> dict[str, float]:
    problem: Problem = {"surrogate": surrogate, "drifting": drifting}[name]
    begin = {"surrogate": [0.0, 0.9, 0.9], "drifting": [0.0, 0.0]}[name]
    names = {"surrogate": ["a", "b"], "drifting": ["a", "b"]}[name]
    low, high = {"surrogate": (0.0, 1.0), "drifting": (0.0, 1.0)}[name]
    scores: dict[str, list[float]] = {"pbt": [], "pb2": []}
    for seed in range(seeds):
        rng = random.Random(seed)
        configs = [{key: rng.uniform(low, high) for key in names} for _ in range(4)]

        def clip(config: dict[str, Any]) -> dict[str, Any]:
            return {key: min(max(value, low), high) for key, value in config.items()}

        common: dict[str, Any] = {"time_attr": "training_iteration", "perturbation_interval": 5}
        random.seed(seed)
        pbt = PopulationBasedTraining(
            hyperparam_mutations={key: tune.uniform(low, high) for key in names},
            custom_explore_fn=clip,
            **common,
        )
        pb2 = PB2(hyperparam_bounds={key: [low, high] for key in names}, **common)
        for label, scheduler in (("pbt", pbt), ("pb2", pb2)):
            scores[label].append(simulate(scheduler, problem, begin, configs, 100, seed))
    return {label: float(np.mean(values)) for label, values in scores.items()}


def test_a_whole_run(engine: str) -> None:
    scheduler = make()
    analysis = tune.run(
        climb,
        num_samples=4,
        stop={"training_iteration": 24},
        scheduler=scheduler,
        metric="score",
        mode="max",
        verbose=0,
    )
    assert [trial.status for trial in analysis.trials] == [Trial.TERMINATED] * 4
    assert scheduler.perturbations > 0
    assert all(0 <= trial.config["x"] <= 1 for trial in analysis.trials)
