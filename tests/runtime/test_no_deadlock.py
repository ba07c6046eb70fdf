"""Law 6: no deadlock by construction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import skate


@skate.remote
def fib(n: int) -> int:
    if n < 2:
        return n
    total: int = sum(skate.get([fib.remote(n - 1), fib.remote(n - 2)]))
    return total


def test_nested_tasks_on_one_cpu(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)
    assert skate.get(fib.remote(12), timeout=50) == 144


def test_many_tasks_that_each_start_and_await_another(session: None) -> None:
    @skate.remote
    def leaf(x: int) -> int:
        return x + 1

    @skate.remote
    def parent(x: int) -> int:
        value: int = skate.get(leaf.remote(x))
        return value * 2

    assert skate.get([parent.remote(i) for i in range(200)], timeout=50) == [
        (i + 1) * 2 for i in range(200)
    ]


def test_waiting_tasks_with_wait_instead_of_get(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote
    def leaf(x: int) -> int:
        return x

    @skate.remote
    def parent(x: int) -> int:
        ready, _ = skate.wait([leaf.remote(x), leaf.remote(x)], num_returns=2)
        return sum(skate.get(ready))

    assert skate.get([parent.remote(i) for i in range(20)], timeout=50) == [
        2 * i for i in range(20)
    ]


def test_actor_that_calls_itself_through_another(session: None) -> None:
    @skate.remote
    class Relay:
        def back(self, actor: Any, depth: int) -> int:
            value: int = skate.get(actor.descend.remote(self_of(actor), depth))
            return value

    @skate.remote
    class Top:
        def __init__(self) -> None:
            self.relay = Relay.remote()
            self.calls = 0

        def start(self, me: Any, depth: int) -> int:
            self.calls += 1
            if depth == 0:
                return self.calls
            value: int = skate.get(self.relay.back.remote(me, depth - 1))
            return value

        def descend(self, me: Any, depth: int) -> int:
            return self.start(me, depth)

    def self_of(actor: Any) -> Any:
        return actor

    top = Top.remote()
    assert skate.get(top.start.remote(top, 5), timeout=20) == 6


def test_order_of_a_callers_calls_is_kept_around_reentrant_ones(session: None) -> None:
    @skate.remote
    class Other:
        def poke(self, actor: Any) -> list[str]:
            actor.note.remote("first")
            actor.note.remote("second")
            seen: list[str] = skate.get(actor.read.remote())
            return seen

    @skate.remote
    class Log:
        def __init__(self) -> None:
            self.other = Other.remote()
            self.notes: list[str] = []

        def run(self, me: Any) -> list[str]:
            seen: list[str] = skate.get(self.other.poke.remote(me))
            return seen

        def note(self, text: str) -> None:
            self.notes.append(text)

        def read(self) -> list[str]:
            return self.notes

    log = Log.remote()
    assert skate.get(log.run.remote(log), timeout=20) == ["first", "second"]


def test_task_waits_for_its_actor_on_one_cpu(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote(num_cpus=1)
    class Adder:
        def add(self, a: int, b: int) -> int:
            return a + b

    @skate.remote
    def use() -> int:
        actor = Adder.remote()
        value: int = skate.get(actor.add.remote(1, 2))
        return value

    assert skate.get(use.remote(), timeout=20) == 3


def test_a_thread_of_an_actor_waits_for_a_task_on_one_cpu(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote
    def leaf() -> int:
        return 7

    @skate.remote(num_cpus=1)
    class Threaded:
        def start(self) -> None:
            self.results: list[int] = []
            self.thread = threading.Thread(target=self.work)
            self.thread.start()

        def work(self) -> None:
            self.results.append(skate.get(leaf.remote()))

        def results_after(self) -> list[int]:
            self.thread.join(20)
            return self.results

    actor = Threaded.remote()
    skate.get(actor.start.remote(), timeout=20)
    assert skate.get(actor.results_after.remote(), timeout=30) == [7]


def test_a_threaded_actor_waits_for_tasks_on_one_cpu(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote
    def leaf(x: int) -> int:
        return x

    @skate.remote(num_cpus=1, max_concurrency=4)
    class Threaded:
        def use(self, x: int) -> int:
            value: int = skate.get(leaf.remote(x))
            return value

    actor = Threaded.remote()
    assert skate.get([actor.use.remote(i) for i in range(20)], timeout=30) == list(range(20))
