"""Who pumps: waiting threads, one at a time, and the background thread when nobody waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from skate.runtime.worker.pump import Pump, Waiter


class Pipe:
    """A source that completes a waiter for each byte written to it."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.waiters: list[Waiter] = []
        self.threads: list[str] = []

    def fileno(self) -> int:
        return self.read_fd

    def on_events(self, _mask: int) -> None:
        self.threads.append(threading.current_thread().name)
        for _ in os.read(self.read_fd, 100):
            self.waiters.pop(0).on_ready()

    def poke(self) -> None:
        os.write(self.write_fd, b"x")


@pytest.fixture
def pump() -> Iterator[Pump]:
    pump = Pump(threading.RLock(), lambda: None)
    pump.start()
    yield pump
    pump.stop()
    pump.close()


@pytest.fixture
def pipe(pump: Pump) -> Iterator[Pipe]:
    pipe = Pipe()
    pump.add(pipe)
    yield pipe
    pump.remove(pipe)
    os.close(pipe.read_fd)
    os.close(pipe.write_fd)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_the_waiting_thread_reads_by_itself(pump: Pump, pipe: Pipe) -> None:
    for _ in range(20):
        waiter = Waiter()
        pipe.waiters.append(waiter)
        pipe.poke()
        assert pump.block(waiter, time.monotonic() + 10)
    # The background thread may have been first once, before it saw that somebody waits.
    assert pipe.threads.count(threading.current_thread().name) >= 15


def test_the_background_thread_reads_when_nobody_waits(pump: Pump, pipe: Pipe) -> None:
    waiter = Waiter()
    pipe.waiters.append(waiter)
    pipe.poke()
    deadline = time.monotonic() + 10
    while not waiter.done and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pipe.threads == ["skate-pump"]


def test_deadline(pump: Pump) -> None:
    started = time.monotonic()
    assert not pump.block(Waiter(), started + 0.05)
    assert 0.04 < time.monotonic() - started < 5


def test_followers_are_woken_whoever_pumps(pump: Pump, pipe: Pipe) -> None:
    waiters = [Waiter() for _ in range(10)]
    pipe.waiters.extend(waiters)
    done: list[bool] = []
    threads = [
        in_thread(lambda w=waiter: done.append(pump.block(w, time.monotonic() + 10)))  # type: ignore[misc]  # default argument binds the loop variable
        for waiter in waiters
    ]
    for _ in waiters:
        pipe.poke()
        time.sleep(0.001)
    for thread in threads:
        thread.join(20)
    assert done == [True] * 10


def test_a_follower_takes_over_when_the_pumping_thread_is_done(pump: Pump, pipe: Pipe) -> None:
    first, second = Waiter(), Waiter()
    pipe.waiters.extend([first, second])
    results: list[bool] = []
    threads = [
        in_thread(lambda: results.append(pump.block(first, time.monotonic() + 10))),
        in_thread(lambda: results.append(pump.block(second, time.monotonic() + 10))),
    ]
    pipe.poke()
    threads[0].join(20)
    pipe.poke()
    threads[1].join(20)
    assert results == [True, True]


def test_timers_run_whether_somebody_waits_or_not(pump: Pump) -> None:
    fired: list[float] = []
    with pump._lock:
        pump.call_later(0.01, lambda: fired.append(time.monotonic()))
    assert not pump.block(Waiter(), time.monotonic() + 0.1)
    assert len(fired) == 1
    with pump._lock:
        pump.call_later(0.01, lambda: fired.append(time.monotonic()))
    deadline = time.monotonic() + 10
    while len(fired) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(fired) == 2


def test_callbacks_may_wait_themselves(pump: Pump, pipe: Pipe) -> None:
    outer, inner = Waiter(), Waiter()
    pipe.waiters.append(inner)

    def callback() -> None:
        pipe.poke()
        assert pump.block(inner, time.monotonic() + 10)
        outer.on_ready()

    pump.callbacks.append(callback)
    pump.wake()
    assert pump.block(outer, time.monotonic() + 10)


def test_an_idle_process_sleeps(pump: Pump) -> None:
    turns: list[int] = []
    pump.housekeeping = lambda: turns.append(1)
    time.sleep(0.1)
    before = len(turns)
    time.sleep(0.3)
    assert len(turns) == before
    # And while a thread waits for long, as an idle worker does.
    waiter = Waiter()
    thread = in_thread(lambda: pump.block(waiter, time.monotonic() + 10))
    time.sleep(0.1)
    before = len(turns)
    time.sleep(0.3)
    assert len(turns) == before
    waiter.done = True
    pump.wake()
    thread.join(20)
    assert not thread.is_alive()


def test_threads_that_wait_leave_each_other_alone(pump: Pump, pipe: Pipe) -> None:
    """Each that found the pump taken again woke its holder, which woke the next, and so on."""
    waiters = [Waiter() for _ in range(4)]
    pipe.waiters = list(waiters)
    threads = [in_thread(lambda waiter=waiter: pump.block(waiter)) for waiter in waiters]
    wait_until(lambda: pump._foreground == len(threads))
    turns = 0
    housekeeping = pump.housekeeping

    def count() -> None:
        nonlocal turns
        turns += 1
        housekeeping()

    pump.housekeeping = count
    # They come, one after the other, and leave turn by turn: that is a few turns each.
    for waiter in waiters:
        time.sleep(0.05)
        pipe.poke()
        wait_until(lambda waiter=waiter: waiter.done)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert turns < 50


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
