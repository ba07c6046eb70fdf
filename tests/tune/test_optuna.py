"""Search with Optuna: conversion of spaces, seeds, what is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert states == ["COMPLETE", "PRUNED", "FAIL", "PRUNED"]
    assert searcher.study.trials[1].intermediate_values == {4: 2.0}
    assert searcher.study.trials[3].value is None


def test_where_trials_diverge_few_are_tried() -> None:
    searcher = prepared({"x": tune.uniform(0, 1)}, seed=0)
    tried = []
    for number in range(60):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        tried.append(config["x"])
        # Best just below 0.5, and nothing comes out beyond.
        loss = 1 - config["x"] if config["x"] < 0.5 else float("nan")
        searcher.on_trial_complete(str(number), {"loss": loss})
    # Told as failed, they would be as if never tried: 36 of the last 40.
    assert sum(x > 0.5 for x in tried[20:]) < 25


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
    with pytest.raises(ValueError, match=r"m/a: Optuna cannot enumerate a grid_search.*choice"):
        OptunaSearch({"m": {"a": tune.grid_search([1])}})
    with pytest.raises(TypeError, match="the search space has to be a dict, got list"):
        OptunaSearch([tune.uniform(0, 1)])  # type: ignore[arg-type]  # the mistake under test


def test_optuna_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'skate\[tune\]'"):
        OptunaSearch()


def test_the_paths_of_2022() -> None:
    from skate.tune.suggest.basic_variant import BasicVariantGenerator
    from skate.tune.suggest.optuna import OptunaSearch as Older

    assert Older is OptunaSearch
    assert tune.suggest.BasicVariantGenerator is BasicVariantGenerator


# --------------------------------------------------------------------------- several objectives


def both(config: dict[str, Any]) -> dict[str, Any]:
    """Schaffer's problem: everything between 0 and 2 is a good compromise."""
    return {"first": config["x"] ** 2, "second": -((config["x"] - 2) ** 2)}


def test_several_objectives_find_the_compromises() -> None:
    searcher = OptunaSearch(metric=["first", "second"], mode=["min", "max"], seed=0)
    assert searcher.set_search_properties("first", "min", {"x": tune.uniform(-10, 10)})
    assert searcher.metric == ["first", "second"]
    for number in range(50):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        searcher.on_trial_result(str(number), both(config))
        searcher.on_trial_complete(str(number), both(config))
    assert [direction.name for direction in searcher.study.directions] == ["MINIMIZE", "MAXIMIZE"]
    best = [trial.params["x"] for trial in searcher.study.best_trials]
    assert len(best) > 5
    assert all(-0.2 < x < 2.2 for x in best)


def test_what_is_told_of_several_objectives() -> None:
    searcher = OptunaSearch(
        {"x": tune.uniform(0, 1)}, metric=["a", "b"], mode=["max", "min"], seed=0
    )
    for name in "cdef":
        searcher.suggest(name)
    searcher.on_trial_complete("c", {"a": 1.0, "b": 2.0})
    searcher.on_trial_complete("d", {"a": 1.0})
    searcher.on_trial_complete("e", {"a": 1.0, "b": float("nan")})
    searcher.on_trial_complete("f", {"a": 3, "b": 4, "early_stopped": True})
    assert [trial.state.name for trial in searcher.study.trials] == [
        "COMPLETE", "FAIL", "FAIL", "COMPLETE",
    ]  # fmt: skip
    assert searcher.study.trials[3].values == [3.0, 4.0]


def test_a_run_with_several_objectives(engine: str) -> None:
    searcher = OptunaSearch(metric=["first", "second"], mode=["min", "max"], seed=0)
    analysis = tune.run(
        both,
        config={"x": tune.uniform(-3, 3)},
        search_alg=searcher,
        num_samples=8,
        verbose=0,
    )
    # The run itself goes by the first, unless another one is named.
    assert (analysis.default_metric, analysis.default_mode) == ("first", "min")
    assert len(searcher.study.best_trials) >= 1
    assert all(trial.state.name == "COMPLETE" for trial in searcher.study.trials)
    other = OptunaSearch(metric=["first", "second"], mode=["min", "max"], seed=0)
    analysis = tune.run(
        both,
        config={"x": tune.uniform(-3, 3)},
        search_alg=other,
        metric="second",
        num_samples=2,
        verbose=0,
    )
    assert (analysis.default_metric, analysis.default_mode) == ("second", "max")
    with pytest.raises(TypeError, match=r"the run goes by one metric.*for the searcher"):
        tune.run(both, metric=["first", "second"], verbose=0)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- samplers


