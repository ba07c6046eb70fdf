"""Calls of threaded actors, interrupted by ``cancel`` and ``timeout_s``."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest

import skate
from skate import exceptions


@skate.remote(num_cpus=0)
def forever() -> None:
    time.sleep(600)


@skate.remote(max_concurrency=4, concurrency_groups={"io": 2})
class Threads:
    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.go_on = threading.Event()

    def spin(self, name: Any) -> None:
        self.began.append(name)
        try:
            while True:
                pass
        finally:
            self.ended.append(name)

    def stubborn(self) -> str:
        self.began.append("stubborn")
        try:
            while True:
                pass
        except KeyboardInterrupt:
            return "as I like"

    def ask(self) -> Any:
        self.began.append("ask")
        try:
            return skate.get(forever.remote())
        finally:
            self.ended.append("ask")

    def submit(self) -> None:
        self.began.append("submit")
        while True:
            skate.get(skate.put(1))

    def total(self, n: int) -> int:
        result = 0
        for i in range(n):
            result += i
        return result

    def wait_for_release(self) -> str:
        self.began.append("wait")
        assert self.go_on.wait(60)
        return "released"

    def release(self) -> None:
        self.go_on.set()

    def items(self, limit: int) -> Any:
        self.began.append("items")
        try:
            yield from range(limit)
            while True:
                pass
        finally:
            self.ended.append("items")

    def has_begun(self) -> list[Any]:
        return self.began

    def has_ended(self) -> list[Any]:
        return self.ended


def until(actor: Any, *names: Any) -> None:
    deadline = time.monotonic() + 30
    while not set(names).issubset(skate.get(actor.has_begun.remote(), timeout=30)):
        assert time.monotonic() < deadline


def test_cancel_ends_a_loop_and_leaves_the_others_alone(session: None) -> None:
    actor = Threads.remote()
    waiting = actor.wait_for_release.remote()
    first, second = actor.spin.remote(1), actor.spin.remote(2)
    until(actor, 1, 2, "wait")
    skate.cancel(first)
    with pytest.raises(exceptions.TaskCancelledError, match="spin"):
        skate.get(first, timeout=30)
    assert skate.get(actor.has_ended.remote(), timeout=30) == [1]
    skate.cancel(second)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(second, timeout=30)
    skate.get(actor.release.remote(), timeout=30)
    assert skate.get(waiting, timeout=30) == "released"
    assert skate.get(actor.has_ended.remote(), timeout=30) == [1, 2]


def test_a_time_limit_ends_a_loop(session: None) -> None:
    actor = Threads.remote()
    for group in ("", "io"):
        spin = actor.spin.options(timeout_s=0.2, concurrency_group=group or None)
        with pytest.raises(exceptions.TaskTimeoutError, match=r"spin\(\) ran longer"):
            skate.get(spin.remote(group), timeout=30)
        deadline = time.monotonic() + 30
        while group not in skate.get(actor.has_ended.remote(), timeout=30):
            assert time.monotonic() < deadline


@pytest.mark.parametrize("method", ["ask", "submit"])
def test_cancel_ends_a_call_that_is_inside_skate(session: None, method: str) -> None:
    actor = Threads.remote()
    ref = getattr(actor, method).remote()
    until(actor, method)
    skate.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(ref, timeout=30)
    assert skate.get(actor.total.remote(10), timeout=30) == 45


def test_a_call_may_ignore_it(session: None) -> None:
    actor = Threads.remote()
    ref = actor.stubborn.remote()
    until(actor, "stubborn")
    skate.cancel(ref)
    assert skate.get(ref, timeout=30) == "as I like"


@pytest.mark.parametrize("limit", [0, 2])
def test_cancel_ends_a_generator(session: None, limit: int) -> None:
    """Inside its body, and while it waits for its consumer."""
    actor = Threads.remote()
    options = {"_generator_backpressure_num_objects": limit} if limit else {}
    generator = actor.items.options(**options).remote(10)
    assert skate.get(next(generator), timeout=30) == 0
    until(actor, "items")
    skate.cancel(generator)
    *_, last = generator
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(last, timeout=30)
    assert skate.get(actor.has_ended.remote(), timeout=30) == ["items"]


def test_a_call_that_waits_for_a_thread_never_starts(session: None) -> None:
    actor = Threads.options(max_concurrency=1).remote()
    waiting = actor.wait_for_release.remote()
    refs = [actor.spin.remote(i) for i in range(5)]
    for ref in refs:
        skate.cancel(ref)
        with pytest.raises(exceptions.TaskCancelledError):
            skate.get(ref, timeout=30)
    skate.get(actor.release.options(concurrency_group="io").remote(), timeout=30)
    assert skate.get(waiting, timeout=30) == "released"
    assert skate.get(actor.has_begun.remote(), timeout=30) == ["wait"]


def test_cancelling_at_any_moment_spoils_no_other_result(session: None) -> None:
    actor = Threads.remote()
    generator = random.Random(5)
    refs: list[tuple[int, Any]] = []
    cancelled = set()
    while len(cancelled) < 1000:
        n = generator.randrange(2000)
        refs.append((n, actor.total.remote(n)))
        if generator.random() < 0.5:
            index = generator.randrange(max(0, len(refs) - 8), len(refs))
            cancelled.add(index)
            skate.cancel(refs[index][1])
        if len(refs) % 50 == 0:
            skate.wait([refs[-1][1]], timeout=30)
    interrupted = 0
    for index, (n, ref) in enumerate(refs):
        try:
            assert skate.get(ref, timeout=30) == n * (n - 1) // 2
        except exceptions.TaskCancelledError:
            assert index in cancelled
            interrupted += 1
    assert interrupted > 0
    after = [actor.total.remote(n) for n in range(200)]
    assert skate.get(after, timeout=30) == [n * (n - 1) // 2 for n in range(200)]
