"""Generators on real processes: crashes in the middle, back-pressure, nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node_fakes import wait_until

import skate
from skate import exceptions


def values(generator: Any) -> list[Any]:
    return [skate.get(ref, timeout=30) for ref in generator]


@skate.remote
def dies_at(folder: str, where: int, n: int) -> Iterator[tuple[int, int]]:
    attempt = len(os.listdir(folder))
    Path(folder, str(attempt)).touch()
    for i in range(n):
        if i == where and attempt == 0:
            time.sleep(0.1)  # what was yielded is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        yield attempt, i


def test_a_crash_in_the_middle_repeats_nothing(session: None, tmp_path: Path) -> None:
    seen = values(dies_at.remote(str(tmp_path), 40, 100))
    assert [i for _, i in seen] == list(range(100))
    assert {attempt for attempt, _ in seen} == {0, 1}


def test_a_crash_without_retries_is_the_last_item(session: None, tmp_path: Path) -> None:
    *_, last = dies_at.options(max_retries=0).remote(str(tmp_path), 3, 10)
    with pytest.raises(exceptions.WorkerCrashedError, match="SIGKILL"):
        skate.get(last)


def test_a_crash_of_an_actor_in_the_middle(session: None, tmp_path: Path) -> None:
    @skate.remote(max_restarts=1, max_task_retries=1)
    class Source:
        def items(self, folder: str) -> Iterator[int]:
            attempt = len(os.listdir(folder))
            Path(folder, str(attempt)).touch()
            for i in range(20):
                if i == 7 and attempt == 0:
                    time.sleep(0.1)
                    os.kill(os.getpid(), signal.SIGKILL)
                yield i

    assert values(Source.remote().items.remote(str(tmp_path))) == list(range(20))


def test_the_producer_waits_for_the_consumer(session: None, tmp_path: Path) -> None:
    @skate.remote(_generator_backpressure_num_objects=3)
    def produce(folder: str) -> Iterator[int]:
        for i in range(20):
            Path(folder, str(i)).touch()
            yield i

    def made() -> int:
        return len(os.listdir(tmp_path))

    generator = produce.remote(str(tmp_path))
    for taken in range(1, 15):
        next(generator)
        wait_until(lambda taken=taken: made() >= min(taken + 2, 20), "the next items")
        assert made() <= taken + 3
    assert len(list(generator)) == 6


def test_a_waiting_producer_gives_its_cpu_back(cluster: Any) -> None:
    cluster(num_cpus=1)

    @skate.remote(_generator_backpressure_num_objects=1)
    def produce() -> Iterator[int]:
        yield from range(5)

    @skate.remote
    def double(x: int) -> int:
        return 2 * x

    # With one CPU, and the producer holding it, ``double`` would never run.
    assert [skate.get(double.remote(ref), timeout=30) for ref in produce.remote()] == [
        0,
        2,
        4,
        6,
        8,
    ]


def test_a_dropped_generator_ends_wherever_it_is(session: None, tmp_path: Path) -> None:
    @skate.remote
    def endless(folder: str) -> Iterator[int]:
        Path(folder, "begun").touch()
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            Path(folder, "ended").touch()

    for moment in range(4):
        folder = tmp_path / str(moment)
        folder.mkdir()
        generator = endless.remote(str(folder))
        for _ in range(moment * 5):
            next(generator)
        if moment:
            wait_until(lambda folder=folder: (folder / "begun").exists(), "it begins")
        del generator
        wait_until(
            lambda folder=folder: (folder / "ended").exists() or not (folder / "begun").exists(),
            "the generator is closed",
        )

    @skate.remote
    def free() -> int:
        return 1

    assert skate.get([free.remote() for _ in range(4)], timeout=30) == [1] * 4


def test_a_generator_that_runs_to_its_end_without_consumer(session: None, tmp_path: Path) -> None:
    @skate.remote(_generator_backpressure_num_objects=2)
    def produce(folder: str) -> Iterator[int]:
        yield from range(50)
        Path(folder, "end").touch()

    done = produce.remote(str(tmp_path)).completed()
    assert skate.get(done, timeout=30) is None
    assert (tmp_path / "end").exists()


def test_a_consumer_that_dies_ends_its_generator(session: None, tmp_path: Path) -> None:
    @skate.remote
    class Source:
        @skate.method(_generator_backpressure_num_objects=1)
        def items(self, folder: str) -> Iterator[int]:
            try:
                yield from range(1000)
            finally:
                Path(folder, "ended").touch()

    @skate.remote(max_retries=0)
    def consume(source: Any, folder: str) -> None:
        generator = source.items.remote(folder)
        next(generator)
        os.kill(os.getpid(), signal.SIGKILL)

    source = Source.remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        skate.get(consume.remote(source, str(tmp_path)), timeout=30)
    wait_until((tmp_path / "ended").exists, "the generator is closed")


def test_items_are_freed_as_they_are_taken(cluster: Any) -> None:
    cluster(num_cpus=2, object_store_memory=64 << 20)

    @skate.remote(_generator_backpressure_num_objects=4)
    def produce(n: int) -> Iterator[bytes]:
        for _ in range(n):
            yield bytes(4 << 20)

    # Four times what fits.
    assert sum(len(skate.get(ref, timeout=30)) for ref in produce.remote(64)) == 256 << 20
