"""``SkateExecutor`` behaves as CPython's ``ProcessPoolExecutor`` does.

Each test runs on both, unless it is about something that only one of them promises.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pool_functions as functions
import pytest

import skate
from skate.util import SkateExecutor
from skate.util.concurrent import WorkerLostError

#: Calls have ended when they are submitted.
PROCESSES = pytest.mark.parametrize("kind_name", ["cpython", "skate-native"], indirect=True)
OURS = pytest.mark.parametrize("kind_name", ["skate-native"], indirect=True)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make_executor(*args: Any, **kwargs: Any) -> Any:
        if kind == "cpython":
            kwargs["mp_context"] = multiprocessing.get_context("spawn")
            made.append(concurrent.futures.ProcessPoolExecutor(*args, **kwargs))
        else:
            made.append(SkateExecutor(*args, **kwargs))
        return made[-1]

    yield make_executor
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def executor(make: Callable[..., Any]) -> Any:
    return make(2)


def test_submit(executor):
    future = executor.submit(functions.add, 1, y=2)
    assert future.result(50) == 3
    assert future.done()
    assert not future.cancel()
    assert future.exception() is None


def test_map(executor):
    assert list(executor.map(functions.square, range(10))) == [x * x for x in range(10)]
    assert list(executor.map(functions.add, range(10), range(5))) == [0, 2, 4, 6, 8]
    chunks = executor.map(functions.add, range(10), range(10), chunksize=3)
    assert list(chunks) == list(range(0, 20, 2))
    assert list(executor.map(functions.square, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(functions.square, [1], chunksize=0)


@PROCESSES
def test_map_timeout(executor, tmp_path):
    go = tmp_path / "go"
    results = executor.map(functions.wait_for, [str(go)], timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    go.touch()


def test_errors_keep_their_class_and_show_the_remote_traceback(executor):
    future = executor.submit(functions.fail, 1)
    with pytest.raises(ValueError, match="no 1") as caught:
        future.result(50)
    assert type(caught.value) is ValueError
    assert "in fail" in str(caught.value.__cause__)
    results = executor.map(functions.fail_on_three, range(5))
    with pytest.raises(KeyError):
        list(results)


def test_system_exit_is_an_exception(executor):
    error = executor.submit(functions.leave).exception(50)
    assert isinstance(error, SystemExit)
    assert executor.submit(functions.square, 3).result(50) == 9


def test_what_cannot_be_pickled(executor):
    with pytest.raises(Exception, match=r"(?i)pickle"):
        executor.submit(functions.square, threading.Lock()).result(50)
    with pytest.raises(Exception, match=r"(?i)pickle"):
        executor.submit(functions.unpicklable).result(50)
    assert executor.submit(functions.square, 3).result(50) == 9


@PROCESSES
def test_cancel_before_start(make, tmp_path):
    executor = make(1)
    mark, go = tmp_path / "mark", tmp_path / "go"
    running = executor.submit(functions.mark_and_wait_for, str(mark), str(go))
    waiting = [executor.submit(functions.square, x) for x in range(4)]
    functions.wait_for(str(mark))
    assert running.running()
    assert not running.cancel()
    # CPython sends one call ahead.
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].result(50)
    with pytest.raises(concurrent.futures.TimeoutError):
        running.result(timeout=0.01)
    go.touch()
    assert [future.result(50) for future in waiting[:-1]] == [0, 1, 4]
    assert running.result(50) == str(go)


@PROCESSES
def test_a_waiting_thread_learns_of_a_cancellation(make, tmp_path):
    executor = make(1)
    go = tmp_path / "go"
    blocker = executor.submit(functions.wait_for, str(go))
    futures = [executor.submit(functions.square, x) for x in range(4)]
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            futures[-1].result(50)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert futures[-1].cancel()
    thread.join(50)
    assert isinstance(errors[0], concurrent.futures.CancelledError)
    go.touch()
    assert blocker.result(50)


@PROCESSES
def test_shutdown_cancels_futures(make, tmp_path):
    executor = make(1)
    mark, go = tmp_path / "mark", tmp_path / "go"
    running = executor.submit(functions.mark_and_wait_for, str(mark), str(go))
    functions.wait_for(str(mark))
    waiting = [executor.submit(functions.square, x) for x in range(5)]
    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    ending.start()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].result(50)
    go.touch()
    ending.join(50)
    assert running.result(0) == str(go)
    # CPython has sent some ahead.
    assert all(future.cancelled() for future in waiting[2:])


def test_shutdown(executor):
    futures = [executor.submit(functions.square, x) for x in range(5)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == [0, 1, 4, 9, 16]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(functions.square, 1)


def test_context_manager(make):
    with make(2) as executor:
        future = executor.submit(functions.square, 3)
    assert future.result(0) == 9
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(functions.square, [1])


def test_wait_and_as_completed(executor):
    futures = [executor.submit(functions.square, x) for x in range(20)]
    done, pending = concurrent.futures.wait(futures, timeout=50)
    assert not pending
    assert {future.result() for future in done} == {x * x for x in range(20)}
    again = [executor.submit(functions.square, x) for x in range(20)]
    assert sum(f.result() for f in concurrent.futures.as_completed(again, 50)) == 2470


def test_done_callbacks(executor):
    called = threading.Event()
    future = executor.submit(functions.square, 3)
    future.add_done_callback(lambda done: called.set() if done.result() == 9 else None)
    assert called.wait(50)


def test_initializer(make):
    executor = make(2, initializer=functions.initialize, initargs=(7,))
    assert list(executor.map(functions.get_state, range(6))) == [7] * 6


def test_an_initializer_that_raises_breaks_the_executor(make):
    executor = make(2, initializer=functions.fail, initargs=(1,))
    with pytest.raises(BrokenProcessPool):
        executor.submit(functions.square, 1).result(50)
    with pytest.raises(BrokenProcessPool):
        executor.submit(functions.square, 1)


@PROCESSES
def test_max_tasks_per_child(make):
    executor = make(1, max_tasks_per_child=2)
    pids = [executor.submit(functions.pid).result(50) for _ in range(6)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]


def test_asyncio_runs_on_it(executor):
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, functions.square, x) for x in range(10)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [x * x for x in range(10)]


def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="greater than 0"):
        make(0)
    with pytest.raises(TypeError, match="callable"):
        make(1, initializer=3)
    with pytest.raises(ValueError, match=">= 1"):
        make(1, max_tasks_per_child=0)


@PROCESSES
def test_a_dead_worker(executor):
    with pytest.raises(BrokenProcessPool):
        executor.submit(functions.die).result(50)


# ------------------------------------------------------------------- what only ours promises


@OURS
def test_a_dead_worker_is_replaced(executor):
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        executor.submit(functions.die).result(50)
    assert list(executor.map(functions.square, range(4))) == [0, 1, 4, 9]


@OURS
def test_lambdas_and_refs(executor):
    factor = 3
    assert executor.submit(lambda x: x * factor, 2).result(50) == 6
    assert executor.submit(sum, skate.put([1, 2, 3])).result(50) == 6


@OURS
def test_a_call_may_submit_to_an_executor(executor):
    def nested(x):
        with SkateExecutor(2) as inner:
            return sum(inner.map(functions.square, range(x)))

    assert list(executor.map(nested, [3, 4])) == [5, 14]


@OURS
def test_ten_thousand_cancelled_futures(make, tmp_path):
    executor = make(1)
    go = tmp_path / "go"
    first = executor.submit(functions.wait_for, str(go))
    futures = [executor.submit(functions.square, x) for x in range(10_000)]
    assert all(future.cancel() for future in futures)
    last = executor.submit(functions.square, 5)
    go.touch()
    assert first.result(50)
    assert last.result(50) == 25


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_the_interpreter_finishes_the_work_before_it_exits(engine, tmp_path):
    script = (
        "import skate, time\n"
        "from skate.util import SkateExecutor\n"
        f"skate.init(engine={engine!r}, num_cpus=1, log_to_driver=False)\n"
        "def write(path):\n"
        "    time.sleep(0.1)\n"
        "    open(path, 'w').close()\n"
        "executor = SkateExecutor(1)\n"
        f"for number in range(3): executor.submit(write, {str(tmp_path)!r} + f'/{{number}}')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
