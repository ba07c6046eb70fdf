"""Values that are easy to get wrong on their way."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import skate
from skate.exceptions import ObjectStoreFullError, SerializationError, TaskError

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
def identity(x: Any) -> Any:
    return x


def test_exceptions_as_values_are_not_raised() -> None:
    @skate.remote
    def returns() -> Any:
        return ValueError("a value")

    for ref in (returns.remote(), skate.put(ValueError("a value"))):
        value = skate.get(ref)
        assert type(value) is ValueError
        assert value.args == ("a value",)
        assert skate.get(identity.remote(ref)).args == ("a value",)


def test_caught_task_errors_as_values() -> None:
    @skate.remote
    def fail() -> None:
        raise KeyError("k")

    @skate.remote
    def catch() -> Any:
        try:
            skate.get(fail.remote())
        except KeyError as error:
            return error

    value = skate.get(catch.remote())
    assert isinstance(value, KeyError)
    assert isinstance(value, TaskError)


def test_own_ref_comes_back() -> None:
    ref = skate.put("mine")
    (back,) = skate.get(identity.remote([ref]))
    assert back == ref
    del ref
    gc.collect()
    assert skate.get(back) == "mine"


def test_ref_of_a_pending_task_comes_back() -> None:
    (back,) = skate.get(identity.remote([identity.remote("later")]))
    assert skate.get(back) == "later"


def test_refs_through_many_hands() -> None:
    ref = skate.put(np.arange(100_000))
    box: Any = [ref]
    for _ in range(5):
        box = skate.get(identity.remote(box))
    del ref
    gc.collect()
    assert int(skate.get(box[0])[-1]) == 99_999


def test_ref_that_only_a_pending_task_holds() -> None:
    refs = [identity.remote(skate.put(np.full(50_000, i))) for i in range(20)]
    gc.collect()
    assert [int(skate.get(ref)[0]) for ref in refs] == list(range(20))


def test_nested_ref_that_only_a_pending_task_holds() -> None:
    @skate.remote
    def first(box: list[Any]) -> Any:
        return skate.get(box[0])

    refs = [first.remote([skate.put(i)]) for i in range(50)]
    gc.collect()
    assert skate.get(refs) == list(range(50))


def test_many_refs_as_arguments() -> None:
    @skate.remote
    def total(*numbers: int, **named: int) -> int:
        return sum(numbers) + sum(named.values())

    refs = [skate.put(i) for i in range(300)]
    assert skate.get(total.remote(*refs, a=refs[1], b=refs[2])) == sum(range(300)) + 3


def test_many_results() -> None:
    @skate.remote(num_returns=100)
    def many() -> Any:
        return range(100)

    refs = many.remote()
    assert skate.get(refs[50]) == 50
    assert skate.get(refs) == list(range(100))


def test_generator_as_several_results() -> None:
    @skate.remote(num_returns=2)
    def pair() -> Any:
        return (i * 10 for i in range(2))

    assert skate.get(pair.remote()) == [0, 10]


def test_array_in_a_closure() -> None:
    weights = np.arange(200_000, dtype=np.float64)

    @skate.remote
    def total() -> float:
        return float(weights.sum())

    assert skate.get(total.remote()) == float(weights.sum())


def test_functions_of_one_name() -> None:
    def make(number: int) -> Any:
        @skate.remote
        def same_name() -> int:
            return number

        return same_name

    assert skate.get([make(i).remote() for i in range(5)]) == list(range(5))


def test_arrays_inside_structures() -> None:
    value = {"a": [np.arange(5), np.ones((300, 300))], "b": (np.zeros(3, dtype="i1"), "text")}
    result = skate.get(identity.remote(value))
    assert (result["a"][0] == value["a"][0]).all()
    assert (result["a"][1] == 1).all()
    assert result["b"][1] == "text"


def test_same_array_twice_in_a_value() -> None:
    array = np.arange(100_000)
    a, b = skate.get(identity.remote([array, array]))
    assert a is b


def test_value_that_contains_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    result = skate.get(identity.remote(loop))
    assert result[1] is result


def test_value_nested_too_deeply() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError):
        skate.put(deep)
    with pytest.raises(SerializationError):
        identity.remote(deep)
    while deep:  # taken apart by hand: freeing it in one go is recursive
        deep = deep[0]


def test_classes_and_functions_as_values() -> None:
    class Local:
        def hello(self) -> str:
            return "hello"

    kind = skate.get(identity.remote(Local))
    assert kind().hello() == "hello"
    assert skate.get(identity.remote(lambda: 5))() == 5
    assert skate.get(identity.remote(dict)) is dict


def test_memory_of_dropped_objects_is_used_again(no_session: str) -> None:
    skate.init(num_cpus=1, object_store_memory=100 * 1024 * 1024)
    array = np.zeros(2_000_000)  # 16 MB, thirty times
    for i in range(30):
        array[0] = i
        ref = skate.put(array)
        assert skate.get(ref)[0] == i
        assert skate.get(identity.remote(ref))[0] == i


def test_more_objects_than_memory(no_session: str) -> None:
    skate.init(num_cpus=1, object_store_memory=64 * 1024 * 1024)
    kept = [skate.put(bytes([i]) * 10_000_000) for i in range(12)]

    @skate.remote
    def make() -> bytes:
        return b"x" * 60_000_000

    assert len(skate.get(make.remote(), timeout=30)) == 60_000_000
    assert [skate.get(ref)[-1] for ref in kept] == list(range(12))


@pytest.mark.differs("inline", reason="its objects are in the memory of the process, without limit")
def test_an_object_larger_than_the_store(no_session: str) -> None:
    skate.init(num_cpus=1, object_store_memory=64 * 1024 * 1024)
    with pytest.raises(ObjectStoreFullError, match="object_store_memory"):
        skate.put(bytes(100_000_000))

    @skate.remote
    def make() -> bytes:
        return bytes(100_000_000)

    with pytest.raises(ObjectStoreFullError):
        skate.get(make.remote(), timeout=30)
    assert len(skate.get(skate.put(bytes(10_000_000)))) == 10_000_000
