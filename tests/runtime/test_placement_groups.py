"""Placement groups with real processes: what ends with what, and what is free afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sessions import running

import skate
from skate.exceptions import ActorPlacementGroupRemovedError, TaskPlacementGroupRemovedError
from skate.util import placement_group, placement_group_table, remove_placement_group
from skate.util.placement_group import PlacementGroup
from skate.util.scheduling_strategies import PlacementGroupSchedulingStrategy

SECONDS = 30


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SKATE_ENGINE", "native")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a,7")
    with running(num_cpus=4):
        yield


@skate.remote
def pid() -> int:
    return os.getpid()


@skate.remote
def sleep(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)


@skate.remote
class Maker:
    def make(self, lifetime: str | None) -> PlacementGroup:
        group = placement_group([{"CPU": 1}], lifetime=lifetime)
        assert group.wait(SECONDS)
        return group

    def pid(self) -> int:
        return os.getpid()


def until(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_removal_kills_what_runs_and_frees_what_it_held(tmp_path: Any) -> None:
    group = placement_group([{"CPU": 2}, {"CPU": 1}])
    inside = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    paths = [str(tmp_path / str(n)) for n in range(2)]
    running = [sleep.options(scheduling_strategy=inside, max_retries=5).remote(p) for p in paths]
    waiting = pid.options(scheduling_strategy=inside).remote()
    actor = Maker.options(num_cpus=1, placement_group=group, max_restarts=-1).remote()
    pids = [skate.get(actor.pid.remote(), timeout=SECONDS)]
    until(lambda: all(os.path.exists(path) and os.path.getsize(path) for path in paths))
    pids += [int(open(path).read()) for path in paths]  # noqa: SIM115
    remove_placement_group(group)
    for ref in running:
        with pytest.raises(TaskPlacementGroupRemovedError, match="sleep"):
            skate.get(ref, timeout=SECONDS)
    with pytest.raises(TaskPlacementGroupRemovedError):
        skate.get(waiting, timeout=SECONDS)
    with pytest.raises(ActorPlacementGroupRemovedError, match="remove_placement_group"):
        skate.get(actor.pid.remote(), timeout=SECONDS)
    until(lambda: not any(map(alive, pids)))
    until(lambda: skate.available_resources()["CPU"] == 4.0)
    # Workers outside are as good as ever.
    assert skate.get(pid.remote(), timeout=SECONDS) not in pids


def test_a_crash_in_a_group_leaves_the_bundle_to_the_next_try() -> None:
    group = placement_group([{"CPU": 1}])
    inside = PlacementGroupSchedulingStrategy(group)

    @skate.remote
    def crash_once(path: str) -> str:
        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    path = f"/tmp/skate-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        task = crash_once.options(scheduling_strategy=inside, max_retries=2).remote(path)
        assert skate.get(task, timeout=SECONDS) == "done"
    finally:
        os.unlink(path)
    assert skate.get(pid.options(scheduling_strategy=inside).remote(), timeout=SECONDS)


def test_groups_end_with_the_process_that_made_them_unless_detached() -> None:
    maker = Maker.remote()
    mine = skate.get(maker.make.remote(None), timeout=SECONDS)
    kept = skate.get(maker.make.remote("detached"), timeout=SECONDS)
    os.kill(skate.get(maker.pid.remote(), timeout=SECONDS), signal.SIGKILL)
    until(lambda: placement_group_table(mine)["state"] == "REMOVED")
    assert "has ended" in placement_group_table(mine)["reason"]
    assert placement_group_table(kept)["state"] == "CREATED"
    assert not mine.wait(SECONDS)
    assert kept.wait(SECONDS)


def test_idle_leases_are_called_in_for_a_group() -> None:
    # This process holds all CPUs for a while after its tasks have ended.
    skate.get([pid.remote() for _ in range(8)], timeout=SECONDS)
    assert placement_group([{"CPU": 4}]).wait(SECONDS)


def test_a_stream_of_tasks_does_not_starve_a_group() -> None:
    @skate.remote
    def short() -> None:
        time.sleep(0.01)

    @skate.remote
    def stream(path: str) -> None:
        pending: list[Any] = []
        while not os.path.exists(path):
            pending = pending[-8:] + [short.remote() for _ in range(4)]
            skate.wait(pending, timeout=1)

    path = f"/tmp/skate-test-{os.getpid()}-{time.monotonic_ns()}"
    streams = [stream.options(num_cpus=0).remote(path) for _ in range(2)]
    group = placement_group([{"CPU": 2}, {"CPU": 2}])
    assert group.wait(SECONDS)
    remove_placement_group(group)
    open(path, "w").close()
    skate.get(streams, timeout=SECONDS)
    os.unlink(path)


def test_a_blocked_task_lends_its_bundle_to_its_children() -> None:
    group = placement_group([{"CPU": 1}])
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)

    @skate.remote
    def nest(depth: int) -> int:
        return 1 + skate.get(nest.remote(depth - 1), timeout=SECONDS) if depth else 0

    assert skate.get(nest.options(scheduling_strategy=inside).remote(4), timeout=SECONDS) == 4


@skate.remote
def gpus() -> Any:
    visible = os.environ["CUDA_VISIBLE_DEVICES"]
    accelerators = skate.get_runtime_context().get_accelerator_ids()["GPU"]
    assert visible == ",".join(accelerators)
    return skate.get_gpu_ids()


def test_bundles_have_gpus_of_their_own() -> None:
    group = placement_group([{"GPU": 1}, {"GPU": 2}])

    def inside(index: int) -> PlacementGroupSchedulingStrategy:
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)

    whole = gpus.options(num_cpus=0, num_gpus=2, scheduling_strategy=inside(1))
    half = gpus.options(num_cpus=0, num_gpus=0.5, scheduling_strategy=inside(0))
    two = skate.get(whole.remote(), timeout=SECONDS)
    halves = skate.get([half.remote() for _ in range(4)], timeout=SECONDS)
    # The names that the session was given, not numbers counted from zero.
    assert {*two, *(name for one in halves for name in one)} == {4, "GPU-a", 7}
    assert len(two) == 2
    assert all(len(one) == 1 and one[0] not in two for one in halves)
    without = gpus.options(num_cpus=0, scheduling_strategy=inside(0))
    assert skate.get(without.remote(), timeout=SECONDS) == []


def test_a_task_without_gpus_sees_none_even_after_one_with() -> None:
    for _ in range(3):
        assert len(skate.get(gpus.options(num_cpus=4, num_gpus=1).remote(), timeout=SECONDS)) == 1
        assert skate.get(gpus.options(num_cpus=4).remote(), timeout=SECONDS) == []


def test_busy_leases_of_one_use_make_room_for_another_of_the_same_process() -> None:
    @skate.remote
    def short() -> None:
        time.sleep(0.02)

    # Hundreds of tasks wait for the leases of the first use; the other ones get their turn.
    many = [short.remote() for _ in range(800)]
    other = short.options(max_retries=0).remote()
    spread = short.options(scheduling_strategy="SPREAD").remote()
    skate.get([other, spread], timeout=SECONDS)
    assert skate.wait(many, num_returns=len(many), timeout=0)[1]
    skate.get(many, timeout=SECONDS)


def test_groups_leave_nothing_behind_in_who_has_used_them() -> None:
    @skate.remote
    def use(groups: list[PlacementGroup]) -> int:
        from skate.api.session import current

        for group in groups:
            inside = PlacementGroupSchedulingStrategy(group)
            skate.get(pid.options(scheduling_strategy=inside).remote(), timeout=SECONDS)
        leasing = current().core.leasing  # type: ignore[attr-defined]  # of this engine
        deadline = time.monotonic() + SECONDS
        while any(key.strategy is not None for key in leasing._keys.values()):
            if time.monotonic() > deadline:
                return -1
            # The keys are looked at by timers, which run while somebody waits.
            skate.wait([skate.put(None)], timeout=0)
            time.sleep(0.02)
        return len(leasing._keys)

    groups = [placement_group([{"CPU": 1}]) for _ in range(3)]
    assert skate.get(use.remote(groups), timeout=SECONDS) <= 1
