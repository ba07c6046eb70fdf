"""``skate.util.multiprocessing.Pool`` behaves as CPython's ``multiprocessing.Pool`` does.

Each test runs on both, unless it is about something that only one of them promises.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pool_functions as functions
import pytest

import skate
from skate.exceptions import ActorDiedError, TaskCancelledError
from skate.util.multiprocessing import Pool

#: Calls have ended when they are submitted.
PROCESSES = pytest.mark.parametrize("kind_name", ["cpython", "skate-native"], indirect=True)
OURS = pytest.mark.parametrize("kind_name", ["skate-native"], indirect=True)
BOTH_OURS = pytest.mark.parametrize("kind_name", ["skate-native", "skate-inline"], indirect=True)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make_pool(*args: Any, **kwargs: Any) -> Any:
        if kind == "cpython":
            made.append(multiprocessing.get_context("spawn").Pool(*args, **kwargs))
        else:
            made.append(Pool(*args, **kwargs))
        return made[-1]

    yield make_pool
    for pool in made:
        pool.terminate()
        pool.join()


@pytest.fixture
def pool(make: Callable[..., Any]) -> Any:
    return make(2)


def test_apply(pool):
    assert pool.apply(functions.add, (1,), {"y": 2}) == 3
    assert pool.apply_async(functions.add, (1,)).get(50) == 11


def test_map(pool):
    assert pool.map(functions.square, range(10)) == [x * x for x in range(10)]
    assert pool.map(functions.square, iter(range(10)), chunksize=3) == [x * x for x in range(10)]
    assert pool.map(functions.square, []) == []
    assert pool.map_async(functions.square, range(5)).get(50) == [0, 1, 4, 9, 16]


def test_starmap(pool):
    assert pool.starmap(functions.add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap(functions.add, zip(range(7), range(7), strict=True), chunksize=2) == [
        0, 2, 4, 6, 8, 10, 12
    ]  # fmt: skip
    assert pool.starmap_async(functions.add, [[5, 6]]).get(50) == [11]


@pytest.mark.parametrize("chunksize", [1, 4])
def test_imap(pool, chunksize):
    results = pool.imap(functions.square, range(30), chunksize=chunksize)
    assert next(results) == 0
    assert list(results) == [x * x for x in range(1, 30)]
    with pytest.raises(StopIteration):
        next(results)
    assert list(pool.imap(functions.square, [])) == []


@pytest.mark.parametrize("chunksize", [1, 4])
def test_imap_unordered(pool, chunksize):
    results = pool.imap_unordered(functions.square, range(30), chunksize=chunksize)
    assert sorted(results) == [x * x for x in range(30)]


def test_imap_goes_on_after_an_error(pool):
    results = pool.imap(functions.fail_on_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert next(results) == 4


def test_an_iterable_that_raises(pool):
    def numbers():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pool.map(functions.square, numbers())
    results = pool.imap(functions.square, numbers())
    with pytest.raises(OSError, match="gone"):
        list(results)


def test_chunksize_is_checked(pool):
    with pytest.raises(ValueError, match=r"must be 1\+"):
        pool.imap(functions.square, [1], chunksize=0)
    with pytest.raises(ValueError, match=r"must be 1\+"):
        pool.imap_unordered(functions.square, [1], chunksize=-1)


def test_errors_keep_their_class_and_show_the_remote_traceback(pool):
    result = pool.apply_async(functions.fail, (1,))
    with pytest.raises(ValueError, match="no 1") as caught:
        result.get(50)
    assert type(caught.value) is ValueError
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(KeyError):
        pool.map(functions.fail_on_three, range(10))
    # The pool is as good as before.
    assert pool.apply(functions.square, (3,)) == 9


def test_ready_and_successful(pool):
    good = pool.apply_async(functions.square, (3,))
    good.wait(50)
    assert good.ready()
    assert good.successful()
    bad = pool.map_async(functions.fail, [1, 2])
    bad.wait(50)
    assert bad.ready()
    assert not bad.successful()


@PROCESSES
def test_not_ready(pool, tmp_path):
    go = tmp_path / "go"
    result = pool.apply_async(functions.wait_for, (str(go),))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    result.wait(0.01)
    assert not result.ready()
    go.touch()
    assert result.get(50) == str(go)


@PROCESSES
def test_imap_timeout(pool, tmp_path):
    go = tmp_path / "go"
    results = pool.imap(functions.wait_for, [str(go)])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    go.touch()
    assert results.next(timeout=50) == str(go)


def test_callbacks(pool):
    called: list[Any] = []
    both = threading.Event()

    def note(value):
        called.append(value)
        if len(called) == 3:
            both.set()

    pool.apply_async(functions.square, (3,), callback=note).get(50)
    pool.map_async(functions.square, [1, 2], callback=note).get(50)
    with pytest.raises(ValueError, match="no 5"):
        pool.apply_async(functions.fail, (5,), callback=note, error_callback=note).get(50)
    assert both.wait(50)
    assert called[:2] == [9, [1, 4]]
    assert str(called[2]) == "no 5"


def test_initializer(make):
    pool = make(2, initializer=functions.initialize, initargs=(7,))
    assert pool.map(functions.get_state, range(6)) == [7] * 6


@PROCESSES
def test_max_tasks_per_child(make):
    pool = make(1, maxtasksperchild=2)
    pids = [pool.apply(functions.pid) for _ in range(6)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]


@PROCESSES
def test_several_processes_work_at_once(pool, tmp_path):
    paths = [str(tmp_path / name) for name in "ab"]
    # Each waits for what the other creates.
    first = pool.apply_async(functions.mark_and_wait_for, (paths[0], paths[1]))
    second = pool.apply_async(functions.mark_and_wait_for, (paths[1], paths[0]))
    assert first.get(50) == paths[1]
    assert second.get(50) == paths[0]


def test_a_result_that_cannot_be_pickled(pool):
    with pytest.raises(Exception, match=r"(?i)pickle"):
        pool.apply(functions.unpicklable)
    assert pool.apply(functions.square, (2,)) == 4


def test_an_argument_that_cannot_be_pickled(pool):
    with pytest.raises(Exception, match=r"(?i)pickle"):
        pool.apply(functions.square, (threading.Lock(),))
    assert pool.apply(functions.square, (2,)) == 4


def test_closed(pool):
    results = [pool.apply_async(functions.square, (x,)) for x in range(5)]
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.apply_async(functions.square, (1,))
    with pytest.raises(ValueError, match="not running"):
        pool.map(functions.square, [1])
    with pytest.raises(ValueError, match="not running"):
        pool.imap(functions.square, [1])
    pool.join()
    assert [result.get(0.1) for result in results] == [0, 1, 4, 9, 16]


def test_context_manager(make):
    with make(2) as pool:
        assert pool.map(functions.square, [1, 2]) == [1, 4]
    with pytest.raises(ValueError, match="not running"):
        pool.map(functions.square, [1])
    with pytest.raises(ValueError, match="not running"), pool:
        pass


def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="at least 1"):
        make(0)
    with pytest.raises(TypeError, match="callable"):
        make(1, initializer=3)
    with pytest.raises(ValueError, match="positive int"):
        make(1, maxtasksperchild=0)


def test_it_does_not_travel(pool):
    import pickle

    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


# ------------------------------------------------------------------- what only ours promises


@BOTH_OURS
def test_lambdas_and_refs(pool):
    factor = 3
    assert pool.map(lambda x: x * factor, [1, 2]) == [3, 6]
    assert pool.apply(lambda values: sum(values), (skate.put([1, 2, 3]),)) == 6


@BOTH_OURS
def test_a_failing_initializer_fails_all_calls(make):
    pool = make(2, initializer=functions.fail, initargs=(1,))
    # Perhaps the failure is known before the second call is submitted.
    with pytest.raises(skate.exceptions.SkateError, match=r"initializer.*no 1"):  # noqa: PT012
        for result in [pool.apply_async(functions.square, (x,)) for x in range(3)]:
            with pytest.raises(skate.exceptions.SkateError, match=r"initializer.*no 1"):
                result.get(50)
        pool.apply(functions.square, (1,))
    with pytest.raises(skate.exceptions.SkateError, match=r"initializer.*no 1"):
        pool.apply(functions.square, (1,))


@OURS
def test_a_worker_that_dies_is_replaced(pool):
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        pool.apply(functions.die)
    assert pool.map(functions.square, range(4)) == [0, 1, 4, 9]


@OURS
def test_terminate_fails_what_is_not_done(pool, tmp_path):
    never = str(tmp_path / "never")
    results = [pool.apply_async(functions.wait_for, (never,)) for _ in range(4)]
    pool.terminate()
    pool.join()
    for result in results:
        with pytest.raises(TaskCancelledError, match="terminated"):
            result.get(50)


@OURS
def test_imap_reads_no_further_than_it_has_to(pool):
    read = itertools.count()
    last = 0

    def numbers():
        nonlocal last
        while True:
            last = next(read)
            yield last

    results = pool.imap(functions.square, numbers())
    assert [next(results) for _ in range(50)] == [x * x for x in range(50)]
    assert last < 1000
    feeders = [t for t in threading.enumerate() if t.name == "skate-imap"]
    assert feeders
    del results
    for thread in feeders:
        thread.join(50)
        assert not thread.is_alive()


@OURS
def test_pools_inside_calls(pool):
    def nested(x):
        with Pool(2) as inner:
            return sum(inner.map(functions.square, range(x)))

    assert pool.map(nested, [3, 4]) == [5, 14]


@OURS
def test_a_task_that_waits_for_a_pool_gives_its_cpu_back(make):
    @skate.remote
    def one() -> int:
        return 1

    @skate.remote(num_cpus=2)
    def with_pool() -> int:
        with Pool(1, ray_remote_args={"num_cpus": 1}) as pool:
            return pool.apply(lambda: skate.get(one.remote()))

    assert skate.get(with_pool.remote(), timeout=50) == 1


@OURS
def test_no_process_is_left(kind):
    with Pool(2) as pool:
        pids = set(pool.map(functions.pid, range(20)))
    deadline = 1000
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        threading.Event().wait(0.02)
        deadline -= 1
        assert deadline


def test_workers_spread_over_a_cluster():
    from skate.cluster_utils import Cluster

    skate.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        nodes.add_node(num_cpus=2)
        skate.init(address=nodes.address)

        def where(barrier):
            skate.get(barrier.arrive.remote())
            return skate.get_runtime_context().get_node_id()

        @skate.remote
        class Barrier:
            def __init__(self):
                self.left, self.complete = 4, asyncio.Event()

            async def arrive(self):
                self.left -= 1
                if not self.left:
                    self.complete.set()
                await self.complete.wait()

        with Pool() as pool:
            # All four run at the same time.
            places = pool.map(where, [Barrier.remote()] * 4, chunksize=1)
        assert len(set(places)) == 2
    finally:
        skate.shutdown()
        nodes.shutdown()
