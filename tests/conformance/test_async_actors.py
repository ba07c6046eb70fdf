"""Actors with async methods, and refs in event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import skate
from skate.exceptions import ActorDiedError, NotSupportedError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("session")

ONE_AT_A_TIME = "a call has ended before the next one is made"


@skate.remote
def double(x: int) -> int:
    return 2 * x


@skate.remote
class Worker:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    async def note(self, item: Any) -> int:
        self.log.append(item)
        await asyncio.sleep(0)
        return len(self.log)

    def seen(self) -> list[Any]:
        return self.log

    def on_the_loop(self) -> bool:
        return asyncio.get_running_loop() is self.loop

    async def wait(self) -> str:
        await self.event.wait()
        return "released"

    def release(self) -> None:
        self.event.set()

    async def doubled(self, numbers: list[int]) -> list[int]:
        return list(await asyncio.gather(*[double.remote(x) for x in numbers]))

    async def fails(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("async")

    async def late(self, ref: list[Any]) -> Any:
        return await asyncio.wait_for(ref[0], 30)

    async def blocks(self, x: int) -> int:
        return skate.get(double.remote(x), timeout=30)

    async def name(self) -> str | None:
        await asyncio.sleep(0)
        return skate.get_runtime_context().get_task_name()

    async def leave(self) -> None:
        await asyncio.sleep(0)
        skate.actor.exit_actor()

    async def items(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    def plain_items(self, n: int) -> Iterator[int]:
        yield from range(n)

    @skate.method(num_returns=2)
    async def pair(self) -> tuple[int, int]:
        return 1, 2


def test_async_and_plain_methods() -> None:
    worker = Worker.remote()
    assert skate.get([worker.note.remote(i) for i in range(3)], timeout=30)[-1] == 3
    assert skate.get(worker.seen.remote(), timeout=30) == [0, 1, 2]
    assert skate.get(worker.on_the_loop.remote(), timeout=30) is True
    assert skate.get(worker.pair.remote(), timeout=30) == [1, 2]


def test_calls_start_in_order() -> None:
    worker = Worker.remote()
    skate.get([worker.note.remote(i) for i in range(500)], timeout=30)
    assert skate.get(worker.seen.remote(), timeout=30) == list(range(500))


def test_refs_are_awaited_inside() -> None:
    worker = Worker.remote()
    assert skate.get(worker.doubled.remote(list(range(50))), timeout=30) == [
        2 * i for i in range(50)
    ]
    assert skate.get(worker.late.remote([double.remote(4)]), timeout=30) == 8


def test_exceptions() -> None:
    worker = Worker.remote()
    with pytest.raises(KeyError, match="async"):
        skate.get(worker.fails.remote(), timeout=30)
    assert skate.get(worker.note.remote(1), timeout=30) == 1


def test_get_inside_an_async_method_works() -> None:
    assert skate.get(Worker.remote().blocks.remote(4), timeout=30) == 8


def test_each_call_knows_itself() -> None:
    worker = Worker.remote()
    names = [worker.name.options(name=f"call {i}").remote() for i in range(20)]
    assert skate.get(names, timeout=30) == [f"call {i}" for i in range(20)]


def test_generators_of_async_actors() -> None:
    worker = Worker.remote()
    assert [skate.get(ref) for ref in worker.items.remote(40)] == list(range(40))
    assert [skate.get(ref) for ref in worker.plain_items.remote(40)] == list(range(40))

    async def total() -> int:
        return sum([await ref async for ref in worker.items.remote(10)])

    assert asyncio.run(asyncio.wait_for(total(), 30)) == 45


def test_back_pressure_of_async_generators() -> None:
    worker = Worker.remote()
    limited = worker.items.options(_generator_backpressure_num_objects=2)
    assert [skate.get(ref) for ref in limited.remote(40)] == list(range(40))


def test_exit_actor_in_an_async_method() -> None:
    worker = Worker.remote()
    with pytest.raises(ActorDiedError):
        skate.get(worker.leave.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        skate.get(worker.seen.remote(), timeout=30)


@pytest.mark.differs("inline", reason=ONE_AT_A_TIME)
def test_calls_overlap() -> None:
    worker = Worker.remote()
    waiting = [worker.wait.remote() for _ in range(300)]
    assert skate.wait(waiting, timeout=0.1)[0] == []
    skate.get(worker.release.remote(), timeout=30)
    assert skate.get(waiting, timeout=30) == ["released"] * 300


@pytest.mark.differs("inline", reason=ONE_AT_A_TIME)
def test_max_concurrency_of_an_async_actor() -> None:
    @skate.remote(max_concurrency=3)
    class Gate:
        def __init__(self) -> None:
            self.inside = self.most = 0

        async def enter(self) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.01)
            self.inside -= 1

        async def highest(self) -> int:
            return self.most

    gate = Gate.remote()
    skate.get([gate.enter.remote() for _ in range(20)], timeout=30)
    assert skate.get(gate.highest.remote(), timeout=30) == 3


@pytest.mark.differs("inline", reason=ONE_AT_A_TIME)
def test_cancel_of_an_async_call() -> None:
    @skate.remote(max_concurrency=1)
    class Careful:
        def __init__(self) -> None:
            self.cancelled = 0

        async def sleep(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def count(self) -> int:
            return self.cancelled

    careful = Careful.remote()
    running, queued = careful.sleep.remote(), careful.sleep.remote()
    assert skate.wait([running], timeout=0.2)[0] == []
    skate.cancel(queued)
    skate.cancel(running)
    for ref in (running, queued):
        with pytest.raises(TaskCancelledError):
            skate.get(ref, timeout=30)
    assert skate.get(careful.count.remote(), timeout=30) == 1


@pytest.mark.differs("inline", reason=ONE_AT_A_TIME)
def test_get_in_an_async_method_lets_those_run_that_it_waits_for() -> None:
    @skate.remote
    class Other:
        def call(self, actor: Any) -> int:
            return skate.get(actor.answer.remote())

    @skate.remote
    class Caller:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def ask(self, other: Any, me: Any) -> int:
            return skate.get(other.call.remote(me), timeout=30)

        async def answer(self) -> int:
            await asyncio.sleep(0.01)
            return 42

    caller = Caller.remote()
    assert skate.get(caller.ask.remote(Other.remote(), caller), timeout=40) == 42


@pytest.mark.differs("native", reason="its calls overlap")
def test_an_async_actor_that_calls_itself_says_what_to_do() -> None:
    @skate.remote
    class Selfish:
        async def outer(self, me: Any) -> int:
            return await me.inner.remote()

        async def inner(self) -> int:
            return 1

    selfish = Selfish.remote()
    with pytest.raises(NotSupportedError, match="engine='native'"):
        skate.get(selfish.outer.remote(selfish))


def test_futures_and_timeouts_in_the_driver() -> None:
    async def main() -> list[Any]:
        return [
            await double.remote(1),
            await asyncio.wait_for(double.remote(2), 30),
            *await asyncio.gather(double.remote(3), double.remote(4)),
            await asyncio.wrap_future(double.remote(5).future()),
        ]

    assert asyncio.run(main()) == [2, 4, 6, 8, 10]


def test_many_refs_in_one_gather() -> None:
    async def main() -> int:
        return sum(await asyncio.gather(*[double.remote(i) for i in range(1000)]))

    assert asyncio.run(asyncio.wait_for(main(), 50)) == 999000


@pytest.mark.differs("inline", reason=ONE_AT_A_TIME)
def test_a_timeout_of_wait_for_leaves_nothing_behind() -> None:
    worker = Worker.remote()
    ref = worker.wait.remote()

    async def impatient() -> None:
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ref, 0.01)

    asyncio.run(impatient())
    assert not ref._cell.listeners
    skate.get(worker.release.remote(), timeout=30)
    assert skate.get(ref, timeout=30) == "released"
