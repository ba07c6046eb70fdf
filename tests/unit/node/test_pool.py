"""How many workers to have."""

from __future__ import annotations

from skate.runtime.node import pool as module
from skate.runtime.node.pool import Pool


def started(pool: Pool, count: int, now: float = 0.0) -> list[bytes]:
    """Fork and register ``count`` workers."""
    workers = [b"w%d" % (len(pool.starting) + pool.idle_count + i) for i in range(count)]
    for worker in workers:
        pool.forked(worker, now)
        pool.registered(worker, now)
    return workers


def test_some_are_started_before_there_is_work() -> None:
    assert Pool(2).to_fork(0) == 2
    assert Pool(64).to_fork(0) == module.PRESTART


def test_as_many_as_can_be_used_and_no_more() -> None:
    pool = Pool(2)
    started(pool, 2)
    assert pool.to_fork(0) == 0
    assert pool.to_fork(2) == 0
    assert pool.to_fork(3) == 1
    pool.forked(b"x", 0.0)
    assert pool.to_fork(3) == 0


def test_not_too_many_start_at_the_same_time() -> None:
    pool = Pool(2)
    for number in range(module.STARTING_LIMIT):
        assert pool.to_fork(1000) == module.STARTING_LIMIT - number
        pool.forked(b"w%d" % number, 0.0)
    assert pool.to_fork(1000) == 0
    pool.registered(b"w0", 0.0)
    assert pool.to_fork(1000) == 1


def test_the_warmest_is_taken_first() -> None:
    pool = Pool(2)
    first, second = started(pool, 2)
    assert {pool.take(), pool.take()} == {first, second}
    assert pool.take() is None
    pool.put_back(second, 1.0)
    pool.put_back(first, 2.0)
    fresh = started(pool, 1, now=3.0)
    assert [pool.take(), pool.take(), pool.take()] == [first, second, *fresh]


def test_surplus_is_retired_after_a_while_and_the_rest_is_kept() -> None:
    pool = Pool(2)
    workers = started(pool, 4)
    assert pool.surplus(module.IDLE_SECONDS - 1) == []
    assert pool.needs_time()
    retired = pool.surplus(module.IDLE_SECONDS + 1)
    assert len(retired) == 2
    assert pool.surplus(module.IDLE_SECONDS + 1) == []
    assert not pool.needs_time()
    assert {pool.take(), pool.take()} == set(workers) - set(retired)


def test_busy_workers_are_no_surplus() -> None:
    pool = Pool(1)
    started(pool, 3)
    pool.take()
    pool.take()
    assert pool.surplus(1000.0) == []


def test_failures_in_a_row_are_counted_and_a_success_forgives() -> None:
    pool = Pool(1)
    outcomes = []
    for number in range(module.MAX_FAILURES - 1):
        pool.forked(b"a%d" % number, 0.0)
        outcomes.append(pool.ended(b"a%d" % number))
    assert not any(outcomes)
    started(pool, 1)
    for number in range(module.MAX_FAILURES):
        pool.forked(b"b%d" % number, 0.0)
        outcomes.append(pool.ended(b"b%d" % number))
    assert outcomes[-1]
    assert not any(outcomes[:-1])


def test_workers_that_never_start_are_not_forked_for_ever() -> None:
    pool = Pool(4)
    for number in range(module.MAX_FAILURES):
        assert pool.to_fork(0) > 0
        pool.forked(b"w%d" % number, 0.0)
        pool.ended(b"w%d" % number)
    assert pool.to_fork(0) == 0


def test_the_end_of_a_worker_that_had_started_is_no_failure() -> None:
    pool = Pool(1)
    for number in range(3 * module.MAX_FAILURES):
        pool.forked(b"w%d" % number, 0.0)
        pool.registered(b"w%d" % number, 0.0)
        assert not pool.ended(b"w%d" % number)
    assert pool.take() is None


def test_removed_workers_are_not_taken() -> None:
    pool = Pool(2)
    first, second = started(pool, 2)
    pool.remove(second)
    pool.remove(b"unknown")
    assert pool.take() == first


def test_overdue() -> None:
    pool = Pool(1)
    pool.forked(b"slow", 0.0)
    pool.forked(b"young", module.START_SECONDS)
    assert pool.overdue(module.START_SECONDS + 1) == [b"slow"]


def test_workers_of_an_environment_serve_nobody_else() -> None:
    pool = Pool(2)
    pool.forked(b"red", 0.0, b"E")
    assert pool.to_fork(1, b"E") == 0
    assert pool.to_fork(2, b"E") == 1
    assert pool.to_fork(1, b"F") == 1
    pool.registered(b"red", 0.0)
    assert pool.take() is None
    assert pool.take(b"F") is None
    assert pool.take(b"E") == b"red"
    pool.put_back(b"red", 1.0)
    pool.remove(b"red")
    assert pool.take(b"E") is None


def test_environments_share_the_limit_on_starting() -> None:
    pool = Pool(2)
    for number in range(module.STARTING_LIMIT):
        pool.forked(b"w%d" % number, 0.0, b"E")
    assert pool.to_fork(5, b"F") == 0
    pool.forked(b"w0", 1.0)  # its process exists now
    assert pool.to_fork(module.STARTING_LIMIT, b"E") == 0


def test_idle_workers_of_rare_environments_are_retired_sooner() -> None:
    pool = Pool(8)
    for worker, environment in ((b"plain", b""), (b"rare", b"R"), (b"often", b"O")):
        pool.forked(worker, 0.0, environment)
        pool.registered(worker, 0.0)
    for environment, uses in ((b"R", 1), (b"O", 10)):
        for _ in range(uses):
            worker = pool.take(environment)
            assert worker is not None
            pool.put_back(worker, 0.0)
    assert pool.needs_time()
    assert pool.surplus(module.RARE_SECONDS - 1) == []
    assert pool.surplus(module.RARE_SECONDS + 1) == [b"rare"]
    assert pool.surplus(module.RARE_SECONDS * 10 - 1) == []
    assert pool.surplus(module.RARE_SECONDS * 10 + 1) == [b"often"]
    assert not pool.needs_time()
    assert pool.take() == b"plain"


def test_failures_are_counted_for_each_environment() -> None:
    pool = Pool(1)
    for number in range(module.MAX_FAILURES - 1):
        assert not pool.failed(b"E")
        assert not pool.failed(b"F")
        pool.forked(b"w%d" % number, 0.0)
        pool.registered(b"w%d" % number, 0.0)
    assert pool.failed(b"E")
    pool.forget(b"F")
    assert not pool.failed(b"F")
