"""Domains: what they draw, and what they refuse."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate import tune
from skate.tune.search.sample import Categorical, Domain, Float, Integer, Normal

seeds = st.integers(0, 2**32)
finite = st.floats(-1e6, 1e6)


@given(seeds, finite, finite)
def test_uniform_stays_within_its_bounds(seed: int, one: float, other: float) -> None:
    lower, upper = sorted((one, other))
    drawn = tune.uniform(lower, upper).sample(random.Random(seed))
    assert lower <= drawn <= upper


@given(seeds, st.floats(1e-9, 1e3), st.floats(1, 1e6))
def test_loguniform_stays_within_its_bounds(seed: int, lower: float, factor: float) -> None:
    upper = lower * factor
    drawn = tune.loguniform(lower, upper).sample(random.Random(seed))
    assert lower <= drawn <= upper


def test_loguniform_spends_as_much_on_each_decade() -> None:
    rng = random.Random(0)
    domain = tune.loguniform(1e-4, 1)
    decades = [math.floor(math.log10(domain.sample(rng))) for _ in range(4000)]
    for decade in (-4, -3, -2, -1):
        assert 880 < decades.count(decade) < 1120


@given(seeds, st.integers(-50, 50), st.integers(0, 100), st.sampled_from([0.1, 0.25, 1.0, 3.0]))
def test_quniform_draws_multiples_of_the_step(seed: int, start: int, steps: int, q: float) -> None:
    lower, upper = start * q, (start + steps) * q
    drawn = tune.quniform(lower, upper, q).sample(random.Random(seed))
    assert lower <= drawn <= upper
    assert math.isclose(drawn / q, round(drawn / q), abs_tol=1e-9)


def test_quniform_draws_its_ends_as_often_as_the_rest_and_without_noise() -> None:
    rng = random.Random(0)
    domain = tune.quniform(0, 0.3, 0.1)
    drawn = [domain.sample(rng) for _ in range(4000)]
    assert set(drawn) == {0.0, 0.1, 0.2, 0.3}
    for value in set(drawn):
        assert 880 < drawn.count(value) < 1120


@given(seeds, st.integers(-1000, 1000), st.integers(1, 1000))
def test_randint_excludes_the_upper_bound(seed: int, lower: int, width: int) -> None:
    drawn = tune.randint(lower, lower + width).sample(random.Random(seed))
    assert isinstance(drawn, int)
    assert lower <= drawn < lower + width


def test_lograndint_reaches_both_ends_and_nothing_beyond() -> None:
    rng = random.Random(0)
    domain = tune.lograndint(1, 9)
    assert {domain.sample(rng) for _ in range(2000)} == set(range(1, 9))


@given(seeds)
def test_qrandint_includes_the_upper_bound(seed: int) -> None:
    assert tune.qrandint(0, 20, 5).sample(random.Random(seed)) in (0, 5, 10, 15, 20)


@given(seeds)
def test_steps_on_a_logarithmic_scale(seed: int) -> None:
    rng = random.Random(seed)
    assert tune.qloguniform(0.5, 8, 0.5).sample(rng) * 2 == pytest.approx(
        round(tune.qloguniform(0.5, 8, 0.5).sample(random.Random(seed)) * 2)
    )
    assert tune.qlograndint(4, 64, 4).sample(rng) % 4 == 0


def test_randn_has_its_mean_and_deviation() -> None:
    rng = random.Random(0)
    drawn = [tune.randn(10, 2).sample(rng) for _ in range(4000)]
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(10, abs=0.2)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in drawn) / len(drawn))
    assert deviation == pytest.approx(2, abs=0.2)
    assert tune.qrandn(0, 1, 0.5).sample(rng) * 2 % 1 == 0


def test_choice_draws_the_objects_themselves() -> None:
    first, second = {"a": 1}, [2]
    rng = random.Random(0)
    drawn = [tune.choice([first, second]).sample(rng) for _ in range(50)]
    assert all(value is first or value is second for value in drawn)
    assert any(value is first for value in drawn)
    assert any(value is second for value in drawn)


def test_categories_are_found_by_value_and_type() -> None:
    domain = tune.choice([1, True, 1.0, "1"])
    assert domain.index(True) == 1
    assert domain.index("1") == 3
    with pytest.raises(ValueError, match="2 is none of"):
        domain.index(2)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: tune.loguniform(0, 1), ValueError, "lower bound above 0"),
        (lambda: tune.loguniform(-1, 1), ValueError, "lower bound above 0"),
        (lambda: tune.uniform(2, 1), ValueError, "bounds exchanged"),
        (lambda: tune.uniform(0, math.inf), ValueError, "finite"),
        (lambda: tune.uniform(math.nan, 1), ValueError, "finite"),
        (lambda: tune.uniform("0", 1), TypeError, "wants numbers"),
        (lambda: tune.quniform(0, 1, 0), ValueError, "step above 0"),
        (lambda: tune.quniform(0, 1, 0.3), ValueError, "multiples of the step"),
        (lambda: tune.randint(3, 3), ValueError, "has no value"),
        (lambda: tune.randint(0.5, 3), TypeError, "wants integers"),
        (lambda: tune.randint(0, 3.5), TypeError, "wants integers"),
        (lambda: tune.lograndint(0, 10), ValueError, "lower bound above 0"),
        (lambda: tune.randn(0, 0), ValueError, "deviation above 0"),
        (lambda: tune.choice([]), ValueError, "at least one value"),
        (lambda: tune.choice("abc"), TypeError, "list of values"),
        (lambda: tune.choice({1, 2}), TypeError, "no order"),
        (lambda: tune.grid_search([]), ValueError, "at least one value"),
        (lambda: tune.grid_search(3), TypeError, "list of values"),
        (lambda: tune.sample_from(3), TypeError, "wants a function"),
        (lambda: tune.sample_from(lambda a, b: 1), TypeError, "at most one argument"),
    ],
)
def test_domains_that_make_no_sense(make: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()  # type: ignore[operator]  # a lambda of the table above


def test_domains_compare_by_what_they_say() -> None:
    assert tune.uniform(0, 1) == Float(0, 1)
    assert tune.randint(0, 5) == Integer(0, 4)
    assert tune.choice([1, 2]) == Categorical((1, 2))
    assert tune.randn() == Normal(0.0, 1.0)


def test_steps_of_integers_need_not_fit_their_bounds() -> None:
    rng = random.Random(0)
    assert {tune.qrandint(1, 10, 3).sample(rng) for _ in range(200)} == {3, 6, 9}
    assert {tune.qlograndint(3, 17, 4).sample(rng) for _ in range(500)} == {4, 8, 12, 16}
    assert tune.qrandint(-7, 7, 5) == tune.qrandint(-5, 5, 5)
    with pytest.raises(ValueError, match=r"no multiple of 10 is in 1\.\.9"):
        tune.qrandint(1, 9, 10)


def test_whole_numbers_may_be_written_as_floats() -> None:
    domain = tune.randint(1, 1e4)
    assert domain == tune.randint(1, 10000)
    assert isinstance(domain.last, int)


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (tune.uniform(0, 1), [0, 1, 0.5], [-0.1, 1.1, "0", None, math.nan, True]),
        (tune.randint(0, 3), [0, 2, 2.0], [3, -1, 1.5, "0", math.inf]),
        (tune.qrandint(0, 3), [3], [4]),
        (tune.randn(), [-100, 100.5], ["x", math.nan]),
        (tune.choice([1, "a", [2]]), [1, "a", [2]], [True, "b", 2]),
        (tune.sample_from(lambda: 1), [object()], []),
    ],
)
def test_what_belongs_to_a_domain(domain: Domain, inside: list[Any], outside: list[Any]) -> None:
    assert all(domain.is_valid(value) for value in inside)
    assert not any(domain.is_valid(value) for value in outside)