def test_a_sampler_with_a_grid_ends_with_it() -> None:
    sampler = optuna.samplers.GridSampler({"x": [0.0, 0.5, 1.0], "n": [1, 2]}, seed=0)
    searcher = prepared({"x": tune.uniform(0, 1), "n": tune.randint(1, 3)}, sampler=sampler)
    live: list[str] = []
    seen = []
    while isinstance(config := searcher.suggest(f"t{len(seen)}"), dict):
        seen.append((config["x"], config["n"]))
        live.append(f"t{len(seen) - 1}")
        if len(live) == 4:
            searcher.on_trial_complete(live.pop(0), {"loss": 1.0})
    assert config == "FINISHED"
    assert sorted(seen) == [(x, n) for x in (0.0, 0.5, 1.0) for n in (1, 2)]
    for name in live:
        searcher.on_trial_complete(name, {"loss": 1.0})
    assert all(trial.state.name == "COMPLETE" for trial in searcher.study.trials)


@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
def test_a_sampler_that_tries_everything_ends_with_it() -> None:
    space = {
        "m": tune.choice([{"kind": "a", "x": tune.quniform(0, 1, 0.5)}, {"kind": "b"}]),
        "n": tune.randint(0, 2),
    }
    searcher = prepared(space, sampler=optuna.samplers.BruteForceSampler(seed=0))
    seen = []
    while isinstance(config := searcher.suggest(str(len(seen))), dict):
        seen.append(str(config))
        searcher.on_trial_complete(str(len(seen) - 1), {"loss": 1.0})
    assert len(seen) == len(set(seen)) == (3 + 1) * 2


def test_a_run_ends_when_the_sampler_has_tried_everything(engine: str) -> None:
    analysis = tune.run(
        lambda config: {"loss": config["n"]},
        config={"n": tune.randint(0, 5)},
        search_alg=OptunaSearch(sampler=optuna.samplers.GridSampler({"n": list(range(5))})),
        num_samples=-1,
        metric="loss",
        mode="min",
        verbose=0,
    )
    assert sorted(trial.config["n"] for trial in analysis.trials) == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------------- storage


