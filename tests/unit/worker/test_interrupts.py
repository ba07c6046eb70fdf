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
from skate.runtime.worker.interrupts import ThreadedCall
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


#: Nobody is answered here.
PEER: Any = None


def a_call(core: Any) -> ThreadedCall:
    task: Any = SimpleNamespace(task_id=b"", name="", depth=0, actor_id=b"", chain=[])
    return ThreadedCall(core, task, PEER)


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
    threaded = a_call(core)
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
        assert threaded.begin()
        return threaded.shield(lambda *_: caller(loop), PEER)

    thread, outcome = in_thread(call)
    assert began.wait(30)
    with core.lock:
        threaded.want()
    until(lambda: (core.look(), not thread.is_alive())[1])
    assert isinstance(outcome[0], KeyboardInterrupt)
    assert cleaned == ["finally"]


def test_code_of_ours_is_not_torn() -> None:
    core = Core()
    threaded = a_call(core)
    stop = threading.Event()
    after: list[str] = []

    def user() -> None:
        own_code(stop)
        after.append("whole")
        while True:
            pass

    def call() -> Any:
        assert threaded.begin()
        return threaded.shield(lambda *_: caller(user), PEER)

    thread, outcome = in_thread(call)
    with core.lock:
        threaded.want()
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
    threaded = a_call(core)
    with core.lock:
        threaded.want()
    assert not threaded.begin()
    assert not core.timers


def test_a_thread_that_waits_is_woken_and_raises_there() -> None:
    core = Core()
    threaded = a_call(core)
    assert threaded.begin()
    waiter = Waiter(1)
    waiter.gate = threading.Lock()
    waiter.gate.acquire()
    outer = threaded.begin_wait(waiter)
    assert outer is None
    step = threaded.watched(None)
    assert not step()
    with core.lock:
        threaded.want()
    assert not waiter.gate.locked()
    assert step()
    with pytest.raises(KeyboardInterrupt):
        threaded.raise_if_wanted()
    threaded.raise_if_wanted()  # once
    threaded.end_wait(outer)


def pending(threaded: ThreadedCall) -> Any:
    """Return something that, when 1 is added, leaves an exception that nothing has raised yet.

    Python looks for it at the next call, not after an addition.
    """
    ident = threading.get_ident()
    send = functools.partial(interrupts._set_exception, ident)
    threaded.wanted = threaded._sent = True

    class Sends:
        __add__ = send

    return Sends()


@pytest.mark.parametrize("error", [None, ValueError("the call's own")])
def test_what_comes_between_the_call_and_its_end_stays_inside(error: Exception | None) -> None:
    threaded = a_call(Core())
    assert threaded.begin()
    sends = pending(threaded)
    kind = KeyboardInterrupt

    def last_moment() -> str:
        sends + kind  # it is done for its effect
        if error is not None:
            raise error
        return "result"

    def call() -> str:
        try:
            return threaded.shield(lambda *_: caller(last_moment), PEER)
        except KeyboardInterrupt:
            return "interrupted"

    assert call() == "interrupted"
    assert not threaded._open or error is not None
    assert threaded._sent


def test_what_was_not_raised_at_the_end_is_taken_back() -> None:
    threaded = a_call(Core())
    assert threaded.begin()
    sends, kind, close = pending(threaded), KeyboardInterrupt, interrupts._clear_exception
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
    current: list[ThreadedCall] = []
    escaped: list[int] = []

    def work(length: int) -> int:
        total = 0
        for i in range(length):
            total += i
        return total

    def racing(length: int, *_: object) -> Any:
        return caller(lambda: work(length))

    def calls() -> int:
        interrupted = 0
        for index, length in enumerate(lengths):
            threaded = a_call(core)
            current[:] = [threaded]
            try:
                if threaded.begin():
                    result = threaded.shield(functools.partial(racing, length), PEER)
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
        for threaded in current:
            with core.lock:
                threaded.want()
        core.look()
    assert escaped == []
    assert outcome[0] > 0
