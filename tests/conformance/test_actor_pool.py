"""``skate.util.ActorPool``."""

from __future__ import annotations

import pytest

import skate
from skate.exceptions import GetTimeoutError
from skate.util import ActorPool


@skate.remote
class Doubler:
    def double(self, value):
        return 2 * value

    @skate.method(num_returns=2)
    def both(self, value):
        return value, -value

    def wait_for(self, signal, value):
        skate.get(signal.wait.remote())
        return value

    def fail(self, value):
        raise ValueError(value)


@skate.remote(max_concurrency=20)
class Signal:
    def __init__(self):
        import threading

        self.event = threading.Event()

    def wait(self):
        assert self.event.wait(50)

    def set(self):
        self.event.set()


def double(actor, value):
    return actor.double.remote(value)


pytestmark = pytest.mark.usefixtures("session")

NO_WAITING = pytest.mark.differs("inline", reason="calls have ended when they are submitted")


@pytest.fixture
def pool():
    return ActorPool([Doubler.remote(), Doubler.remote()])


def test_map_keeps_the_order(pool):
    assert list(pool.map(double, range(20))) == list(range(0, 40, 2))
    assert not pool.has_next()


def test_map_unordered_yields_everything(pool):
    assert sorted(pool.map_unordered(double, range(20))) == list(range(0, 40, 2))


def test_map_drops_what_was_not_fetched(pool):
    pool.submit(double, 100)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]


def test_submit_and_get_next(pool):
    for value in range(5):
        pool.submit(double, value)
    results = []
    while pool.has_next():
        results.append(pool.get_next())
    assert results == [0, 2, 4, 6, 8]


def test_ordered_and_unordered_may_be_mixed(pool):
    for value in range(6):
        pool.submit(double, value)
    results = [pool.get_next_unordered(), pool.get_next(), pool.get_next_unordered()]
    while pool.has_next():
        results.append(pool.get_next())
    assert sorted(results) == [0, 2, 4, 6, 8, 10]


def test_no_more_results(pool):
    with pytest.raises(StopIteration, match="no more results"):
        pool.get_next()
    with pytest.raises(StopIteration, match="no more results"):
        pool.get_next_unordered()


def test_several_returns(pool):
    assert list(pool.map(lambda actor, value: actor.both.remote(value), [1, 2, 3])) == [
        [1, -1],
        [2, -2],
        [3, -3],
    ]


def test_an_error_frees_the_actor():
    pool = ActorPool([Doubler.remote()])
    pool.submit(lambda actor, value: actor.fail.remote(value), 7)
    pool.submit(double, 8)
    with pytest.raises(ValueError, match="7"):
        pool.get_next()
    assert pool.get_next() == 16


def test_push_and_pop_idle(pool):
    first, second = pool.pop_idle(), pool.pop_idle()
    assert pool.pop_idle() is None
    assert not pool.has_free()
    pool.submit(double, 1)
    with pytest.raises(ValueError, match="push"):
        pool.get_next()
    pool.push(first)
    assert pool.get_next() == 2
    assert pool.has_free()
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    pool.push(second)
    with pytest.raises(TypeError, match="handles"):
        pool.push("actor")


def test_a_function_without_ref_is_refused(pool):
    with pytest.raises(TypeError, match="returned int"):
        pool.submit(lambda actor, value: 3, 1)
    assert pool.has_free()
    assert list(pool.map(double, [1])) == [2]


@NO_WAITING
def test_timeouts(pool):
    signal = Signal.remote()
    for value in (1, 2):
        pool.submit(lambda actor, v: actor.wait_for.remote(signal, v), value)
    assert not pool.has_free()
    with pytest.raises(GetTimeoutError, match="not ready"):
        pool.get_next(timeout=0.01)
    with pytest.raises(TimeoutError, match="none of the 2"):
        pool.get_next_unordered(timeout=0.01)
    # The first one is dropped, the other stays.
    with pytest.raises(TimeoutError, match="ignored"):
        pool.get_next(timeout=0.01, ignore_if_timedout=True)
    assert pool.has_free()
    skate.get(signal.set.remote())
    assert pool.get_next() == 2
    assert not pool.has_next()


@NO_WAITING
def test_a_slow_call_does_not_hold_back_the_others(pool):
    signal = Signal.remote()
    pool.submit(lambda actor, v: actor.wait_for.remote(signal, v), "slow")
    for value in range(5):
        pool.submit(double, value)

    # Somebody who waits for the slow one, which ends only after all others have run.
    pool.submit(lambda actor, _: signal.set.remote(), None)
    assert pool.get_next() == "slow"
    assert [pool.get_next() for _ in range(5)] == [0, 2, 4, 6, 8]


def test_reached_as_in_ray():
    assert skate.util.ActorPool is ActorPool
