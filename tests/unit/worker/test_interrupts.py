"""Interrupting a call in a thread: it is hit inside, once, and never after its end."""

from __future__ import annotations

import functools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from skate.runtime.worker import interrupts
from skate.runtime.worker.interrupts import Interruption
from skate.runtime.worker.pump import Waiter


class Core:
    """The lock and the timers of a core; ``look`` runs the timers."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.timers: list[Callable[[], None]] = []
        self.pump = SimpleNamespace(
            call_later=lambda _seconds, function: self.timers.append(function), wake=lambda: None
        )

    def look(self) -> None:
        with self.lock:
            timers, self.timers[:] = list(self.timers), []
            for timer in timers:
                timer()


def caller(function: Callable[[], Any]) -> Any:
    """Stands for the code of ours that calls the user's."""
    return function()


@pytest.fixture(autouse=True)
def only_the_caller_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    core_code = {caller.__code__, own_code.__code__}
    monkeypatch.setattr(interrupts, "_is_core", core_code.__contains__)
    monkeypatch.setattr(interrupts, "_CALLERS", frozenset((caller.__code__,)))


def own_code(stop: threading.Event) -> None:
    """Stands for code of ours that the user calls."""
    while not stop.is_set():
        pass


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_loop_is_interrupted_and_cleans_up() -> None:
    core = Core()
    interruption = Interruption(core)  # type: ignore[arg-type]  # as much of a core as it needs
    began = threading.Event()
    cleaned: list[str] = []

    def loop() -> None:
        began.set()
        try:
            while True:
                pass
        finally:
            cleaned.append("finally")

    def call() -> Any:
        assert interruption.begin()
        return interruption.shield(caller)(loop)

    thread, outcome = in_thread(call)
    assert began.wait(30)
    with core.lock:
        interruption.want()
    until(lambda: (core.look(), not thread.is_alive())[1])
    assert isinstance(outcome[0], KeyboardInterrupt)
    assert cleaned == ["finally"]


def test_code_of_ours_is_not_torn() -> None:
    core = Core()
    interruption = Interruption(core)  # type: ignore[arg-type]
    stop = threading.Event()
    after: list[str] = []

    def user() -> None:
        own_code(stop)
        after.append("whole")
        while True:
            pass

    def call() -> Any:
        assert interruption.begin()
        return interruption.shield(caller)(user)

    thread, outcome = in_thread(call)
    with core.lock:
        interruption.want()
    for _ in range(50):
        core.look()
        time.sleep(0.001)
    assert thread.is_alive()
    stop.set()
    until(lambda: (core.look(), not thread.is_alive())[1])
    assert isinstance(outcome[0], KeyboardInterrupt)
    assert len(after) <= 1


def test_a_call_that_is_cancelled_before_its_start_does_not_start() -> None:
    core = Core()
    interruption = Interruption(core)  # type: ignore[arg-type]
    with core.lock:
        interruption.want()
    assert not interruption.begin()
    assert not core.timers


def test_a_thread_that_waits_is_woken_and_raises_there() -> None:
    core = Core()
    interruption = Interruption(core)  # type: ignore[arg-type]
    assert interruption.begin()
    waiter = Waiter(1)
    waiter.gate = threading.Lock()
    waiter.gate.acquire()
    outer = interruption.begin_wait(waiter)
    assert outer is None
    step = interruption.watched(None)
    assert not step()
    with core.lock:
        interruption.want()
    assert not waiter.gate.locked()
    assert step()
    with pytest.raises(KeyboardInterrupt):
        interruption.raise_if_wanted()
    interruption.raise_if_wanted()  # once
    interruption.end_wait(outer)


def pending(interruption: Interruption) -> Any:
    """Return something that, when 1 is added, leaves an exception that nothing has raised yet.

    Python looks for it at the next call, not after an addition.
    """
    ident = threading.get_ident()
    send = functools.partial(interrupts._set_exception, ident)
    interruption.wanted = interruption._sent = True

    class Sends:
        __add__ = send

    return Sends()


@pytest.mark.parametrize("error", [None, ValueError("the call's own")])
def test_what_comes_between_the_call_and_its_end_stays_inside(error: Exception | None) -> None:
    interruption = Interruption(Core())  # type: ignore[arg-type]
    assert interruption.begin()
    sends = pending(interruption)
    kind = KeyboardInterrupt

    def last_moment() -> str:
        sends + kind  # it is done for its effect
        if error is not None:
            raise error
        return "result"

    def call() -> str:
        try:
            return interruption.shield(caller)(last_moment)
        except KeyboardInterrupt:
            return "interrupted"

    assert call() == "interrupted"
    assert not interruption._open or error is not None
    assert interruption._sent


def test_what_was_not_raised_at_the_end_is_taken_back() -> None:
    interruption = Interruption(Core())  # type: ignore[arg-type]
    assert interruption.begin()
    sends, kind, close = pending(interruption), KeyboardInterrupt, interrupts._clear_exception
    ident = threading.get_ident()
    sends + kind
    close(ident, None)
    for _ in range(1000):
        caller(int)


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_switch_often")
@pytest.mark.parametrize("seed", range(3))
def test_nothing_comes_after_the_end_of_a_call(seed: int) -> None:
    core = Core()
    generator = random.Random(seed)
    lengths = [generator.randrange(20_000) for _ in range(1500)]
    current: list[Interruption] = []
    escaped: list[int] = []

    def work(length: int) -> int:
        total = 0
        for i in range(length):
            total += i
        return total

    def calls() -> int:
        interrupted = 0
        for index, length in enumerate(lengths):
            interruption = Interruption(core)  # type: ignore[arg-type]
            current[:] = [interruption]
            try:
                if interruption.begin():
                    result = interruption.shield(lambda n: caller(lambda: work(n)))(length)
                    assert result == length * (length - 1) // 2
            except KeyboardInterrupt:
                interrupted += 1
            try:
                for _ in range(20):
                    work(5)
            except KeyboardInterrupt:
                escaped.append(index)
        return interrupted

    thread, outcome = in_thread(calls)
    while thread.is_alive():
        for interruption in current:
            with core.lock:
                interruption.want()
        core.look()
    assert escaped == []
    assert outcome[0] > 0