def test_a_storage_keeps_the_study_with_its_intermediate_values(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    space = {"x": tune.uniform(0, 1)}
    first = prepared(space, storage=url, study_name="mine", seed=0)
    for name in ("a", "b"):
        assert isinstance(first.suggest(name), dict)
        for step in (1, 2):
            first.on_trial_result(name, {"loss": step / 4, "training_iteration": step})
    first.on_trial_complete("a", {"loss": 0.5, "training_iteration": 2})
    first.on_trial_complete("b", {"loss": 0.5, "training_iteration": 2, "early_stopped": True})
    second = prepared(space, storage=url, study_name="mine", seed=1)
    states = [(trial.state.name, trial.intermediate_values) for trial in second.study.trials]
    values = {1: 0.25, 2: 0.5}
    assert states == [("COMPLETE", values), ("PRUNED", values)]
    # Another direction than the one that the storage has: the signs are turned.
    third = OptunaSearch(space, metric="acc", mode="max", storage=url, study_name="mine")
    third.suggest("c")
    third.on_trial_complete("c", {"acc": 2.0})
    assert third.study.trials[2].value == -2.0
    fourth = OptunaSearch(
        space, metric=["a", "b"], mode=["min", "min"], storage=url, study_name="mine"
    )
    with pytest.raises(ValueError, match=r"1 objectives, mode=.* has 2; use another study_name"):
        fourth.suggest("d")


def test_a_storage_object_is_shared_by_runs() -> None:
    storage = optuna.storages.InMemoryStorage()
    for number in range(2):
        searcher = prepared({"x": tune.uniform(0, 1)}, storage=storage)
        searcher.suggest("a")
        searcher.on_trial_complete("a", {"loss": 1.0})
        assert len(searcher.study.trials) == number + 1


def test_storages_and_samplers_of_another_kind() -> None:
    with pytest.raises(TypeError, match="sampler wants a sampler of Optuna, got 'tpe'"):
        OptunaSearch(sampler="tpe")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(TypeError, match="storage wants a storage of Optuna or its URL"):
        OptunaSearch(storage=3)  # type: ignore[arg-type]  # the mistake under test


# --------------------------------------------------------------------------- what is known


def test_rewards_of_points_are_learned_not_tried() -> None:
    points = [{"x": 0.1, "k": "a"}, {"x": 0.9}, {"k": "b"}]
    searcher = prepared(
        {"x": tune.uniform(0, 1), "k": tune.choice(["a", "b"]), "c": 1},
        points_to_evaluate=points,
        evaluated_rewards=[1, 2.0, 3],
        seed=0,
    )
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["x"] not in (0.1, 0.9)
    known = searcher.study.trials[:3]
    assert [(trial.params, trial.value) for trial in known] == [
        ({"x": 0.1, "k": "a"}, 1.0),
        ({"x": 0.9}, 2.0),
        ({"k": "b"}, 3.0),
    ]
    with pytest.raises(ValueError, match="evaluated_rewards has 2 values for the 1"):
        OptunaSearch(points_to_evaluate=[{"x": 1}], evaluated_rewards=[1, 2])
    late = OptunaSearch({"x": tune.uniform(0, 1)}, points_to_evaluate=[{"x": 1}],
                        evaluated_rewards=[1])  # fmt: skip
    with pytest.raises(ValueError, match="evaluated_rewards wants to know what is better"):
        late.suggest("a")


def test_rewards_count_in_the_direction_of_the_run() -> None:
    searcher = OptunaSearch(
        {"x": optuna.distributions.FloatDistribution(0, 1)},
        metric=["a", "b"],
        mode=["max", "min"],
        points_to_evaluate=[{"x": 0.5}],
        evaluated_rewards=[[1.0, 2.0]],
    )
    assert searcher.study.trials[0].values == [1.0, 2.0]


def test_evaluations_from_elsewhere() -> None:
    searcher = prepared(
        {"x": tune.uniform(0, 1), "m": tune.choice([{"d": tune.randint(0, 5)}, 3]), "c": 7}
    )
    searcher.add_evaluated_point({"x": 0.5, "m": {"d": 2}, "c": 7}, 1.5, intermediate_values=[3, 2])
    searcher.add_evaluated_point({"x": 0.25, "m": 3}, 2.5, pruned=True)
    searcher.add_evaluated_point({"x": 0.75, "m": 3}, 2.5, error=True)
    done, pruned, failed = searcher.study.trials
    assert done.params == {"x": 0.5, "m": 0, "m/0/d": 2}
    assert (done.value, done.intermediate_values) == (1.5, {1: 3.0, 2: 2.0})
    assert [done.state.name, pruned.state.name, failed.state.name] == ["COMPLETE", "PRUNED", "FAIL"]
    with pytest.raises(ValueError, match="sets 'c' to 8, but it is no parameter"):
        searcher.add_evaluated_point({"x": 0.5, "c": 8}, 1.0)
    with pytest.raises(ValueError, match="no search space yet"):
        OptunaSearch().add_evaluated_point({"x": 1}, 1.0)
    with pytest.raises(ValueError, match="no mode yet"):
        OptunaSearch({"x": tune.uniform(0, 1)}).add_evaluated_point({"x": 1}, 1.0)
    with pytest.raises(TypeError, match="not a define-by-run function"):
        OptunaSearch(lambda trial: None, mode="min").add_evaluated_point({"x": 1}, 1.0)


def test_trials_of_an_earlier_run(engine: str) -> None:
    space = {"x": tune.uniform(0, 1), "twice": tune.sample_from(lambda config: config.x * 2)}
    analysis = tune.run(
        lambda config: {"loss": config["x"]}, config=space, num_samples=4, metric="loss",
        mode="min", verbose=0, seed=0,
    )  # fmt: skip
    searcher = prepared(space)
    searcher.add_evaluated_trials(analysis, "loss")
    found = [(trial.params["x"], trial.value) for trial in searcher.study.trials]
    assert found == [(trial.config["x"], trial.config["x"]) for trial in analysis.trials]
    with pytest.warns(UserWarning, match="none of the trials reported 'acc'"):
        searcher.add_evaluated_trials(analysis.trials[0], "acc")


# --------------------------------------------------------------------------- ways to write a space


def test_constants_of_a_function_that_defines_the_space() -> None:
    def space(trial: Any) -> dict[str, Any]:
        trial.suggest_float("model/x", 0, 1)
        return {"model": {"kind": "tree"}, "data": [1]}

    searcher = OptunaSearch(space, metric="loss", mode="min", points_to_evaluate=[{"model/x": 0.5}])
    assert searcher.suggest("a") == {"model": {"x": 0.5, "kind": "tree"}, "data": [1]}


def test_functions_that_define_no_space() -> None:
    def raises(trial: Any) -> None:
        trial.suggest_float("x", 0, 1)
        raise RuntimeError("no")

    searcher = OptunaSearch(raises, metric="loss", mode="min")
    with pytest.raises(RuntimeError, match="no") as caught:
        searcher.suggest("a")
    assert caught.value.__notes__ == ["raised by the define-by-run function of OptunaSearch"]
    assert searcher.study.trials[0].state.name == "FAIL"
    for returned in (3, {1: 2}):
        odd = OptunaSearch(lambda trial, returned=returned: returned, metric="loss", mode="min")
        with pytest.raises(TypeError, match="has to return None or a dict of constants"):
            odd.suggest("a")


def test_distributions_may_be_nested_and_have_constants_beside_them() -> None:
    kinds = optuna.distributions
    space = {"m": {"x": kinds.FloatDistribution(0, 1), "k": "tree"}, "n": 3}
    searcher = OptunaSearch(space, points_to_evaluate=[{"m": {"x": 0.5}}])
    assert searcher.suggest("a") == {"m": {"x": 0.5, "k": "tree"}, "n": 3}
    with pytest.raises(ValueError, match="sets 'y', which the search space does not have"):
        OptunaSearch(space, points_to_evaluate=[{"y": 1}])
    with pytest.raises(TypeError, match="n: the search space of OptunaSearch has domains of Skate"):
        OptunaSearch({**space, "n": tune.uniform(0, 1)})


def test_points_outside_of_their_domain_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sets 'x' to 3, outside of Float.*Optuna cannot be told"):
        prepared({"x": tune.uniform(0, 1)}, points_to_evaluate=[{"x": 3}])


def test_functions_that_return_domains_are_asked_of_optuna() -> None:
    space = {
        "low": tune.randint(0, 3),
        "high": tune.sample_from(lambda config: tune.uniform(config.low, config.low + 1)),
    }
    searcher = prepared(space, seed=0)
    for number in range(5):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        assert config["low"] <= config["high"] <= config["low"] + 1
        searcher.on_trial_complete(str(number), {"loss": config["high"]})
    assert set(searcher.study.trials[0].params) == {"low", "high"}


def test_a_space_of_its_own_in_a_run(engine: str) -> None:
    analysis = tune.run(
        lambda config: {"loss": config["x"] + config["offset"]},
        config={"offset": 10},
        search_alg=OptunaSearch({"x": tune.uniform(0, 1)}, seed=0),
        num_samples=3,
        metric="loss",
        mode="min",
        verbose=0,
    )
    assert all(set(trial.config) == {"x", "offset"} for trial in analysis.trials)


def test_a_storage_that_is_ahead_of_a_restored_searcher(tmp_path: Any) -> None:
    space = {"x": tune.uniform(0, 1)}
    options = {"storage": f"sqlite:///{tmp_path}/study.db", "seed": 0}
    searcher = prepared(space, **options)
    for name in ("a", "b"):
        searcher.suggest(name)
        searcher.on_trial_result(name, {"loss": 1.0, "training_iteration": 1})
    searcher.save(tmp_path / "state")
    searcher.on_trial_complete("a", {"loss": 1.0, "training_iteration": 1})
    searcher.suggest("lost with the driver")
    again = prepared(space, **options)
    again.restore(tmp_path / "state")
    for name in ("a", "b"):
        for step in (1, 2):  # the trial goes on from a checkpoint before its last result
            again.on_trial_result(name, {"loss": 2.0, "training_iteration": step})
        again.on_trial_complete(name, {"loss": 2.0, "training_iteration": 2, "early_stopped": True})
    told = [(trial.state.name, trial.intermediate_values) for trial in again.study.trials]
    assert told[:2] == [("COMPLETE", {1: 1.0}), ("PRUNED", {1: 1.0, 2: 2.0})]
    assert isinstance(again.suggest("c"), dict)


leaves = st.one_of(
    st.integers(),
    st.text(max_size=3),
    st.none(),
    st.just(tune.uniform(0, 1)),
    st.just(tune.quniform(0, 1, 0.25)),
    st.just(tune.loguniform(0.1, 10)),
    st.just(tune.randint(0, 5)),
    st.just(tune.qrandint(0, 20, 5)),
    st.just(tune.lograndint(1, 50)),
    st.just(tune.randn(3, 2)),
    st.just(tune.choice([1, "a", True])),
    st.just(tune.sample_from(lambda: 7)),
)
keys = st.sampled_from(["a", "b", "c", "d"])
spaces_strategy = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(keys, inner, max_size=3),
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.lists(inner, min_size=1, max_size=3).map(tune.choice),
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(space=spaces_strategy, seed=st.integers(0, 1000))
def test_what_one_searcher_proposed_another_one_takes_as_a_point(
    space: dict[str, Any], seed: int
) -> None:
    for name in ("optuna", "random"):
        made = create_searcher(name, seed=seed)
        made.set_search_properties("loss", "min", space)
        config = made.suggest("a")
        for other in ("optuna", "random"):
            again = create_searcher(other, seed=seed + 1, points_to_evaluate=[config])
            again.set_search_properties("loss", "min", space)
            assert again.suggest("a") == config
