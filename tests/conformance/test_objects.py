"""``put``, ``get``, ``wait`` and refs."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

import skate

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
def identity(x: Any) -> Any:
    return x


@skate.remote
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_put_and_get() -> None:
    assert skate.get(skate.put({"a": [1, 2]})) == {"a": [1, 2]}


def test_get_lists_in_their_order() -> None:
    refs = [skate.put(i) for i in range(100)]
    assert skate.get(refs[::-1]) == list(range(99, -1, -1))
    assert skate.get([]) == []
    assert skate.get(tuple(refs[:2])) == [0, 1]
    assert skate.get([refs[0], refs[0]]) == [0, 0]


def test_put_of_none() -> None:
    assert skate.get(skate.put(None)) is None


def test_refs_are_equal_hashable_and_printable() -> None:
    ref = skate.put(1)
    other = skate.put(1)
    assert ref == copy.copy(ref)
    assert ref != other
    assert len({ref, other, copy.copy(ref)}) == 2
    assert ref.hex() in repr(ref)
    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert ref != "something else"


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(10),
        lambda: np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000),
        lambda: np.asfortranarray(np.arange(600_000.0).reshape(600, 1000)),
        lambda: np.arange(1_000_000)[::3],
        lambda: np.zeros((0, 5)),
        lambda: np.array(3.5),
        lambda: np.array(["a", "bc"]),
        lambda: np.array([{"x": 1}, None], dtype=object),
        lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.arange("2020-01", "2020-02", dtype="datetime64[D]"),
        lambda: np.random.default_rng(0).random(300_000) > 0.5,
    ],
    ids=[
        "small",
        "2d",
        "fortran",
        "strided",
        "empty",
        "scalar",
        "text",
        "object",
        "structured",
        "dates",
        "bools",
    ],
)
def test_arrays_survive(make: Callable[[], Any]) -> None:
    array = make()
    for result in (skate.get(skate.put(array)), skate.get(identity.remote(array))):
        assert result.dtype == array.dtype
        assert result.shape == array.shape
        assert (result == array).all()


@pytest.mark.parametrize("length", [10, 1_000_000])
def test_arrays_are_read_only_everywhere(length: int) -> None:
    @skate.remote
    def write(array: Any) -> str:
        try:
            array[0] = 1
        except ValueError as error:
            return str(error)
        return "written"

    ref = skate.put(np.zeros(length))
    array = skate.get(ref)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert "read-only" in skate.get(write.remote(ref))
    assert "read-only" in skate.get(write.remote(np.zeros(length)))
    assert skate.get(ref)[0] == 0


def test_array_put_is_independent_of_the_original() -> None:
    array = np.zeros(1_000_000)
    ref = skate.put(array)
    array[:] = 1
    assert skate.get(ref).sum() == 0


def test_arrays_stay_intact_when_their_ref_is_gone() -> None:
    views = []
    for i in range(30):
        ref = skate.put(np.full(200_000, i))
        views.append(skate.get(ref))
        del ref
    gc.collect()
    for _ in range(30):
        skate.put(np.full(200_000, -1))
    for i, view in enumerate(views):
        assert (view == i).all()


def test_get_of_a_large_object_in_several_tasks() -> None:
    ref = skate.put(np.arange(500_000))

    @skate.remote
    def total(parts: list[Any]) -> int:
        return int(skate.get(parts[0]).sum())

    expected = 500_000 * 499_999 // 2
    assert skate.get([total.remote([ref]) for _ in range(8)]) == [expected] * 8


def test_objects_in_objects() -> None:
    inner = skate.put([1, 2])
    outer = skate.put({"inner": inner})
    middle = skate.put([outer])
    del inner, outer
    gc.collect()
    found = skate.get(skate.get(middle)[0])["inner"]
    assert skate.get(found) == [1, 2]


def test_put_inside_a_task_outlives_it() -> None:
    @skate.remote
    def make(n: int) -> Any:
        return [skate.put(np.full(n, 7))]

    for n in (3, 300_000):
        (ref,) = skate.get(make.remote(n))
        assert (skate.get(ref) == 7).all()
        assert int(skate.get(identity.remote(ref))[0]) == 7


def test_refs_pickled_by_others_stay_valid() -> None:
    ref = skate.put("pickled")
    data = pickle.dumps(ref)
    del ref
    gc.collect()
    assert skate.get(pickle.loads(data)) == "pickled"


def test_refs_in_closures() -> None:
    ref = skate.put(41)

    @skate.remote
    def f() -> int:
        return skate.get(ref) + 1

    assert skate.get(f.remote()) == 42


def test_future_and_await() -> None:
    ref = identity.remote(5)
    assert ref.future().result(timeout=30) == 5

    async def wait_for_two() -> Any:
        return await asyncio.gather(identity.remote(1), identity.remote(2))

    assert asyncio.run(asyncio.wait_for(wait_for_two(), 30)) == [1, 2]


def test_future_and_await_of_errors() -> None:
    @skate.remote
    def fail() -> None:
        raise KeyError("gone")

    assert isinstance(fail.remote().future().exception(timeout=30), KeyError)

    async def wait_for_it() -> None:
        await fail.remote()

    with pytest.raises(KeyError, match="gone"):
        asyncio.run(asyncio.wait_for(wait_for_it(), 30))


# --------------------------------------------------------------------------- wait


def test_wait_for_one_of_several() -> None:
    refs = [identity.remote(i) for i in range(5)]
    ready, rest = skate.wait(refs, timeout=30)
    assert len(ready) == 1
    assert len(rest) == 4
    assert set(ready) | set(rest) == set(refs)
    assert [ref for ref in refs if ref in rest] == rest


def test_wait_for_all() -> None:
    refs = [identity.remote(i) for i in range(10)]
    ready, rest = skate.wait(refs, num_returns=10, timeout=30)
    assert ready == refs
    assert rest == []


def test_wait_returns_at_most_what_was_asked_for() -> None:
    refs = [skate.put(i) for i in range(10)]
    ready, rest = skate.wait(refs, num_returns=3)
    assert ready == refs[:3]
    assert rest == refs[3:]


def test_wait_one_by_one() -> None:
    rest = [identity.remote(i) for i in range(200)]
    seen = []
    while rest:
        (ref,), rest = skate.wait(rest, timeout=30)
        seen.append(skate.get(ref))
    assert sorted(seen) == list(range(200))


def test_wait_counts_errors_as_ready() -> None:
    @skate.remote
    def fail() -> None:
        raise ValueError

    ref = fail.remote()
    assert skate.wait([ref], timeout=30) == ([ref], [])


def test_wait_with_nothing() -> None:
    assert skate.wait([]) == ([], [])
    assert skate.wait([], num_returns=1, timeout=1) == ([], [])


def test_wait_accepts_fetch_local() -> None:
    ref = skate.put(1)
    assert skate.wait([ref], num_returns=1, timeout=None, fetch_local=False) == ([ref], [])


@pytest.mark.differs("inline", reason="a task has finished before wait is called")
def test_wait_times_out() -> None:
    slow = sleep.remote(0.4)
    quick = skate.put(1)
    started = time.monotonic()
    assert skate.wait([slow, quick], num_returns=2, timeout=0.05) == ([quick], [slow])
    assert skate.wait([slow], timeout=0) == ([], [slow])
    assert time.monotonic() - started < 0.35
    assert skate.wait([slow], timeout=30) == ([slow], [])


@pytest.mark.differs("inline", reason="tasks run in the order of their calls")
def test_wait_returns_the_one_that_is_first() -> None:
    slow, quick = sleep.remote(1.0), sleep.remote(0.01)
    ready, rest = skate.wait([slow, quick], timeout=30)
    assert (ready, rest) == ([quick], [slow])


# --------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("wrong", [1, "ref", None, {"a": 1}, {1}, object(), iter([])])
def test_get_of_something_that_is_no_ref(wrong: object) -> None:
    with pytest.raises(ValueError, match="takes refs"):
        skate.get(wrong)


@pytest.mark.parametrize("wrong", [1, None, "x", [1]])
def test_get_of_a_list_with_something_that_is_no_ref(wrong: object) -> None:
    with pytest.raises(TypeError, match="element 1"):
        skate.get([skate.put(1), wrong])


def test_get_of_nested_lists() -> None:
    with pytest.raises(TypeError, match="list"):
        skate.get([[skate.put(1)]])


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_timeouts_that_make_no_sense(timeout: float) -> None:
    ref = skate.put(1)
    with pytest.raises(ValueError, match="timeout"):
        skate.get(ref, timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        skate.wait([ref], timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", True, [1]])
def test_timeouts_that_are_no_numbers(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        skate.get(skate.put(1), timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.0, 5, float("inf"), None])
def test_timeouts_that_do(timeout: float | None) -> None:
    ref = skate.put(1)
    assert skate.get(ref, timeout=timeout) == 1
    assert skate.get([ref], timeout=timeout) == [1]
    assert skate.wait([ref], timeout=timeout) == ([ref], [])


def test_put_of_a_ref() -> None:
    ref = skate.put(1)
    with pytest.raises(TypeError, match="put"):
        skate.put(ref)
    assert skate.get(skate.get(skate.put([ref]))[0]) == 1


def test_misuse_of_wait() -> None:
    refs = [skate.put(1), skate.put(2)]
    with pytest.raises(TypeError, match="list of refs"):
        skate.wait(refs[0])
    with pytest.raises(TypeError, match="element 0"):
        skate.wait([1])
    with pytest.raises(TypeError):
        skate.wait(5)
    with pytest.raises(ValueError, match="once"):
        skate.wait([refs[0], refs[0]])
    with pytest.raises(ValueError, match="once"):
        skate.wait([refs[0], copy.copy(refs[0])])
    for num_returns in (0, -1, 3):
        with pytest.raises(ValueError, match="num_returns"):
            skate.wait(refs, num_returns=num_returns)
    with pytest.raises(TypeError, match="num_returns"):
        skate.wait(refs, num_returns=1.5)


def test_misuse_of_cancel() -> None:
    with pytest.raises(TypeError, match="cancel"):
        skate.cancel("task")
    ref = identity.remote(1)
    with pytest.raises(TypeError, match="force"):
        skate.cancel(ref, force="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="recursive"):
        skate.cancel(ref, recursive=0)  # type: ignore[arg-type]
    assert skate.get(ref) == 1


# --------------------------------------------------------------------------- cancel


def test_cancel_of_what_has_finished() -> None:
    ref = identity.remote(1)
    assert skate.get(ref) == 1
    skate.cancel(ref)
    skate.cancel(ref, force=True)
    assert skate.get(ref) == 1


@pytest.mark.differs("inline", reason="a task has finished before cancel is called")
@pytest.mark.parametrize("force", [False, True])
def test_cancel_of_what_runs(force: bool) -> None:
    ref = sleep.remote(30)
    skate.wait([ref], timeout=0.3)
    skate.cancel(ref, force=force)
    started = time.monotonic()
    with pytest.raises((skate.exceptions.TaskCancelledError, skate.exceptions.WorkerCrashedError)):
        skate.get(ref, timeout=20)
    assert time.monotonic() - started < 15
    assert skate.get(identity.remote(1), timeout=30) == 1


@pytest.mark.differs("inline", reason="a task has finished before cancel is called")
def test_cancel_of_what_waits() -> None:
    blockers = [sleep.remote(1.0) for _ in range(2)]
    queued = [identity.remote(i) for i in range(4)]
    skate.cancel(queued[1])
    with pytest.raises(skate.exceptions.TaskCancelledError):
        skate.get(queued[1], timeout=30)
    assert skate.get([queued[0], *queued[2:]], timeout=30) == [0, 2, 3]
    skate.get(blockers, timeout=30)
