"""Calls are checked as Python itself would check them."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.api.signature import MAX_SHAPES, Signature


def plain(a, b=1):
    return a, b


def everything(a, /, b, c=1, *args, d, e=2, **kwargs):
    return a, b, c, args, d, e, kwargs


def nothing():
    return None


def keywords(*, a, b=1):
    return a, b


def positional(a, b, /):
    return a, b


def anything(*args, **kwargs):
    return args, kwargs


FUNCTIONS: list[Callable[..., Any]] = [plain, everything, nothing, keywords, positional, anything]


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.integers(), max_size=5),
    st.dictionaries(st.sampled_from("abcdexyz"), st.integers(), max_size=5),
)
def test_same_verdict_as_a_call(
    function: Callable[..., Any], args: list[int], kwargs: dict[str, int]
) -> None:
    try:
        function(*args, **kwargs)
        right = True
    except TypeError:
        right = False
    signature = Signature.of("f", function)
    for checker in (signature, pickle.loads(pickle.dumps(signature))):
        for _ in range(2):
            if right:
                checker.check(tuple(args), kwargs)
            else:
                with pytest.raises(TypeError, match=r"^f\(\): "):
                    checker.check(tuple(args), kwargs)


def test_bound_methods_leave_out_self() -> None:
    class C:
        def method(self, x: int) -> None:
            pass

        def no_self(*args: int) -> None:
            pass

    Signature.of("m", C.method, bound=True).check((1,), {})
    Signature.of("m", C.no_self, bound=True).check((1, 2), {})
    with pytest.raises(TypeError):
        Signature.of("m", C.method, bound=True).check((1, 2), {})


def test_classes() -> None:
    class WithInit:
        def __init__(self, x: int) -> None:
            pass

    class Without:
        pass

    Signature.of("c", WithInit).check((1,), {})
    Signature.of("c", Without).check((), {})
    with pytest.raises(TypeError):
        Signature.of("c", Without).check((1,), {})


def test_functions_that_tell_nothing_take_anything() -> None:
    signature = Signature.of("print", dict.fromkeys)
    if signature.parameters is None:
        signature.check((1, 2, 3, 4, 5), {"x": 1})
    Signature("unknown", None).check((1, 2), {"x": 1})


def test_partials() -> None:
    signature = Signature.of("p", functools.partial(plain, 1))
    signature.check((2,), {})
    with pytest.raises(TypeError):
        signature.check((2, 3), {})


def test_shapes_are_bounded() -> None:
    signature = Signature.of("anything", anything)
    for count in range(2 * MAX_SHAPES):
        signature.check((0,) * count, {})
    assert len(signature._shapes) == MAX_SHAPES
