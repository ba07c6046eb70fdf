"""Which task goes where, how many workers are asked for, what is taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest

from skate.runtime.worker.leases import (
    MAX_DEPTH,
    PIPELINE_SECONDS,
    STEAL_AFTER_SECONDS,
    FunctionStats,
    Lease,
    SchedulingKey,
    lease_limit,
)

_numbers = count()


@dataclass(eq=False)
class FakeTask:
    stats: FunctionStats
    task_id: bytes = field(default_factory=lambda: next(_numbers).to_bytes(16, "big"))


def taking(seconds: float | None) -> FunctionStats:
    stats = FunctionStats()
    stats.seconds = seconds
    return stats


def key_with(leases: int, limit: int = 2) -> SchedulingKey:
    key = SchedulingKey({"CPU": 1.0}, limit)
    for number in range(leases):
        key.leases.append(Lease(number, None, key, 0.0))
    return key


def assign_all(key: SchedulingKey) -> None:
    while (assigned := key.assign()) is not None:
        lease, task = assigned
        lease.in_flight[task.task_id] = task


@pytest.mark.parametrize(
    ("seconds", "depth"),
    [
        (None, 1),
        (10.0, 1),
        (PIPELINE_SECONDS, 2),
        (PIPELINE_SECONDS / 10, 11),
        (1e-6, MAX_DEPTH),
        (0.0, MAX_DEPTH),
    ],
)
def test_depth_follows_the_measured_duration(seconds: float | None, depth: int) -> None:
    assert taking(seconds).depth() == depth


def test_durations_are_averaged() -> None:
    stats = FunctionStats()
    stats.observe(1.0)
    assert stats.seconds == 1.0
    stats.observe(0.0)
    assert stats.seconds == pytest.approx(0.8)


def test_unknown_tasks_go_one_to_a_worker_in_order() -> None:
    key = key_with(2)
    stats = taking(None)
    tasks = [FakeTask(stats) for _ in range(5)]
    key.queue.extend(tasks)
    assign_all(key)
    assert [list(lease.in_flight.values()) for lease in key.leases] == [[tasks[0]], [tasks[1]]]
    assert list(key.queue) == tasks[2:]


def test_short_tasks_fill_pipelines_evenly() -> None:
    key = key_with(2)
    stats = taking(PIPELINE_SECONDS / 9.5)
    key.queue.extend(FakeTask(stats) for _ in range(15))
    assign_all(key)
    assert sorted(len(lease.in_flight) for lease in key.leases) == [7, 8]


def test_nothing_goes_to_blocked_or_recalled_workers() -> None:
    key = key_with(2)
    key.leases[0].blocked = True
    key.leases[1].recalled = True
    key.queue.append(FakeTask(taking(None)))
    assert key.assign() is None
    assert key.missing() == 1


def test_asks_for_as_many_leases_as_tasks_wait_but_not_more_than_exist() -> None:
    key = key_with(0, limit=3)
    stats = taking(None)
    key.queue.append(FakeTask(stats))
    assert key.missing() == 1
    key.queue.extend(FakeTask(stats) for _ in range(9))
    assert key.missing() == 3
    key.requests.update({1, 2})
    assert key.missing() == 1
    key.queue.clear()
    assert key.missing() == -2


def test_backlog_of_long_tasks_is_shared_with_an_idle_worker() -> None:
    key = key_with(2)
    stats = taking(PIPELINE_SECONDS)
    for _ in range(8):
        task = FakeTask(stats)
        key.leases[0].in_flight[task.task_id] = task
    assert key.victim(now=0.0) == (key.leases[0], 4)
    key.leases[0].stealing = True
    assert key.victim(now=0.0) is None


def test_backlog_that_is_about_to_be_done_is_left_alone_until_it_stands() -> None:
    key = key_with(2)
    stats = taking(1e-6)
    for _ in range(8):
        task = FakeTask(stats)
        key.leases[0].in_flight[task.task_id] = task
    assert key.victim(now=0.0) is None
    assert key.victim(now=2 * STEAL_AFTER_SECONDS) == (key.leases[0], 4)


def test_a_single_task_in_flight_is_never_taken() -> None:
    key = key_with(2)
    task = FakeTask(taking(100.0))
    key.leases[0].in_flight[task.task_id] = task
    assert key.victim(now=1000.0) is None


def test_help_is_wanted_when_a_pipeline_stands() -> None:
    key = key_with(1)
    stats = taking(1e-6)
    for _ in range(3):
        task = FakeTask(stats)
        key.leases[0].in_flight[task.task_id] = task
    assert not key.lacks_helpers(now=0.0)
    assert key.lacks_helpers(now=2 * STEAL_AFTER_SECONDS)
    key.requests.add(1)
    assert not key.lacks_helpers(now=2 * STEAL_AFTER_SECONDS)


@pytest.mark.parametrize(
    ("needed", "total", "limit"),
    [
        ({"CPU": 1.0}, {"CPU": 4.0}, 4),
        ({"CPU": 0.1}, {"CPU": 1.0}, 10),
        ({"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, 1),
        ({"CPU": 64.0}, {"CPU": 4.0}, 1),
        ({"special": 1.0}, {"CPU": 4.0}, 1),
        ({}, {"CPU": 4.0}, 4),
    ],
)
def test_limit(needed: dict[str, float], total: dict[str, float], limit: int) -> None:
    assert lease_limit(needed, total) == limit
