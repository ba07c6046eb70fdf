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
    space = {"m": {"b": tune.grid_search(["x", "y", "z"])}, "a": tune.grid_search([1, 2])}
    points = list(spaces.grid_points(space))
    # The order is Ray's: that of the names, the first of them changing fastest.
    assert [(p["a"], p["m/b"]) for p in points] == [
        (1, "x"), (2, "x"), (1, "y"), (2, "y"), (1, "z"), (2, "z"),
    ]  # fmt: skip
    assert spaces.resolve(space, draw_with(0), points[3]) == {"a": 2, "m": {"b": "y"}}


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


def test_grids_inside_grids_exist_only_with_their_value() -> None:
    space = {
        "opt": tune.grid_search(
            [{"kind": "sgd", "lr": tune.grid_search([0.1, 0.2])}, {"kind": "adam"}]
        ),
        "n": tune.grid_search([1, 2]),
    }
    spaces.validate(space)
    configs = [spaces.resolve(space, draw_with(0), point) for point in spaces.grid_points(space)]
    sgd, adam = {"kind": "sgd"}, {"kind": "adam"}
    assert [(config["opt"], config["n"]) for config in configs] == [
        ({**sgd, "lr": 0.1}, 1), ({**sgd, "lr": 0.1}, 2),
        ({**sgd, "lr": 0.2}, 1), ({**sgd, "lr": 0.2}, 2),
        (adam, 1), (adam, 2),
    ]  # fmt: skip


def test_domains_inside_grid_values_have_names_of_their_own() -> None:
    space = {"a": tune.grid_search([{"x": tune.uniform(0, 1)}, {"x": tune.uniform(5, 6)}])}
    assert set(spaces.domains(space, conditional=True)) == {"a/0/x", "a/1/x"}


@given(spaces_strategy)
def test_each_grid_point_has_a_number(space: dict[str, Any]) -> None:
    points = list(spaces.grid_points(space))
    assert spaces.grid_size(space) == len(points)
    for index, point in enumerate(points):
        assert spaces.grid_point(space, index) == point
        # A grid that is given is no grid any more.
        assert spaces.grid_size(space, point) == 1


def test_functions_may_return_domains() -> None:
    space = {
        "low": tune.choice([10, 20]),
        "high": tune.sample_from(lambda config: tune.uniform(config.low, config.low + 1)),
        "model": tune.sample_from(
            lambda config: {"depth": tune.randint(config.low, config.low + 2), "low": config.low}
        ),
    }
    for seed in range(10):
        config = spaces.resolve(space, draw_with(seed))
        assert config["low"] <= config["high"] <= config["low"] + 1
        assert config["model"]["depth"] - config["low"] in (0, 1)
        assert config["model"]["low"] == config["low"]
    with pytest.raises(ValueError, match="a: a sample_from function cannot return a grid_search"):
        spaces.resolve({"a": tune.sample_from(lambda: {"b": tune.grid_search([1])})}, draw_with(0))


def test_functions_in_lists_and_tuples() -> None:
    space = {
        "layers": [
            tune.choice([4]),
            tune.sample_from(lambda config: config.layers[0] * 2),
            tune.sample_from(lambda config: sum(config["layers"][:2])),
        ],
        "pair": (1, {"deep": (tune.sample_from(lambda spec: spec.config.layers[1]), "x")}),
        "copy": tune.sample_from(lambda config: config.layers),
        "view": tune.sample_from(lambda config: [config.inner, (config.inner,)]),
        "inner": {"y": tune.sample_from(lambda: 5)},
    }
    config = spaces.resolve(space, draw_with(0))
    assert config["layers"] == config["copy"] == [4, 8, 12]
    assert config["pair"] == (1, {"deep": (8, "x")})
    assert type(config["pair"][1]["deep"]) is tuple
    assert config["view"] == [{"y": 5}, ({"y": 5},)]
    assert type(config["view"][0]) is dict


def test_spaces_without_end() -> None:
    itself: dict[str, Any] = {"x": tune.uniform(0, 1)}
    itself["itself"] = itself
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    for space in (itself, deep):
        with pytest.raises(ValueError, match="holds itself, or is nested deeper"):
            spaces.validate(space)


