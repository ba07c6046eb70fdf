"""Random and grid search."""

from __future__ import annotations

import random
from typing import Any

import pytest

from skate import tune
from skate.tune.search import FINISHED, BasicVariantGenerator, ConcurrencyLimiter, Searcher


def suggestions(
    searcher: Searcher, space: dict[str, Any], num_samples: int
) -> list[dict[str, Any]]:
    assert searcher.set_search_properties("loss", "min", space)
    total = searcher.total(num_samples)
    found = []
    while isinstance(suggestion := searcher.suggest(f"t{len(found)}"), dict):
        found.append(suggestion)
    assert suggestion == FINISHED
    assert len(found) == total
    return found


def test_each_grid_is_passed_num_samples_times() -> None:
    space = {"a": tune.grid_search([1, 2, 3]), "x": tune.uniform(0, 1)}
    found = suggestions(BasicVariantGenerator(random_state=0), space, 2)
    assert [config["a"] for config in found] == [1, 2, 3, 1, 2, 3]
    assert len({config["x"] for config in found}) == 6


def test_the_same_seed_gives_the_same_trials() -> None:
    space = {"x": tune.uniform(0, 1), "n": tune.randint(0, 100), "c": tune.choice(["a", "b", "c"])}
    first = suggestions(BasicVariantGenerator(random_state=3), space, 10)
    assert first == suggestions(BasicVariantGenerator(random_state=3), space, 10)
    assert first != suggestions(BasicVariantGenerator(random_state=4), space, 10)


def test_a_seeded_script_is_repeatable() -> None:
    space = {"x": tune.uniform(0, 1)}
    random.seed(12)
    first = suggestions(BasicVariantGenerator(), space, 3)
    random.seed(12)
    assert first == suggestions(BasicVariantGenerator(), space, 3)


def test_given_points_come_first() -> None:
    space = {
        "x": tune.uniform(0, 1),
        "model": {"depth": tune.randint(1, 9), "kind": "tree"},
    }
    searcher = BasicVariantGenerator(
        [{"x": 0.25, "model": {"depth": 4}}, {"model/depth": 7}], random_state=0
    )
    found = suggestions(searcher, space, 4)
    assert found[0] == {"x": 0.25, "model": {"depth": 4, "kind": "tree"}}
    assert found[1]["model"]["depth"] == 7
    assert len(found) == 4


def test_points_in_categories_with_parameters() -> None:
    space = {"m": tune.choice([{"kind": "a", "x": tune.uniform(0, 1)}, {"kind": "b"}])}
    found = suggestions(BasicVariantGenerator([{"m": {"kind": "a", "x": 0.5}}]), space, 1)
    assert found == [{"m": {"kind": "a", "x": 0.5}}]


def test_points_of_another_space() -> None:
    searcher = BasicVariantGenerator([{"lr": 0.1}])
    with pytest.raises(ValueError, match="sets 'lr', which the search space does not have"):
        searcher.set_search_properties("loss", "min", {"x": tune.uniform(0, 1)})
    with pytest.raises(TypeError, match="list of dicts"):
        BasicVariantGenerator({"x": 1})  # type: ignore[arg-type]  # the mistake under test


def test_at_most_so_many_live_trials() -> None:
    for limited in (
        BasicVariantGenerator(max_concurrent=2),
        ConcurrencyLimiter(BasicVariantGenerator(), max_concurrent=2),
    ):
        limited.set_search_properties("loss", "min", {"x": tune.uniform(0, 1)})
        assert limited.total(5) == 5
        assert isinstance(limited.suggest("a"), dict)
        assert isinstance(limited.suggest("b"), dict)
        assert limited.suggest("c") is None
        limited.on_trial_complete("a", {"loss": 1.0})
        assert isinstance(limited.suggest("c"), dict)


def test_no_limit() -> None:
    searcher = BasicVariantGenerator()
    searcher.set_search_properties(None, None, {"x": tune.grid_search([1, 2])})
    assert searcher.total(-1) is None
    assert [searcher.suggest(str(i)) for i in range(5)] == [{"x": v} for v in (1, 2, 1, 2, 1)]


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ConcurrencyLimiter(BasicVariantGenerator(), 0)
    with pytest.raises(TypeError, match="wants a Searcher"):
        ConcurrencyLimiter("optuna", 2)  # type: ignore[arg-type]  # the mistake under test
