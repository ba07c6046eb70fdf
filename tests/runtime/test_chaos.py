"""Workers are killed at random, once a second; every answer has to be exactly right all the same.

A seed decides who is killed.  When is up to the machine, so a failure may need several runs to come
back; the seed and the victims are in the output.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import skate
from skate.api.session import current

TASKS = 10_000
ACTORS = 50
CALLS_PER_ACTOR = 40
SECONDS_BETWEEN_KILLS = 1.0


class Killer:
    """Kills one worker of the session every second."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.victims: list[int] = []

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_KILLS):
            # Those that run something, or an idle session would be all that is hit.
            busy = ("leased", "blocked", "actor")
            rows = current().state("workers")
            pids = sorted(row["pid"] for row in rows if row["state"] in busy and row["pid"])
            if pids:
                pid = self._random.choice(pids)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.victims.append(pid)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def busy_session(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=4, log_to_driver=False)


@skate.remote(max_retries=-1)
def square(x: int) -> int:
    time.sleep(0.002)
    return x * x


@skate.remote(max_retries=-1)
def array_of(x: int) -> Any:
    return np.full(50_000, x, dtype=np.int64)


@skate.remote(max_retries=-1)
def summed(a: Any, b: Any) -> int:
    return int(a.sum() + b.sum())


@skate.remote(max_retries=-1)
def nested(x: int) -> int:
    return sum(skate.get([square.remote(x + i) for i in range(5)]))


@skate.remote(max_restarts=-1, max_task_retries=-1)
class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, x: int) -> int:
        time.sleep(0.002)
        return self.base + x

    def add_large(self, array: Any) -> int:
        return self.base + int(array[0])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_tasks_and_fifty_actors(busy_session: None, seed: int) -> None:
    plain = TASKS - 1000
    with Killer(seed) as killer:
        actors = [Adder.remote(1000 * i) for i in range(ACTORS)]
        squares = [square.remote(i) for i in range(plain)]
        arrays = [array_of.remote(i) for i in range(300)]
        sums = [summed.remote(arrays[i], arrays[(i * 7) % 300]) for i in range(300)]
        trees = [nested.remote(i) for i in range(400)]
        calls = [actor.add.remote(i) for i in range(CALLS_PER_ACTOR) for actor in actors]
        large = [actor.add_large.remote(arrays[i]) for i, actor in enumerate(actors)]

        assert skate.get(squares, timeout=200) == [i * i for i in range(plain)]
        assert skate.get(sums, timeout=100) == [50_000 * (i + (i * 7) % 300) for i in range(300)]
        assert skate.get(trees, timeout=100) == [
            sum((i + j) ** 2 for j in range(5)) for i in range(400)
        ]
        assert skate.get(calls, timeout=100) == [
            1000 * number + i for i in range(CALLS_PER_ACTOR) for number in range(ACTORS)
        ]
        assert skate.get(large, timeout=100) == [1000 * i + i for i in range(ACTORS)]
    print(f"seed {seed}: killed {killer.victims}")
    assert len(killer.victims) >= 3, "it was over before anybody was killed"