@pytest.mark.parametrize(
    "function",
    [
        lambda spec: spec.config.x,
        lambda spec: spec["config"]["x"],
        lambda config: config.x,
        lambda config: config["x"],
        lambda config=None: config["x"],
        lambda _: 3,
        lambda *args: args[0]["x"],
        lambda: 3,
        lambda x=3: x,
    ],
)
def test_functions_get_the_configuration_in_whichever_way_they_ask_for_it(function: Any) -> None:
    space = {"x": 3, "y": tune.sample_from(function)}
    assert spaces.resolve(space, draw_with(0))["y"] == 3


def test_given_values_are_not_drawn_and_functions_see_them() -> None:
    space = {
        "x": tune.uniform(0, 1),
        "m": tune.choice([{"k": tune.uniform(0, 1)}, 2]),
        "f": tune.sample_from(lambda: 1),
        "g": tune.sample_from(lambda config: config.f + config.x),
    }
    config = spaces.resolve(space, draw_with(0), fixed={"x": 5.0, "m": 2, "f": 10})
    assert config == {"x": 5.0, "m": 2, "f": 10, "g": 15.0}


def test_an_error_in_a_function_names_the_parameter() -> None:
    space = {"model": {"a": tune.sample_from(lambda config: 1 / config.zero)}, "zero": 0}
    with pytest.raises(AttributeError) as caught:
        spaces.resolve({"a": tune.sample_from(lambda config: config.missing)}, draw_with(0))
    assert caught.value.__notes__ == ["raised by the sample_from function of parameter 'a'"]
    with pytest.raises(ZeroDivisionError) as divided:
        spaces.resolve({**space, "zero": 0}, draw_with(0))
    assert "parameter 'model/a'" in divided.value.__notes__[0]


@pytest.mark.parametrize(
    ("space", "kind", "message"),
    [
        ({"m": {"lr": tune.uniform}}, TypeError, r"m/lr: is tune\.uniform itself; call it"),
        ({"m": [1, tune.grid_search]}, TypeError, r"m/1: is tune\.grid_search itself"),
        ({"m": tune.choice([{"x": tune.randn}])}, TypeError, r"m/0/x: is tune\.randn itself"),
        ({"m": {1, tune.uniform(0, 1)}}, TypeError, "m: parameters cannot stand in a set"),
        ({"a/b": tune.randn(), "a": {"b": tune.randn()}}, ValueError, "are called 'a/b'"),
        ({1: tune.randn(), "1": tune.randn()}, ValueError, "are called '1'"),
        ({"a": {"b": {"grid_search": "abc"}}}, ValueError, "a/b: grid_search wants a list"),
        ({"a": {"grid_search": 5}}, ValueError, "a: grid_search wants a list"),
        (
            {"a": tune.grid_search([tune.choice([tune.grid_search([1])])])},
            ValueError,
            "a/0/0: a grid_search cannot stand inside a choice",
        ),
    ],
)
def test_mistakes_are_named_by_their_path(
    space: dict[Any, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        spaces.validate(space)


def test_grids_of_anything_that_has_an_order() -> None:
    for values in (range(3), (0, 1, 2), {0: "a", 1: "b", 2: "c"}.keys()):
        space = {"a": {"grid_search": values}}
        spaces.validate(space)
        assert [point["a"] for point in spaces.grid_points(space)] == [0, 1, 2]


def test_constants_below_a_configuration() -> None:
    base = {"a": 1, "m": {"x": 1, "deep": {"y": 2}}, "l": [1]}
    above = {"m": {"x": 5, "deep": {"z": 3}}, "l": [2], "b": None}
    assert spaces.merged(base, above) == {
        "a": 1, "m": {"x": 5, "deep": {"y": 2, "z": 3}}, "l": [2], "b": None,
    }  # fmt: skip


def test_distributions_of_optuna_are_for_optuna() -> None:
    optuna = pytest.importorskip("optuna")
    space = {"m": {"x": optuna.distributions.FloatDistribution(0, 1)}}
    with pytest.raises(TypeError, match=r"m/x: is a distribution of Optuna.*OptunaSearch"):
        spaces.validate(space)
