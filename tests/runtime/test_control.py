"""Time limits and cancelling, where it takes force or luck."""

from __future__ import annotations

import os
import random
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skate
from skate import exceptions, state


def test_a_task_that_does_not_react_is_killed(session: None) -> None:
    @skate.remote(timeout_s=0.3)
    def stubborn() -> None:
        while True:
            try:
                time.sleep(10)
            except KeyboardInterrupt:
                continue

    with pytest.raises(exceptions.TaskTimeoutError, match="did not react") as caught:
        skate.get(stubborn.remote(), timeout=30)
    assert caught.value.pid != os.getpid()


def test_a_task_that_holds_the_interpreter_is_killed(session: None) -> None:
    @skate.remote(timeout_s=0.3)
    def stuck() -> None:
        import re

        re.match(r"(a+)+$", "a" * 60 + "b")

    with pytest.raises(exceptions.TaskTimeoutError, match="did not react"):
        skate.get(stuck.remote(), timeout=40)


def test_tasks_behind_a_slow_one_are_not_lost(session: None) -> None:
    @skate.remote(timeout_s=0.4, max_retries=0)
    def work(i: int) -> int:
        if i == 10:
            while True:
                try:
                    time.sleep(10)
                except KeyboardInterrupt:
                    continue
        return i

    refs = [work.remote(i) for i in range(40)]
    for i, ref in enumerate(refs):
        if i == 10:
            with pytest.raises(exceptions.TaskTimeoutError):
                skate.get(ref, timeout=30)
        else:
            assert skate.get(ref, timeout=30) == i


def test_time_limits_keep_nothing_of_calls_that_have_ended(session: None) -> None:
    @skate.remote(timeout_s=3600)
    def nothing(x: int) -> int:
        return x

    core: Any = skate.api.session.current().core  # type: ignore[attr-defined]
    for _ in range(5):
        skate.get([nothing.remote(i) for i in range(1000)], timeout=50)
    assert len(core.timeouts._due) <= 3001


@pytest.mark.parametrize("seed", range(3))
def test_cancel_at_any_moment(session: None, seed: int) -> None:
    @skate.remote
    def work(i: int) -> int:
        return i

    generator = random.Random(seed)
    refs: list[Any] = []
    for i in range(2000):
        refs.append(work.remote(i))
        if generator.random() < 0.1:
            skate.cancel(generator.choice(refs[-50:]))
    cancelled = 0
    for i, ref in enumerate(refs):
        try:
            assert skate.get(ref, timeout=30) == i
        except exceptions.TaskCancelledError:
            cancelled += 1
    assert cancelled < 250
    assert skate.get([work.remote(i) for i in range(100)], timeout=30) == list(range(100))


def test_cancel_of_async_calls_at_any_moment(session: None) -> None:
    @skate.remote
    class Echo:
        async def say(self, i: int) -> int:
            import asyncio

            await asyncio.sleep(i % 3 * 0.001)
            return i

    echo = Echo.options(max_concurrency=20).remote()
    generator = random.Random(1)
    refs: list[Any] = []
    for i in range(1000):
        refs.append(echo.say.remote(i))
        if generator.random() < 0.2:
            skate.cancel(generator.choice(refs[-30:]))
    for i, ref in enumerate(refs):
        try:
            assert skate.get(ref, timeout=30) == i
        except exceptions.TaskCancelledError:
            continue
    assert skate.get([echo.say.remote(i) for i in range(100)], timeout=30) == list(range(100))


def test_a_cancelled_task_does_not_run_after_its_worker_has_died(
    session: None, tmp_path: Path
) -> None:
    @skate.remote
    def outer(folder: str) -> None:
        Path(folder, "outer").touch()
        time.sleep(60)

    ref = outer.remote(str(tmp_path))
    while not (tmp_path / "outer").exists():
        time.sleep(0.01)
    skate.cancel(ref, force=True)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(ref, timeout=30)


# --------------------------------------------------------------------------- max_calls


def test_a_worker_is_retired_after_max_calls(session: None) -> None:
    @skate.remote(max_calls=3)
    def pid(_i: int) -> int:
        return os.getpid()

    pids = skate.get([pid.remote(i) for i in range(30)], timeout=50)
    counts = {one: pids.count(one) for one in set(pids)}
    assert max(counts.values()) <= 3
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{one}") for one, n in counts.items() if n == 3):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tasks_with_and_without_max_calls(session: None) -> None:
    @skate.remote(max_calls=1, max_retries=0)
    def once(i: int) -> int:
        return i

    @skate.remote(max_retries=0)
    def often(i: int) -> int:
        return i

    refs = [(once if i % 20 == 0 else often).remote(i) for i in range(400)]
    assert skate.get(refs, timeout=50) == list(range(400))


def test_a_retired_worker_lives_while_it_owns_something(session: None) -> None:
    @skate.remote(max_calls=1)
    def make() -> list[Any]:
        return [skate.put("kept")]

    (ref,) = skate.get(make.remote(), timeout=30)
    time.sleep(1.5)
    assert skate.get(ref, timeout=30) == "kept"


def test_nobody_goes_on_asking_for_a_worker_for_a_cancelled_task(session: None) -> None:
    """The daemon would keep room for it, and tell of it once a minute."""

    @skate.remote(resources={"what nobody has": 1})
    def never() -> None: ...

    def demanded() -> int:
        return sum(demand.count for demand in state.session_status().demands)

    refs = [never.remote() for _ in range(3)]
    deadline = time.monotonic() + 20
    while demanded() == 0:
        assert time.monotonic() < deadline
    for ref in refs:
        skate.cancel(ref)
    while demanded() > 0:
        assert time.monotonic() < deadline


@pytest.fixture
def slow_module(tmp_path: Path) -> str:
    """A module that takes long to import, and whose extension can be loaded once in a process."""
    (tmp_path / "slow_to_import.py").write_text(
        textwrap.dedent(
            """
            import builtins, os, time
            if hasattr(builtins, "slow_to_import_was_loaded"):
                raise ImportError("cannot load module more than once per process")
            builtins.slow_to_import_was_loaded = True
            open(os.path.dirname(__file__) + "/started", "w").close()
            for _ in range(100):
                time.sleep(0.01)
            """
        )
    )
    return str(tmp_path)


@pytest.mark.parametrize("kind", ["task", "actor", "threaded actor"])
def test_a_cancelled_import_spoils_nothing_for_later_calls(
    cluster: Callable[..., None], slow_module: str, kind: str
) -> None:
    started = Path(slow_module) / "started"
    cluster(num_cpus=1)

    def use(seconds: float) -> str:
        sys.path[:] = [slow_module, *(entry for entry in sys.path if entry != slow_module)]
        import slow_to_import

        time.sleep(seconds)
        return str(slow_to_import.__name__)

    @skate.remote(max_concurrency=1 + (kind == "threaded actor"))
    class Actor:
        def use(self, seconds: float) -> str:
            for _ in range(100):
                result = use(seconds / 100)
            return result

    call = skate.remote(use).remote if kind == "task" else Actor.remote().use.remote
    ref = call(60)
    deadline = time.monotonic() + 30
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    skate.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(ref, timeout=30)
    assert skate.get(call(0), timeout=30) == "slow_to_import"
