"""Search spaces: nesting, grids, conditions, functions."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate import tune
from skate.tune.search import space as spaces
from skate.tune.search.sample import Domain


def draw_with(seed: int) -> spaces.Draw:
    rng = random.Random(seed)
    return lambda name, domain: domain.sample(rng)


leaves = st.one_of(
    st.integers(),
    st.text(max_size=3),
    st.none(),
    st.just(tune.uniform(0, 1)),
    st.just(tune.randint(0, 5)),
    st.just(tune.choice([1, "a"])),
    st.just(tune.sample_from(lambda: 7)),
    st.just(tune.grid_search([1, 2])),
)
keys = st.sampled_from(["a", "b", "c", "d"])
spaces_strategy = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(keys, inner, max_size=3), st.lists(inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def variables(node: Any) -> bool:
    if isinstance(node, Domain) or spaces.is_grid(node):
        return True
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return any(variables(child) for child in children)


@given(spaces_strategy, st.integers(0, 1000))
def test_a_configuration_has_the_shape_of_its_space(space: dict[str, Any], seed: int) -> None:
    spaces.validate(space)
    points = list(spaces.grid_points(space))
    assert len(points) == 2 ** len(spaces.grids(space))
    config = spaces.resolve(space, draw_with(seed), points[0])

    def compare(node: Any, value: Any) -> None:
        if isinstance(node, Domain) or spaces.is_grid(node):
            assert not isinstance(value, Domain)
            assert not spaces.is_grid(value)
        elif isinstance(node, dict):
            assert list(node) == list(value)
            for key in node:
                compare(node[key], value[key])
        elif isinstance(node, list):
            assert len(node) == len(value)
            for child, item in zip(node, value, strict=True):
                compare(child, item)
        else:
            assert node == value

    compare(space, config)
    assert not variables(config)


@given(spaces_strategy, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_configuration(space: dict[str, Any], seed: int) -> None:
    point = next(spaces.grid_points(space))
    first = spaces.resolve(space, draw_with(seed), point)
    assert first == spaces.resolve(space, draw_with(seed), point)


def test_grids_make_their_product_in_order() -> None:
    space = {"a": tune.grid_search([1, 2]), "m": {"b": tune.grid_search(["x", "y", "z"])}}
    points = list(spaces.grid_points(space))
    assert [(p["a"], p["m/b"]) for p in points] == [
        (1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z"),
    ]  # fmt: skip
    assert spaces.resolve(space, draw_with(0), points[4]) == {"a": 2, "m": {"b": "y"}}


def test_a_grid_value_may_itself_be_drawn() -> None:
    space = {"a": tune.grid_search([0, tune.uniform(5, 6)])}
    first, second = spaces.grid_points(space)
    assert spaces.resolve(space, draw_with(0), first) == {"a": 0}
    assert 5 <= spaces.resolve(space, draw_with(0), second)["a"] <= 6


def test_what_stands_in_a_category_is_drawn_only_with_it() -> None:
    space = {
        "model": tune.choice(
            [
                {"kind": "tree", "depth": tune.randint(1, 9)},
                {"kind": "line", "l2": tune.uniform(0, 1)},
            ]
        )
    }
    seen: set[str] = set()
    for seed in range(20):
        model = spaces.resolve(space, draw_with(seed))["model"]
        seen.add(model["kind"])
        assert set(model) == ({"kind", "depth"} if model["kind"] == "tree" else {"kind", "l2"})
    assert seen == {"tree", "line"}


def test_parameters_of_different_categories_have_different_names() -> None:
    names: list[str] = []

    def draw(name: str, domain: Domain) -> Any:
        names.append(name)
        return domain.sample(random.Random(len(names)))

    space = {"m": tune.choice([{"x": tune.uniform(0, 1)}, {"x": tune.uniform(5, 6)}])}
    for _ in range(20):
        spaces.resolve(space, draw)
    assert set(names) == {"m", "m/0/x", "m/1/x"}


def test_functions_see_what_was_drawn_in_whatever_order_they_are_written() -> None:
    space = {
        "double": tune.sample_from(lambda config: config["half"] * 4),
        "half": tune.sample_from(lambda spec: spec.config.x / 2),
        "nested": {"y": tune.sample_from(lambda config: config.other.z + 1)},
        "other": {"z": 3},
        "x": tune.choice([10]),
        "constant": tune.sample_from(lambda: 5),
        "default": tune.sample_from(lambda config=None, y=3: y),
    }
    config = spaces.resolve(space, draw_with(0))
    assert config["half"] == 5
    assert config["double"] == 20
    assert config["nested"] == {"y": 4}
    assert config["constant"] == 5
    assert config["default"] == 3


def test_functions_that_wait_for_each_other() -> None:
    space = {
        "a": tune.sample_from(lambda config: config["b"]),
        "b": tune.sample_from(lambda config: config["a"]),
    }
    with pytest.raises(ValueError, match="'a', 'b' wait for each other"):
        spaces.resolve(space, draw_with(0))


def test_a_function_that_fails_fails_as_itself() -> None:
    space = {"a": tune.sample_from(lambda config: config.missing)}
    with pytest.raises(AttributeError, match="no parameter 'missing'"):
        spaces.resolve(space, draw_with(0))


def test_the_parameters_that_vary_are_named_by_path() -> None:
    space = {
        "lr": tune.uniform(0, 1),
        "epochs": 5,
        "model": {"depth": tune.randint(1, 3), "kind": "tree"},
        "layers": [tune.choice([8]), 16],
        "head": tune.choice([{"size": 1}]),
    }
    config = spaces.resolve(space, draw_with(0))
    assert set(spaces.varying(space, config)) == {"lr", "model/depth", "layers/0", "head/size"}


def test_everything_varies_if_the_searcher_brought_the_space() -> None:
    assert spaces.varying({}, {"a": {"b": 1}, "c": 2}) == {"a/b": 1, "c": 2}


def test_spaces_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match="has to be a dict, got list"):
        spaces.validate([tune.uniform(0, 1)])
    with pytest.raises(ValueError, match="a: grid_search wants a list"):
        spaces.validate({"a": {"grid_search": []}})
    with pytest.raises(ValueError, match="cannot stand inside a choice"):
        spaces.validate({"a": tune.choice([{"b": tune.grid_search([1])}])})


def test_the_space_is_left_alone() -> None:
    inner = {"x": tune.uniform(0, 1), "y": [1, 2]}
    space = {"inner": inner}
    config = spaces.resolve(space, draw_with(0))
    config["inner"]["x"] = None
    assert isinstance(inner["x"], Domain)
