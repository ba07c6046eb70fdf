"""Several things at the same time: threads, waiting calls, what is stopped while it waits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import skate
from skate.exceptions import ActorDiedError, GetTimeoutError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
def identity(x: Any) -> Any:
    return x


@skate.remote
class Sleeper:
    def __init__(self, seconds: float = 0.0) -> None:
        time.sleep(seconds)
        self.calls: list[Any] = []

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def note(self, item: Any) -> list[Any]:
        self.calls.append(item)
        return self.calls


def test_threads_of_the_driver() -> None:
    def work(number: int) -> int:
        refs = [identity.remote(number * 100 + i) for i in range(50)]
        while refs:
            ready, refs = skate.wait(refs, num_returns=min(5, len(refs)), timeout=30)
            assert all(value // 100 == number for value in skate.get(ready, timeout=30))
        return skate.get(skate.put(number))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8), timeout=50)) == list(range(8))


def test_threads_of_a_task() -> None:
    @skate.remote
    def work() -> list[int]:
        def one(i: int) -> int:
            return skate.get(identity.remote(i))

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, range(8)))

    assert skate.get(work.remote(), timeout=40) == list(range(8))


def test_threads_of_an_actor() -> None:
    @skate.remote
    class Background:
        def __init__(self) -> None:
            self.results: list[int] = []
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()

        def work(self) -> None:
            for i in range(5):
                self.results.append(skate.get(identity.remote(i)))

        def finish(self) -> list[int]:
            self.thread.join(timeout=30)
            return self.results

    assert skate.get(Background.remote().finish.remote(), timeout=40) == list(range(5))


def test_calls_before_the_constructor_has_finished_keep_their_order() -> None:
    sleeper = Sleeper.remote(0.3)
    refs = [sleeper.note.remote(i) for i in range(20)]
    assert skate.get(refs[-1], timeout=30) == list(range(20))


def test_calls_of_several_callers_keep_the_order_of_each() -> None:
    sleeper = Sleeper.remote()

    @skate.remote
    def notes(handle: Any, name: str) -> None:
        skate.get([handle.note.remote((name, i)) for i in range(30)])

    skate.get([notes.remote(sleeper, name) for name in "ab"], timeout=40)
    seen = skate.get(sleeper.note.remote("end"), timeout=30)
    for name in "ab":
        assert [i for who, i in seen[:-1] if who == name] == list(range(30))


@pytest.mark.differs("inline", reason="a call has finished before get is called")
def test_get_of_a_busy_actor_times_out() -> None:
    sleeper = Sleeper.remote()
    busy, queued = sleeper.sleep.remote(0.5), sleeper.note.remote(1)
    with pytest.raises(GetTimeoutError):
        skate.get(queued, timeout=0.05)
    assert skate.get([busy, queued], timeout=30) == [0.5, [1]]


@pytest.mark.differs("inline", reason="a call has finished before kill is called")
def test_kill_fails_what_runs_and_what_waits() -> None:
    sleeper = Sleeper.remote()
    skate.get(sleeper.note.remote(0), timeout=30)
    refs = [sleeper.sleep.remote(30), sleeper.note.remote(1)]
    skate.wait(refs, timeout=0.2)
    started = time.monotonic()
    skate.kill(sleeper)
    for ref in refs:
        with pytest.raises(ActorDiedError):
            skate.get(ref, timeout=20)
    assert time.monotonic() - started < 10


@pytest.mark.differs("inline", reason="an actor has started before kill is called")
def test_kill_of_what_has_not_started() -> None:
    sleeper = Sleeper.remote(20)
    ref = sleeper.note.remote(1)
    skate.kill(sleeper)
    with pytest.raises(ActorDiedError):
        skate.get(ref, timeout=20)


@pytest.mark.differs("inline", reason="it runs what asks for too much")
def test_actor_that_asks_for_too_much(caplog: pytest.LogCaptureFixture) -> None:
    greedy = Sleeper.options(num_gpus=16).remote()
    ref = greedy.note.remote(1)
    with pytest.raises(GetTimeoutError):
        skate.get(ref, timeout=1)
    assert "Sleeper" in caplog.text
    assert "GPU" in caplog.text
    skate.kill(greedy)
    with pytest.raises(ActorDiedError):
        skate.get(ref, timeout=20)


@pytest.mark.differs("inline", reason="a call has finished before cancel is called")
def test_cancel_of_a_call_that_waits() -> None:
    sleeper = Sleeper.remote()
    busy, queued, last = sleeper.sleep.remote(0.5), sleeper.note.remote(1), sleeper.note.remote(2)
    skate.cancel(queued)
    with pytest.raises(TaskCancelledError):
        skate.get(queued, timeout=30)
    # The actor is not harmed, and the call has not run.
    assert skate.get([busy, last], timeout=30) == [0.5, [2]]


def test_cancel_of_what_is_no_task() -> None:
    ref = skate.put(1)
    skate.cancel(ref)
    assert skate.get(ref) == 1


@pytest.mark.differs("inline", reason="a task has finished before cancel is called")
def test_cancel_leaves_other_tasks_alone() -> None:
    @skate.remote
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    long, short = sleep.remote(30), sleep.remote(0.5)
    skate.wait([short], timeout=0.2)
    skate.cancel(long)
    with pytest.raises(TaskCancelledError):
        skate.get(long, timeout=20)
    assert skate.get(short, timeout=20) == 0.5


@pytest.mark.differs("inline", reason="a task has finished before cancel is called")
def test_cancelled_argument() -> None:
    @skate.remote
    def sleep() -> None:
        time.sleep(30)

    slow = sleep.remote()
    waiting = identity.remote(slow)
    skate.cancel(slow)
    with pytest.raises(TaskCancelledError):
        skate.get(waiting, timeout=20)


def test_gpu_is_shared_in_parts() -> None:
    @skate.remote(num_gpus=0.5, num_cpus=0)
    def which() -> list[int]:
        return skate.get_gpu_ids()

    assert skate.get([which.remote() for _ in range(4)], timeout=30) == [[0]] * 4


@pytest.mark.differs("inline", reason="nothing holds resources when the caller can look")
def test_available_resources_follow_what_runs() -> None:
    total = skate.cluster_resources()

    @skate.remote(num_cpus=1, resources={"widget": 2})
    class Holder:
        def ready(self) -> None: ...

    holder = Holder.remote()
    skate.get(holder.ready.remote(), timeout=30)
    left = skate.available_resources()
    assert left["widget"] == total["widget"] - 2
    skate.kill(holder)
    deadline = time.monotonic() + 20
    while skate.available_resources() != total:
        assert time.monotonic() < deadline, skate.available_resources()
        time.sleep(0.02)


@pytest.mark.differs("inline", reason="nothing holds resources when the caller can look")
def test_memory_is_a_resource() -> None:
    total = skate.cluster_resources()["memory"]
    most = max(row["Resources"]["memory"] for row in skate.nodes())

    @skate.remote(num_cpus=0)
    class Holder:
        def held(self) -> float:
            return float(skate.get_runtime_context().get_assigned_resources()["memory"])

    @skate.remote(num_cpus=0)
    def one() -> int:
        return 1

    part = int(most * 0.75)
    holders = [Holder.options(memory=part).remote() for _ in skate.nodes()]
    assert skate.get([holder.held.remote() for holder in holders], timeout=30) == [part] * len(
        holders
    )
    assert skate.available_resources()["memory"] == total - part * len(holders)
    waiting = one.options(memory=part).remote()
    assert skate.get(one.options(memory=int(most * 0.2)).remote(), timeout=30) == 1
    assert skate.wait([waiting], timeout=0.3)[0] == []
    skate.kill(holders[0])
    assert skate.get(waiting, timeout=30) == 1
