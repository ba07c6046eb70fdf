"""Law 6: no deadlock by construction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

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


@pytest.mark.parametrize("options", [{"max_concurrency": 2}, {"concurrency_groups": {"few": 1}}])
def test_a_threaded_actor_calls_itself_deeper_than_it_has_threads(
    session: None, options: dict[str, Any]
) -> None:
    @skate.remote
    class Recursive:
        def down(self, me: Any, depth: int) -> int:
            return depth and 1 + skate.get(me.down.remote(me, depth - 1))  # type: ignore[no-any-return]

    actor = Recursive.options(**options).remote()
    assert skate.get([actor.down.remote(actor, 20) for _ in range(3)], timeout=30) == [20] * 3


def test_threads_of_two_actors_that_call_each_other(session: None) -> None:
    @skate.remote(max_concurrency=2)
    class Player:
        def play(self, me: Any, other: Any, rounds: int) -> int:
            return rounds and 1 + skate.get(other.play.remote(other, me, rounds - 1))  # type: ignore[no-any-return]

    one, two = Player.remote(), Player.remote()
    assert skate.get(one.play.remote(one, two, 15), timeout=30) == 15


def test_children_that_are_only_started_keep_to_the_limit(session: None) -> None:
    """One of them at a time runs beyond it, as one that blocked its thread would."""

    @skate.remote(max_concurrency=2)
    class Counting:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.now = self.most = 0

        def child(self) -> None:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.01)
            with self.lock:
                self.now -= 1

        def parent(self, me: Any) -> int:
            skate.get([me.child.remote() for _ in range(30)])
            return self.most

    actor = Counting.remote()
    # The parent has one of the two threads; one child has the other, and one goes beyond.
    assert skate.get(actor.parent.remote(actor), timeout=30) <= 2
