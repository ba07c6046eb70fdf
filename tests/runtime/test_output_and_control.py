"""Output of workers, Ctrl-C, cancelling, futures, threads, forks, two sessions at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from scripts import Script

import skate
from skate import exceptions


def test_output_is_prefixed_and_deduplicated(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import sys, time, skate
        skate.init(num_cpus=2, engine="native")

        @skate.remote
        def speak(i):
            print("number", i)
            print("problem", i, file=sys.stderr)

        @skate.remote
        class Singer:
            def sing(self):
                print("la")

        @skate.remote
        class Parrot:
            def __init__(self):
                print("same for all")

            def wait(self):
                pass

        skate.get(speak.remote(1))
        skate.get(Singer.remote().sing.remote())
        parrots = [Parrot.remote() for _ in range(4)]
        skate.get([parrot.wait.remote() for parrot in parrots])
        """
    )
    out, errors = running.finish()
    assert running.process.returncode == 0, errors
    assert "(speak pid=" in out
    assert "number 1" in out
    assert "problem 1" in errors
    sung = next(line for line in out.splitlines() if line.endswith(" la"))
    assert sung.startswith("(Singer pid=")
    assert len([line for line in out.splitlines() if "same for all" in line]) == 2
    assert "[repeated 3 times more by other processes]" in out
    assert "skate-name" not in out + errors


def test_output_without_a_newline_and_of_child_processes(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import os, skate
        skate.init(num_cpus=1, engine="native")

        @skate.remote
        def speak():
            os.system("echo from a child")
            print("no newline", end="")

        skate.get(speak.remote())
        """
    )
    out, _ = running.finish()
    assert "from a child" in out
    assert "no newline" in out


def test_no_output_when_not_wanted(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import skate
        skate.init(num_cpus=1, log_to_driver=False, engine="native")

        @skate.remote
        def speak():
            print("hello")

        skate.get(speak.remote())
        """
    )
    out, errors = running.finish()
    assert "hello" not in out + errors


def test_ctrl_c_leaves_a_session_that_works(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import time, skate
        skate.init(num_cpus=8, engine="native")

        @skate.remote
        def slow(seconds):
            time.sleep(seconds)
            return seconds

        for _ in range(3):
            refs = [slow.remote(0.2) for _ in range(4)]
            try:
                print("ready", flush=True)
                skate.get(slow.remote(60))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            assert skate.get(refs) == [0.2] * 4
        print("done", flush=True)
        import os
        os._exit(0)
        """
    )
    for _ in range(3):
        running.wait_for_line("ready")
        os.kill(running.process.pid, signal.SIGINT)
        running.wait_for_line("interrupted")
    running.wait_for_line("done")


def test_more_cpus_than_exist_warns_who_waits_for_what(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import skate
        skate.init(num_cpus=1, engine="native")

        @skate.remote(num_cpus=64)
        def greedy():
            pass

        ref = greedy.remote()
        try:
            skate.get(ref, timeout=3)
        except skate.exceptions.GetTimeoutError:
            print("timed out")
        """
    )
    out, errors = running.finish()
    assert "timed out" in out
    assert "greedy" in errors
    assert "64" in errors


def test_cancel_queued_running_and_forced(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote
    def slow() -> None:
        time.sleep(600)

    running, queued = slow.remote(), slow.remote()
    time.sleep(0.3)  # either order has to work; this one lets the first task start
    skate.cancel(queued)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(queued, timeout=20)
    skate.cancel(running)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(running, timeout=20)

    @skate.remote
    def stubborn() -> None:
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                continue

    ref = stubborn.remote()
    time.sleep(0.3)
    skate.cancel(ref, force=True)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(ref, timeout=20)


def test_futures_and_await(session: None) -> None:
    @skate.remote
    def double(x: int) -> int:
        return 2 * x

    @skate.remote
    def fail() -> None:
        raise ValueError("no")

    assert double.remote(2).future().result(timeout=20) == 4
    with pytest.raises(ValueError, match="no"):
        fail.remote().future().result(timeout=20)

    async def main() -> list[int]:
        return list(await asyncio.gather(*[double.remote(i) for i in range(50)]))

    assert asyncio.run(main()) == [2 * i for i in range(50)]


def test_a_done_callback_may_use_the_api(session: None) -> None:
    @skate.remote
    def double(x: int) -> int:
        return 2 * x

    results: list[int] = []
    done = threading.Event()

    def again(future: object) -> None:
        results.append(skate.get(double.remote(21)))
        done.set()

    double.remote(1).future().add_done_callback(again)
    assert done.wait(20)
    assert results == [42]


def test_many_threads_share_a_driver(session: None) -> None:
    @skate.remote
    def double(x: int) -> int:
        return 2 * x

    @skate.remote
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        def add(self) -> int:
            self.value += 1
            return self.value

    counter = Counter.remote()
    wrong: list[object] = []

    def work(base: int) -> None:
        try:
            for i in range(100):
                assert skate.get(double.remote(base + i), timeout=30) == 2 * (base + i)
                skate.get(counter.add.remote(), timeout=30)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not wrong
    assert skate.get(counter.add.remote(), timeout=20) == 801


def test_work_goes_on_while_the_driver_computes(session: None) -> None:
    @skate.remote
    def chain(x: int) -> int:
        return x + 1

    ref = chain.remote(0)
    for _ in range(200):
        ref = chain.remote(ref)
    deadline = time.monotonic() + 20
    ready: list[object] = []
    while not ready and time.monotonic() < deadline:
        sum(range(10_000))
        ready, _ = skate.wait([ref], timeout=0)
    assert skate.get(ref, timeout=20) == 201


def test_long_tasks_behind_short_ones_are_shared(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=2)

    @skate.remote
    def task(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    skate.get([task.remote(0) for _ in range(500)], timeout=20)
    started = time.monotonic()
    pids = skate.get([task.remote(0.05) for _ in range(40)], timeout=20)
    assert len(set(pids)) == 2
    # Alone, one worker would need 2 s.
    assert min(pids.count(pid) for pid in set(pids)) >= 10, time.monotonic() - started


def test_two_sessions_at_once(script: Callable[[str], Script]) -> None:
    code = """
        import skate
        skate.init(num_cpus=2, engine="native")

        @skate.remote
        def square(x):
            return x * x

        print("ready", flush=True)
        for _ in range(20):
            assert skate.get([square.remote(i) for i in range(100)]) == [i * i for i in range(100)]
        skate.shutdown()
        """
    first, second = script(code), script(code)
    for running in (first, second):
        _, errors = running.finish()
        assert running.process.returncode == 0, errors
        running.assert_nothing_left()


def test_init_and_shutdown_again_and_again(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import os, skate, threading

        @skate.remote
        def f(x):
            return x

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        counts = []
        for i in range(6):
            skate.init(num_cpus=1, engine="native")
            assert skate.get(f.remote(i)) == i
            skate.get(skate.put(bytes(1_000_000)))
            skate.shutdown()
            counts.append((descriptors(), threading.active_count()))
        assert counts[1] == counts[-1], counts
        print("same")
        """
    )
    out, errors = running.finish()
    assert "same" in out, errors
