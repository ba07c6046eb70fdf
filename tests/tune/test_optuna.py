"""Search with Optuna: conversion of spaces, seeds, what is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from skate import tune
from skate.tune.search import create_searcher

optuna = pytest.importorskip("optuna")

from skate.tune.search.optuna import OptunaSearch  # noqa: E402  # only where Optuna is

SPACE = {
    "lr": tune.loguniform(1e-4, 1e-1),
    "momentum": tune.quniform(0, 0.9, 0.1),
    "decay": tune.qloguniform(0.5, 8, 0.5),
    "depth": tune.randint(1, 9),
    "width": tune.qrandint(8, 64, 8),
    "units": tune.lograndint(4, 65),
    "noise": tune.randn(5, 2),
    "kind": tune.choice(["a", "b"]),
    "shape": tune.choice([(1, 2), {"x": 1}]),
    "head": {"dropout": tune.uniform(0, 1), "fixed": 3},
    "model": tune.choice([{"name": "tree", "leaves": tune.randint(2, 9)}, {"name": "line"}]),
    "twice": tune.sample_from(lambda config: config["depth"] * 2),
}


def prepared(space: dict[str, Any] | None = None, **options: Any) -> OptunaSearch:
    searcher = OptunaSearch(**options)
    assert searcher.set_search_properties("loss", "min", SPACE if space is None else space)
    return searcher


def evaluate(searcher: OptunaSearch, trials: int, sign: float = 1.0) -> list[dict[str, Any]]:
    """Run ``loss = (x - 3)^2`` on suggestions, one after the other."""
    configs = []
    for number in range(trials):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        configs.append(config)
        searcher.on_trial_complete(str(number), {"loss": sign * (config["x"] - 3) ** 2})
    return configs


def test_every_domain_is_respected() -> None:
    searcher = prepared(seed=0)
    models = set()
    for number in range(30):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        assert list(config) == list(SPACE)
        assert 1e-4 <= config["lr"] <= 1e-1
        assert round(config["momentum"] * 10) / 10 == config["momentum"]
        assert config["decay"] * 2 % 1 == 0
        assert config["depth"] in range(1, 9)
        assert config["width"] in range(8, 65, 8)
        assert config["units"] in range(4, 65)
        assert -10 < config["noise"] < 20
        assert config["kind"] in ("a", "b")
        assert config["shape"] in [(1, 2), {"x": 1}]
        assert 0 <= config["head"]["dropout"] <= 1
        assert config["head"]["fixed"] == 3
        assert config["twice"] == config["depth"] * 2
        models.add(config["model"]["name"])
        assert set(config["model"]) == (
            {"name", "leaves"} if config["model"]["name"] == "tree" else {"name"}
        )
        searcher.on_trial_complete(str(number), {"loss": float(number)})
    assert models == {"tree", "line"}


def test_conversion_to_optunas_distributions() -> None:
    searcher = prepared(seed=0)
    searcher.suggest("a")
    distributions = searcher.study.trials[0].distributions
    kinds = optuna.distributions
    assert distributions["lr"] == kinds.FloatDistribution(1e-4, 1e-1, log=True)
    assert distributions["momentum"] == kinds.FloatDistribution(0, 0.9, step=0.1)
    assert distributions["depth"] == kinds.IntDistribution(1, 8)
    assert distributions["width"] == kinds.IntDistribution(8, 64, step=8)
    assert distributions["units"] == kinds.IntDistribution(4, 64, log=True)
    assert distributions["kind"] == kinds.CategoricalDistribution(("a", "b"))
    assert distributions["shape"] == kinds.CategoricalDistribution((0, 1))
    assert distributions["head/dropout"] == kinds.FloatDistribution(0, 1)
    assert "head/fixed" not in distributions


def test_the_same_seed_gives_the_same_trials() -> None:
    space = {"x": tune.uniform(-10, 10)}
    first = evaluate(prepared(space, seed=5), 20)
    assert first == evaluate(prepared(space, seed=5), 20)
    assert first != evaluate(prepared(space, seed=6), 20)


def test_it_comes_closer_than_random_search() -> None:
    space = {"x": tune.uniform(-100, 100)}
    best = {}
    for name in ("optuna", "random"):
        searcher = create_searcher(name, seed=1)
        searcher.set_search_properties("loss", "min", space)
        searcher.total(60)
        losses = []
        for number in range(60):
            config = searcher.suggest(str(number))
            assert isinstance(config, dict)
            losses.append((config["x"] - 3) ** 2)
            searcher.on_trial_complete(str(number), {"loss": losses[-1]})
        best[name] = min(losses)
    assert best["optuna"] < best["random"]


def test_a_mode_learned_late_turns_the_sign() -> None:
    searcher = OptunaSearch(seed=1)
    searcher.set_search_properties(None, None, {"x": tune.uniform(-100, 100)})
    first = searcher.suggest("first")
    assert isinstance(first, dict)
    searcher.set_search_properties("loss", "max", {})
    searcher.on_trial_complete("first", {"loss": -((first["x"] - 3) ** 2)})
    found = evaluate(searcher, 60, sign=-1)
    assert min(abs(config["x"] - 3) for config in found[30:]) < 3
    assert searcher.study.direction.name == "MINIMIZE"


def test_given_points_come_first_whatever_their_domain() -> None:
    point = {
        "lr": 0.01,
        "shape": {"x": 1},
        "noise": 6.5,
        "head": {"dropout": 0.25},
        "model": {"name": "tree", "leaves": 4},
    }
    searcher = prepared(points_to_evaluate=[point], seed=0)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["lr"] == 0.01
    assert config["shape"] == {"x": 1}
    assert config["noise"] == pytest.approx(6.5)
    assert config["head"] == {"dropout": 0.25, "fixed": 3}
    assert config["model"] == {"name": "tree", "leaves": 4}


def test_what_is_told() -> None:
    searcher = prepared({"x": tune.uniform(0, 1)}, seed=0)
    for name in "abcd":
        searcher.suggest(name)
    searcher.on_trial_complete("a", {"loss": 1.0, "early_stopped": False})
    searcher.on_trial_complete("b", {"loss": 2.0, "early_stopped": True, "training_iteration": 4})
    searcher.on_trial_complete("c", None, error=True)
    searcher.on_trial_complete("d", {"loss": float("nan")})
    searcher.on_trial_complete("unknown", {"loss": 1.0})
    states = [trial.state.name for trial in searcher.study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert searcher.study.trials[1].intermediate_values == {4: 2.0}


def test_define_by_run() -> None:
    def space(trial: Any) -> dict[str, Any]:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            trial.suggest_float("model/x", 0, 1)
        return {"constant": 3}

    searcher = OptunaSearch(space, metric="loss", mode="min", seed=0)
    assert searcher.set_search_properties("loss", "min", {})
    for number in range(10):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        assert config["constant"] == 3
        assert ("model" in config) == (config["kind"] == "a")
        searcher.on_trial_complete(str(number), {"loss": 1.0})


def test_a_space_of_optunas_distributions() -> None:
    searcher = OptunaSearch({"x": optuna.distributions.IntDistribution(1, 3)}, seed=0)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["x"] in (1, 2, 3)
    assert not searcher.set_search_properties("loss", "min", {"y": tune.uniform(0, 1)})


def test_another_sampler() -> None:
    sampler = optuna.samplers.RandomSampler(seed=0)
    searcher = prepared({"x": tune.uniform(0, 1)}, sampler=sampler)
    searcher.suggest("a")
    assert searcher.study.sampler is sampler


def test_grids_are_refused() -> None:
    searcher = OptunaSearch()
    with pytest.raises(ValueError, match=r"a: Optuna cannot enumerate a grid_search.*choice"):
        searcher.set_search_properties("loss", "min", {"a": tune.grid_search([1])})


def test_optuna_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'skate\[tune\]'"):
        OptunaSearch()


def test_the_paths_of_2022() -> None:
    from skate.tune.suggest.basic_variant import BasicVariantGenerator
    from skate.tune.suggest.optuna import OptunaSearch as Older

    assert Older is OptunaSearch
    assert tune.suggest.BasicVariantGenerator is BasicVariantGenerator
