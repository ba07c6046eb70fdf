"""Stopping calls and limiting them: cancel, time limits, retries of methods, groups, limits."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import skate
from skate.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    PendingCallsLimitExceeded,
    TaskCancelledError,
    TaskTimeoutError,
)

pytestmark = pytest.mark.usefixtures("session")

AT_ONCE = "a call has ended when remote() returns"


@skate.remote
def double(x: int) -> int:
    return 2 * x


@skate.remote
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


# --------------------------------------------------------------------------- timeout_s


def test_a_quick_task_keeps_its_time_limit() -> None:
    assert skate.get(double.options(timeout_s=30).remote(2), timeout=30) == 4
    items = [skate.get(ref) for ref in count.options(timeout_s=30).remote(3)]
    assert items == [0, 1, 2]


@skate.remote
def count(n: int) -> Any:
    yield from range(n)


def test_a_slow_task_says_where_and_how_long() -> None:
    ref = sleep.options(timeout_s=0.2).remote(1.0)
    with pytest.raises(
        TaskTimeoutError, match=r"sleep\(\) ran longer than timeout_s=0.2"
    ) as caught:
        skate.get(ref, timeout=30)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.pid
    assert caught.value.seconds >= 0.2
    assert f"pid {caught.value.pid}" in str(caught.value)


def test_a_slow_call_of_an_actor_leaves_the_actor_alive() -> None:
    @skate.remote
    class Plain:
        def sleep(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

    @skate.remote
    class Async:
        @skate.method(timeout_s=0.2)
        async def sleep(self, seconds: float) -> float:
            await asyncio.sleep(seconds)
            return seconds

    for actor in (Plain.remote(), Plain.options(max_concurrency=2).remote(), Async.remote()):
        with pytest.raises(TaskTimeoutError):
            skate.get(actor.sleep.options(timeout_s=0.2).remote(1.0), timeout=30)
        assert skate.get(actor.sleep.options(timeout_s=30).remote(0.0), timeout=30) == 0.0


def test_a_slow_task_is_retried_only_if_its_options_name_the_error(tmp_path: Path) -> None:
    @skate.remote(max_retries=2, timeout_s=0.5)
    def slow_at_first(folder: str) -> int:
        attempts = len(list(Path(folder).iterdir()))
        Path(folder, str(attempts)).touch()
        if not attempts:
            time.sleep(1.0)
        return attempts

    (tmp_path / "any").mkdir()
    with pytest.raises(TaskTimeoutError):
        skate.get(
            slow_at_first.options(retry_exceptions=True).remote(str(tmp_path / "any")), timeout=30
        )
    for index, kind in enumerate((TaskTimeoutError, TimeoutError)):
        folder = tmp_path / str(index)
        folder.mkdir()
        ref = slow_at_first.options(retry_exceptions=[kind]).remote(str(folder))
        assert skate.get(ref, timeout=30) == 1


def test_a_slow_generator_ends_with_the_error() -> None:
    @skate.remote(timeout_s=0.3)
    def slow() -> Any:
        yield 1
        time.sleep(1.0)
        yield 2

    first, last = slow.remote()
    assert skate.get(first, timeout=30) == 1
    with pytest.raises(TaskTimeoutError):
        skate.get(last, timeout=30)


def test_a_generator_that_waits_for_its_consumer_is_not_slow() -> None:
    @skate.remote(timeout_s=1.0, _generator_backpressure_num_objects=1)
    def produce() -> Any:
        yield from range(4)

    generator = produce.remote()
    assert skate.get(next(generator), timeout=30) == 0
    time.sleep(1.5)
    assert [skate.get(ref, timeout=30) for ref in generator] == [1, 2, 3]


# --------------------------------------------------------------------------- cancel


def test_cancel_of_what_has_ended_does_nothing() -> None:
    ref = double.remote(1)
    assert skate.get(ref, timeout=30) == 2
    skate.cancel(ref)
    skate.cancel(ref, force=True)
    assert skate.get(ref) == 2


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_force_is_not_for_actors() -> None:
    @skate.remote
    class Sleeper:
        def sleep(self) -> None:
            time.sleep(30)

    sleeper = Sleeper.remote()
    ref = sleeper.sleep.remote()
    with pytest.raises(ValueError, match=r"skate\.kill"):
        skate.cancel(ref, force=True)
    skate.cancel(ref)
    with pytest.raises(TaskCancelledError):
        skate.get(ref, timeout=30)


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_cancel_by_a_borrower() -> None:
    @skate.remote
    def cancel_it(refs: list[Any]) -> None:
        skate.cancel(refs[0])

    ref = sleep.options(num_cpus=0).remote(60)
    skate.get(cancel_it.remote([ref]), timeout=30)
    with pytest.raises(TaskCancelledError):
        skate.get(ref, timeout=30)


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_cancel_of_calls_of_a_threaded_actor() -> None:
    @skate.remote(max_concurrency=2)
    class Sleeper:
        def __init__(self) -> None:
            self.event = threading.Event()

        def wait(self) -> bool:
            return self.event.wait(30)

        def release(self) -> None:
            self.event.set()

    sleeper = Sleeper.options(concurrency_groups={"control": 1}).remote()
    running = [sleeper.wait.remote() for _ in range(2)]
    queued = [sleeper.wait.remote() for _ in range(3)]
    skate.wait(running, timeout=0.2)
    for ref in queued[:2]:
        skate.cancel(ref)
        with pytest.raises(TaskCancelledError):
            skate.get(ref, timeout=30)
    # It waits for a lock, which is C code: the interruption comes when that returns.
    skate.cancel(running[0])
    skate.get(sleeper.release.options(concurrency_group="control").remote(), timeout=30)
    assert skate.get([running[1], queued[2]], timeout=30) == [True] * 2
    with pytest.raises(TaskCancelledError):
        skate.get(running[0], timeout=30)


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_cancel_stops_children_of_async_calls() -> None:
    @skate.remote
    class Parent:
        def __init__(self) -> None:
            self.refs: list[Any] = []

        async def work(self) -> None:
            self.refs.append(sleep.options(num_cpus=0).remote(60))
            await self.refs[0]

        async def child(self) -> list[Any]:
            return self.refs

    parent = Parent.remote()
    ref = parent.work.remote()
    while not (refs := skate.get(parent.child.remote(), timeout=30)):
        pass
    skate.cancel(ref)
    for cancelled in (ref, refs[0]):
        with pytest.raises(TaskCancelledError):
            skate.get(cancelled, timeout=30)


# --------------------------------------------------------------------------- retries of methods


@skate.remote
class Flaky:
    def __init__(self) -> None:
        self.attempts = 0

    def work(self, succeed_at: int) -> int:
        self.attempts += 1
        if self.attempts < succeed_at:
            raise OSError(f"attempt {self.attempts}")
        return self.attempts

    @skate.method(retry_exceptions=[OSError], max_task_retries=5)
    def stubborn(self, succeed_at: int) -> int:
        return Flaky.work(self, succeed_at)  # type: ignore[no-any-return]


def test_exceptions_of_methods_are_retried_if_asked() -> None:
    flaky = Flaky.options(max_task_retries=2).remote()
    with pytest.raises(OSError, match="attempt 1"):
        skate.get(flaky.work.remote(2), timeout=30)
    assert skate.get(flaky.work.options(retry_exceptions=True).remote(4), timeout=30) == 4
    with pytest.raises(OSError, match="attempt 7"):
        skate.get(flaky.work.options(retry_exceptions=[OSError]).remote(100), timeout=30)
    with pytest.raises(OSError, match="attempt 8"):
        skate.get(flaky.work.options(retry_exceptions=[KeyError]).remote(100), timeout=30)
    assert skate.get(flaky.stubborn.remote(12), timeout=30) == 12


def test_without_task_retries_no_exception_is_retried() -> None:
    flaky = Flaky.remote()
    with pytest.raises(OSError, match="attempt 1"):
        skate.get(flaky.work.options(retry_exceptions=True).remote(3), timeout=30)


# --------------------------------------------------------------------------- groups and limits


@pytest.mark.differs("inline", reason=AT_ONCE)
@pytest.mark.parametrize("kind", ["threaded", "async"])
def test_concurrency_groups(kind: str) -> None:
    if kind == "threaded":

        @skate.remote(concurrency_groups={"io": 2, "compute": 1})
        class Grouped:
            def __init__(self) -> None:
                self.event = threading.Event()
                self.inside = {"io": 0, "compute": 0}

            @skate.method(concurrency_group="io")
            def read(self) -> None:
                self.inside["io"] += 1
                self.event.wait(30)

            def compute(self) -> None:
                self.inside["compute"] += 1
                self.event.wait(30)

            def count(self) -> dict[str, int]:
                return self.inside

            def release(self) -> None:
                self.event.set()

    else:

        @skate.remote(concurrency_groups={"io": 2, "compute": 1})
        class Grouped:  # type: ignore[no-redef]
            def __init__(self) -> None:
                self.event = asyncio.Event()
                self.inside = {"io": 0, "compute": 0}

            @skate.method(concurrency_group="io")
            async def read(self) -> None:
                self.inside["io"] += 1
                await self.event.wait()

            async def compute(self) -> None:
                self.inside["compute"] += 1
                await self.event.wait()

            async def count(self) -> dict[str, int]:
                return self.inside

            async def release(self) -> None:
                self.event.set()

    actor = Grouped.remote()
    refs = [actor.read.remote() for _ in range(4)]
    refs += [actor.compute.options(concurrency_group="compute").remote() for _ in range(3)]
    while (seen := skate.get(actor.count.remote(), timeout=30)) != {"io": 2, "compute": 1}:
        assert seen["io"] <= 2
        assert seen["compute"] <= 1
    skate.get(actor.release.remote(), timeout=30)
    skate.get(refs, timeout=30)
    assert skate.get(actor.count.remote(), timeout=30) == {"io": 4, "compute": 3}


def test_a_group_that_does_not_exist() -> None:
    @skate.remote(max_concurrency=2, concurrency_groups={"io": 1})
    class Grouped:
        def work(self) -> int:
            return 1

    @skate.remote
    class Plain:
        def work(self) -> int:
            return 1

    actor = Grouped.remote()
    with pytest.raises(ValueError, match=r"'oi': the actor has 'io'"):
        actor.work.options(concurrency_group="oi")
    with pytest.raises(ValueError, match=r"'io': the actor has none"):
        Plain.remote().work.options(concurrency_group="io")
    assert skate.get(actor.work.options(concurrency_group="io").remote(), timeout=30) == 1


def test_a_method_in_a_group_that_is_not_declared() -> None:
    @skate.remote
    class Grouped:
        @skate.method(concurrency_group="io")
        def read(self) -> None: ...

    with pytest.raises(ValueError, match="concurrency_groups"):
        Grouped.remote()
    assert skate.get(Grouped.options(concurrency_groups={"io": 1}).remote().read.remote()) is None


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_max_pending_calls() -> None:
    @skate.remote(max_pending_calls=3)
    class Sleeper:
        def sleep(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

    sleeper = Sleeper.remote()
    refs = [sleeper.sleep.remote(0.2) for _ in range(3)]
    with pytest.raises(PendingCallsLimitExceeded, match="max_pending_calls=3"):
        sleeper.sleep.remote(0)
    assert skate.get(refs, timeout=30) == [0.2] * 3
    assert skate.get(sleeper.sleep.remote(0), timeout=30) == 0


@pytest.mark.differs("inline", reason=AT_ONCE)
@pytest.mark.parametrize("passes", [True, False])
def test_calls_pass_one_whose_arguments_are_not_ready(passes: bool) -> None:
    @skate.remote
    class Log:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def note(self, item: Any) -> list[Any]:
            self.seen.append(item)
            return self.seen

    log = Log.options(allow_out_of_order_execution=passes).remote()
    late = log.note.remote(sleep.remote(0.5))
    soon = log.note.remote("soon")
    assert skate.get(soon, timeout=30) == (["soon"] if passes else [0.5, "soon"])
    assert 0.5 in skate.get(late, timeout=30)


@pytest.mark.differs("inline", reason=AT_ONCE)
def test_calls_with_unready_arguments_of_an_actor_that_dies() -> None:
    @skate.remote(max_concurrency=2)
    class Actor:
        def work(self, x: Any) -> Any:
            return x

    actor = Actor.remote()
    skate.get(actor.work.remote(1), timeout=30)
    refs = [actor.work.remote(sleep.remote(0.5)) for _ in range(3)]
    skate.kill(actor)
    for ref in refs:
        with pytest.raises(ActorDiedError):
            skate.get(ref, timeout=30)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_exit_actor_says_so(concurrency: int) -> None:
    @skate.remote(max_concurrency=concurrency)
    class Leaver:
        def leave(self) -> None:
            skate.actor.exit_actor()

        def stay(self) -> None: ...

    leaver = Leaver.remote()
    skate.get(leaver.stay.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        skate.get(leaver.leave.remote(), timeout=30)
    with pytest.raises(ActorDiedError):
        skate.get(leaver.stay.remote(), timeout=30)


# --------------------------------------------------------------------------- as_completed


def test_as_completed_gives_every_ref_once() -> None:
    refs = [double.remote(i) for i in range(100)]
    seen = [skate.get(ref) for ref in skate.as_completed(refs)]
    assert sorted(seen) == [2 * i for i in range(100)]
    assert list(skate.as_completed([])) == []
    # Refs that are ready come in their own order.
    assert list(skate.as_completed(refs)) == refs


@pytest.mark.differs("inline", reason="everything is ready, in the order of the refs")
def test_as_completed_follows_the_order_of_completion() -> None:
    refs = [sleep.options(num_cpus=0).remote(seconds) for seconds in (1.0, 0.0)]
    assert [skate.get(ref) for ref in skate.as_completed(refs, timeout=30)] == [0.0, 1.0]


def test_as_completed_with_failures() -> None:
    @skate.remote
    def fail() -> None:
        raise KeyError("x")

    refs = [fail.remote(), double.remote(1)]
    assert set(skate.as_completed(refs)) == set(refs)


@pytest.mark.differs("inline", reason="everything is ready")
def test_as_completed_gives_up_and_lets_go() -> None:
    slow = sleep.options(num_cpus=0).remote(60)
    completed = skate.as_completed([double.remote(1), slow], timeout=1.0)
    assert skate.get(next(completed)) == 2
    with pytest.raises(GetTimeoutError, match="1 of 2"):
        next(completed)
    del completed
    assert not slow._cell.listeners
    skate.cancel(slow)


def test_as_completed_in_an_event_loop() -> None:
    async def main() -> list[int]:
        refs = [double.remote(i) for i in range(20)]
        return [await ref async for ref in skate.as_completed(refs, timeout=30)]

    assert sorted(asyncio.run(main())) == [2 * i for i in range(20)]


def test_as_completed_of_what_is_no_list_of_refs() -> None:
    with pytest.raises(TypeError, match="as_completed"):
        skate.as_completed(double.remote(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="as_completed"):
        skate.as_completed(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="element 0"):
        skate.as_completed([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="timeout"):
        skate.as_completed([], timeout=-1)
