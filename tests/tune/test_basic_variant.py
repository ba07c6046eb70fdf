"""Random and grid search."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.search import (
    FINISHED,
    BasicVariantGenerator,
    ConcurrencyLimiter,
    Searcher,
    create_searcher,
)
from skate.tune.search.points import named_values
from skate.tune.search.searcher import check_objective
from skate.tune.search.variant_generator import generate_variants


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


def test_points_take_the_place_of_passes_over_the_grid() -> None:
    # The example of Ray's documentation: four samples, six trials.
    space = {"a": tune.grid_search([1, 2]), "b": tune.randint(0, 3)}
    points = [{"a": 2, "b": 2}, {"a": 1}, {"b": 2}]
    found = suggestions(BasicVariantGenerator(points, random_state=0), space, 4)
    assert [config["a"] for config in found] == [2, 1, 1, 2, 1, 2]
    assert [found[position]["b"] for position in (0, 2, 3)] == [2, 2, 2]
    more = suggestions(BasicVariantGenerator(points, random_state=0), space, 1)
    assert len(more) == 4  # all points are tried, even if there are more of them than samples


def test_draws_that_stay_for_a_pass_over_the_grid() -> None:
    space = {
        "a": tune.grid_search([1, 2, 3]),
        "x": tune.uniform(0, 1),
        "m": tune.choice([{"y": tune.uniform(0, 1)}, {"z": tune.uniform(0, 1)}]),
    }
    found = suggestions(BasicVariantGenerator(constant_grid_search=True, random_state=0), space, 2)
    assert found[0]["x"] == found[1]["x"] == found[2]["x"] != found[3]["x"] == found[5]["x"]
    assert found[0]["m"] == found[2]["m"]


def test_points_outside_of_their_domain_are_tried_with_a_warning() -> None:
    space = {"model": {"x": tune.uniform(0, 1)}}
    with pytest.warns(UserWarning, match=r"sets 'model/x' to 3, outside of Float"):
        found = suggestions(BasicVariantGenerator([{"model": {"x": 3}}]), space, 1)
    assert found == [{"model": {"x": 3}}]


def test_points_in_the_category_that_has_room_for_them() -> None:
    space = {
        "m": tune.choice([{"x": tune.uniform(0, 1)}, {"x": tune.uniform(5, 6)}]),
        "n": {"deep": {"k": tune.randint(0, 9)}},
        "l": [tune.randn(), 7],
    }
    point = {"m": {"x": 5.5}, "n/deep/k": 4, "l": [0.5, 7]}
    found = suggestions(BasicVariantGenerator([point]), space, 1)
    assert found == [{"m": {"x": 5.5}, "n": {"deep": {"k": 4}}, "l": [0.5, 7]}]


def test_a_best_configuration_of_an_earlier_run_is_a_point() -> None:
    space = {
        "x": tune.uniform(0, 1),
        "constant": [1, {"a": 2}],
        "twice": tune.sample_from(lambda config: config.x * 2),
        "grid": tune.grid_search([1, {"k": tune.uniform(0, 1)}]),
    }
    earlier = suggestions(BasicVariantGenerator(random_state=0), space, 2)
    again = suggestions(BasicVariantGenerator(earlier, random_state=1), space, 4)
    assert again == earlier


def test_functions_that_draw_from_global_generators_follow_the_seed() -> None:
    numpy = pytest.importorskip("numpy")
    space = {
        "a": tune.sample_from(lambda: random.random()),
        "b": tune.sample_from(lambda config: float(numpy.random.uniform(0, config.a))),
    }
    first = suggestions(BasicVariantGenerator(random_state=1), space, 5)
    random.seed(3)
    numpy.random.seed(3)
    expected = random.random(), numpy.random.random()
    random.seed(3)
    numpy.random.seed(3)
    assert suggestions(BasicVariantGenerator(random_state=1), space, 5) == first
    assert (random.random(), numpy.random.random()) == expected
    assert len({config["a"] for config in first}) == 5


def test_generators_of_numpy_as_seeds() -> None:
    numpy = pytest.importorskip("numpy")
    space = {"x": tune.uniform(0, 1)}
    for make in (numpy.random.default_rng, numpy.random.RandomState, numpy.int64):
        one = suggestions(BasicVariantGenerator(random_state=make(4)), space, 3)
        assert one == suggestions(BasicVariantGenerator(random_state=make(4)), space, 3)
    with pytest.raises(TypeError, match="random_state wants an integer"):
        BasicVariantGenerator(random_state="now")


def test_a_grid_goes_on_where_it_was(tmp_path: Path) -> None:
    space = {"a": tune.grid_search(list(range(5))), "b": tune.grid_search([1, 2])}
    searcher = BasicVariantGenerator(random_state=0)
    searcher.set_search_properties(None, None, space)
    searcher.total(1)
    whole = [searcher.suggest(str(number)) for number in range(4)]
    searcher.save(tmp_path / "state")
    again = BasicVariantGenerator()
    again.set_search_properties(None, None, space)
    again.total(1)
    again.restore(tmp_path / "state")
    while (suggestion := again.suggest("next")) != FINISHED:
        whole.append(suggestion)
    assert whole == [{"a": a, "b": b} for b in (1, 2) for a in range(5)]


def test_variants_without_a_run() -> None:
    space = {"a": tune.grid_search([1, 2]), "m": {"x": tune.uniform(0, 1)}, "c": 3}
    found = list(generate_variants(space, constant_grid_search=True, random_state=0))
    assert [config["a"] for _, config in found] == [1, 2]
    assert [set(drawn) for drawn, _ in found] == [{"a", "m/x"}] * 2


def test_searchers_by_name() -> None:
    searcher = create_searcher(
        "random", seed=3, metric="loss", mode="min", points_to_evaluate=[{"x": 1}]
    )
    assert isinstance(searcher, BasicVariantGenerator)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_concurent'"):
        create_searcher("random", max_concurent=3)
    with pytest.raises(ValueError, match="did you mean 'optuna'"):
        create_searcher("optun")


@pytest.mark.parametrize("package", ["search", "suggest"])
def test_the_paths_of_today_and_of_2022(package: str) -> None:
    homes = {
        "basic_variant": ["BasicVariantGenerator"],
        "repeater": ["Repeater", "TRIAL_INDEX"],
        "variant_generator": ["grid_search", "generate_variants"],
    }
    if package == "search":
        homes |= {
            "searcher": ["Searcher"],
            "concurrency_limiter": ["ConcurrencyLimiter"],
            "optuna.optuna_search": ["OptunaSearch"],
            "sample": ["Domain", "uniform"],
        }
    else:
        homes |= {"suggestion": ["Searcher", "ConcurrencyLimiter"], "optuna": ["OptunaSearch"]}
    for home, names in homes.items():
        module = importlib.import_module(f"skate.tune.{package}.{home}")
        assert all(hasattr(module, name) for name in names)
    whole = importlib.import_module(f"skate.tune.{package}")
    for name in ("Searcher", "ConcurrencyLimiter", "Repeater", "BasicVariantGenerator"):
        assert getattr(whole, name) is getattr(tune.search, name)
    assert importlib.import_module("skate.tune.sample").uniform is tune.uniform


def test_a_state_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no searcher has saved its state"):
        BasicVariantGenerator().restore_from_dir(tmp_path)


def test_objectives_that_make_no_sense() -> None:
    for metric, mode in ((["a"], "min"), (["a", "b"], ["min"]), (None, ["min"]), ([], [])):
        with pytest.raises(ValueError, match="a list of metrics and a list of as many modes"):
            check_objective(metric, mode)
    with pytest.raises(ValueError, match="mode has to be 'min' or 'max', got 'best'"):
        check_objective(["a"], ["best"])
    with pytest.raises(TypeError, match="metric has to be a name"):
        check_objective(3, "min")


def test_points_with_lists_of_another_length() -> None:
    searcher = BasicVariantGenerator([{"l": [0.5]}])
    with pytest.raises(ValueError, match=r"sets 'l' to \[0.5\]; the search space has 2 items"):
        searcher.set_search_properties("loss", "min", {"l": [tune.uniform(0, 1), 7]})


def test_points_are_of_the_category_that_would_have_drawn_them() -> None:
    space = {"m": tune.choice([tune.quniform(0, 1, 0.25), tune.uniform(0, 2), {"x": 1}, [1, 2]])}
    for value, position in ((0.5, 0), (0.3, 1), (1.5, 1), ({"x": 1}, 2), ([1, 2], 3), (9, 0)):
        assert set(named_values(space, {"m": value})) <= {"m", f"m/{position}"}


@pytest.mark.usefixtures("inline")
def test_a_searcher_that_is_used_up_is_told_of() -> None:
    searcher = BasicVariantGenerator()

    def run() -> int:
        space = {"x": tune.uniform(0, 1)}
        options: dict[str, Any] = {"search_alg": searcher, "num_samples": 2, "verbose": 0}
        return len(tune.run(lambda config: {"loss": 1}, config=space, **options).trials)

    assert run() == 2
    with pytest.warns(RuntimeWarning, match="has nothing to suggest.* make a new one for each run"):
        assert run() == 0
