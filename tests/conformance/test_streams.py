"""Generators: tasks and methods whose items are handed over one by one."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skate
from skate.exceptions import ActorDiedError, GetTimeoutError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@skate.remote
def fails_after(n: int) -> Iterator[int]:
    yield from range(n)
    raise KeyError("no more")


@skate.remote
class Source:
    def __init__(self) -> None:
        self.closed = 0

    def items(self, n: int) -> Iterator[Any]:
        try:
            yield from range(n)
        finally:
            self.closed += 1

    def times_closed(self) -> int:
        return self.closed

    def nothing(self) -> Iterator[int]:
        yield from ()


def values(generator: Any) -> list[Any]:
    return [skate.get(ref, timeout=30) for ref in generator]


def test_items_in_order() -> None:
    assert values(count.remote(300)) == list(range(300))
    assert values(count.remote(0)) == []


def test_methods_are_generators_too() -> None:
    source = Source.remote()
    assert values(source.items.remote(5)) == list(range(5))
    assert values(source.nothing.remote()) == []
    assert skate.get(source.times_closed.remote(), timeout=30) == 1


def test_iteration_by_hand() -> None:
    generator = count.remote(2)
    assert isinstance(generator, skate.ObjectRefGenerator)
    assert iter(generator) is generator
    assert [skate.get(next(generator)), skate.get(next(generator))] == [0, 1]
    with pytest.raises(StopIteration):
        next(generator)
    with pytest.raises(StopIteration):
        next(generator)
    assert generator.is_finished()


def test_large_items_and_items_with_refs() -> None:
    @skate.remote
    def mixed() -> Iterator[Any]:
        yield np.arange(100_000)
        yield [skate.put("inner")]
        yield "small"

    array, nested, small = values(mixed.remote())
    assert array.sum() == 4999950000
    assert skate.get(nested[0], timeout=30) == "inner"
    assert small == "small"


def test_refs_of_items_are_arguments() -> None:
    @skate.remote
    def total(*numbers: int) -> int:
        return sum(numbers)

    assert skate.get(total.remote(*count.remote(5)), timeout=30) == 10


def test_an_exception_is_the_last_item() -> None:
    refs = list(fails_after.remote(2))
    assert skate.get(refs[:2], timeout=30) == [0, 1]
    assert len(refs) == 3
    with pytest.raises(KeyError, match="no more"):
        skate.get(refs[2], timeout=30)


def test_an_item_that_cannot_be_pickled() -> None:
    @skate.remote
    def locks() -> Iterator[Any]:
        import threading

        yield 1
        yield threading.Lock()

    first, second = locks.remote()
    assert skate.get(first, timeout=30) == 1
    with pytest.raises(TypeError, match="pickle"):
        skate.get(second, timeout=30)


def test_arguments_that_failed() -> None:
    bad = next(fails_after.remote(0))
    (ref,) = count.remote(bad)
    with pytest.raises(KeyError, match="no more"):
        skate.get(ref, timeout=30)


def test_completed_says_when_it_has_ended() -> None:
    generator = count.remote(3)
    assert skate.get(generator.completed(), timeout=30) is None
    assert values(generator) == [0, 1, 2]
    with pytest.raises(KeyError, match="no more"):
        skate.get(fails_after.remote(1).completed(), timeout=30)


def test_wait_takes_generators() -> None:
    generator = count.remote(1)
    plain = next(count.remote(1))
    ready, rest = skate.wait([generator, plain], num_returns=2, timeout=30)
    assert ready == [generator, plain]
    assert rest == []
    assert generator.next_ready()
    with pytest.raises(TypeError, match="generator"):
        skate.get(generator)  # type: ignore[call-overload]


def test_async_iteration() -> None:
    async def total() -> int:
        return sum([await ref async for ref in count.remote(50)])

    assert asyncio.run(asyncio.wait_for(total(), 30)) == 1225


def test_dynamic_returns() -> None:
    ref = count.options(num_returns="dynamic").remote(4)
    refs = skate.get(ref, timeout=30)
    assert isinstance(refs, skate.DynamicObjectRefGenerator)
    assert len(refs) == 4
    assert values(refs) == values(refs) == [0, 1, 2, 3]

    @skate.remote
    def total(refs: Any) -> int:
        return sum(skate.get(list(refs)))

    assert skate.get(total.remote(ref), timeout=30) == 6


def test_dynamic_returns_of_one_that_raises() -> None:
    first, last = skate.get(fails_after.options(num_returns="dynamic").remote(1), timeout=30)
    assert skate.get(first) == 0
    with pytest.raises(KeyError):
        skate.get(last)


def test_a_fixed_number_of_returns_stays_possible() -> None:
    assert skate.get(count.options(num_returns=2).remote(2), timeout=30) == [0, 1]


def test_a_plain_function_may_return_a_generator() -> None:
    @skate.remote(num_returns="streaming")
    def squares(n: int) -> Any:
        return (i * i for i in range(n))

    assert values(squares.remote(4)) == [0, 1, 4, 9]
    assert values(squares.remote(0)) == []


def test_streaming_of_what_is_no_generator() -> None:
    @skate.remote(num_returns="streaming")
    def five() -> int:
        return 5

    (ref,) = five.remote()
    with pytest.raises(ValueError, match=r"five .*returned int, not a generator"):
        skate.get(ref, timeout=30)


def test_a_generator_cannot_be_passed_on() -> None:
    generator = count.remote(1)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(generator)
    with pytest.raises(TypeError, match="cannot be pickled"):
        skate.put([generator])


def test_a_dropped_generator_is_closed() -> None:
    source = Source.options(max_concurrency=2).remote()
    generator = source.items.options(_generator_backpressure_num_objects=1).remote(1000)
    assert skate.get(next(generator), timeout=30) == 0
    assert skate.get(source.times_closed.remote(), timeout=30) == 0
    del generator
    gc.collect()
    for _ in range(2000):
        if skate.get(source.times_closed.remote(), timeout=30):
            break
    assert skate.get(source.times_closed.remote(), timeout=30) == 1


def test_cancel_of_a_generator() -> None:
    generator = count.options(_generator_backpressure_num_objects=1).remote(1000)
    assert skate.get(next(generator), timeout=30) == 0
    skate.cancel(generator)
    *items, last = list(generator)
    assert len(items) < 5
    with pytest.raises(TaskCancelledError):
        skate.get(last, timeout=30)


def test_retries_continue_where_the_items_ended(tmp_path: Path) -> None:
    @skate.remote(max_retries=3, retry_exceptions=[OSError])
    def flaky(folder: str) -> Iterator[int]:
        attempts = len(list(Path(folder).iterdir()))
        Path(folder, str(attempts)).touch()
        for i in range(10):
            if i == 3 * attempts + 3 and attempts < 3:
                raise OSError(f"attempt {attempts}")
            yield 10 * attempts + i

    assert values(flaky.remote(str(tmp_path))) == [0, 1, 2, 13, 14, 15, 26, 27, 28, 39]


@pytest.mark.differs("inline", reason="an item is made when it is asked for")
def test_the_next_item_may_be_late() -> None:
    @skate.remote
    def slow() -> Iterator[int]:
        import time

        yield 1
        time.sleep(30)
        yield 2

    generator = slow.remote()
    assert skate.get(next(generator), timeout=30) == 1
    with pytest.raises(GetTimeoutError, match="item 1"):
        generator._next_sync(timeout_s=0.05)
    assert skate.wait([generator], timeout=0) == ([], [generator])
    skate.cancel(generator)


def test_async_functions_are_no_generators_either() -> None:
    async def numbers() -> Any:
        yield 1

    with pytest.raises(NotImplementedError, match="async"):
        skate.remote(numbers)


def test_a_generator_that_exits_ends_its_actor() -> None:
    @skate.remote
    class Leaver:
        def items(self) -> Iterator[int]:
            yield 1
            skate.actor.exit_actor()

        def stay(self) -> None: ...

    leaver = Leaver.remote()
    first, last = leaver.items.remote()
    assert skate.get(first, timeout=30) == 1
    for ref in (last, leaver.stay.remote()):
        with pytest.raises(ActorDiedError):
            skate.get(ref, timeout=30)
