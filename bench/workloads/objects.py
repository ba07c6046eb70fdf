"""Objects: small ones by the thousand, large ones by their bytes."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import numpy as np
from _system import SYSTEM, check, load, main, rate, seconds

SMALL = 1000
WAIT = 500
REFS = 1000
LARGE_BYTES = 100_000_000
LARGE_PASSES = 20

api: Any = None if SYSTEM == "plain" else load()


def one(x: int) -> int:
    return x


def put_small() -> float:
    """Puts of an integer per second."""
    return rate(lambda: [api.put(i) for i in range(SMALL)], SMALL)


def get_small() -> float:
    """Gets of an integer per second, one ref at a time."""
    refs = [api.put(i) for i in range(SMALL)]

    def work() -> None:
        for i, ref in enumerate(refs):
            check(api.get(ref) == i)

    return rate(work, SMALL)


def refs_inside() -> float:
    """Objects per second that hold 1,000 refs each: put, and got again."""
    refs = [api.put(i) for i in range(REFS)]

    def work() -> None:
        for _ in range(10):
            check(len(api.get(api.put(refs))) == REFS)

    return rate(work, 10)


def _take_one_by_one(left: list[Any]) -> None:
    while left:
        done, left = api.wait(left)
        check(len(done) == 1)


def wait_tasks() -> float:
    """Refs per second: 500 tasks, each result taken as it comes, with ``wait`` over all others."""
    task = api.remote(one)
    return rate(lambda: _take_one_by_one([task.remote(i) for i in range(WAIT)]), WAIT)


def wait_objects() -> float:
    """Refs per second: as above over 500 objects, all of which are there already."""
    took = []
    for _ in range(6):
        refs = [api.put(i) for i in range(WAIT)]
        took.append(seconds(partial(_take_one_by_one, refs)))
    return WAIT / statistics.median(took[1:])


def _large() -> Any:
    return np.random.default_rng(0).integers(0, 255, LARGE_BYTES, dtype=np.uint8)


def put_large() -> float:
    """GB/s of putting a 100 MB array, the memory having been used before; plain: of copying it."""
    array = _large()
    took = []
    if api is None:
        target = np.empty_like(array)
        copy = partial(np.copyto, target, array)
        took += [seconds(copy) for _ in range(LARGE_PASSES)]
    else:
        for _ in range(LARGE_PASSES):
            start = time.perf_counter()
            ref = api.put(array)
            took.append(time.perf_counter() - start)
            check(int(api.get(ref)[-1]) == int(array[-1]))
            # Both systems free the object when its last ref goes.
            del ref
    return LARGE_BYTES / statistics.median(took[2:]) / 1e9


def get_large() -> float:
    """Microseconds for getting a 100 MB array that nobody has got before."""
    array = _large()
    took = []
    for _ in range(LARGE_PASSES):
        ref = api.put(array)
        start = time.perf_counter()
        value = api.get(ref)
        took.append(time.perf_counter() - start)
        check(int(value[-1]) == int(array[-1]))
        del ref, value
    return statistics.median(took[2:]) * 1e6


if __name__ == "__main__":
    if api is not None:
        api.init()
    main(put_small, get_small, wait_tasks, wait_objects, put_large, get_large, refs_inside)
    if api is not None:
        api.shutdown()
