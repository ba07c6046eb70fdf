"""Defects that were found by combining tasks, actors, generators, lineage and full stores."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lost_objects import lose

import skate
from skate import exceptions
from skate.api.session import current
from skate.runtime.wire.state import TaskRow
from skate.runtime.worker.stacks import stacks
from skate.runtime.worker.waits import Waits
from skate.util import placement_group, remove_placement_group

MB = 1024 * 1024


@skate.remote
def make(value: int) -> Any:
    return np.full(MB, value, dtype=np.uint8)


@skate.remote
def one() -> int:
    return 1


@skate.remote
class Reader:
    async def awaits(self, refs: list[Any]) -> int:
        return int((await refs[0])[0])

    async def takes(self, array: Any) -> int:
        return int(array[0])

    async def was_blocked(self) -> bool:
        return current().core.executor.async_calls._warned  # type: ignore[attr-defined]


@pytest.mark.timeout(120)
def test_what_an_async_actor_awaits_is_brought_here_while_its_loop_goes_on(
    cluster: Callable[..., None],
) -> None:
    cluster(num_cpus=2, object_store_memory=32 * MB)
    reader = Reader.remote()
    refs = [make.remote(i) for i in range(60)]  # half of them are on disk in the end
    skate.wait(refs, num_returns=60)
    assert skate.get([reader.awaits.remote([ref]) for ref in refs], timeout=60) == [*range(60)]
    assert skate.get([reader.takes.remote(ref) for ref in refs], timeout=60) == [*range(60)]
    lost = make.remote(77)
    skate.wait([lost])
    lose(lost)
    assert skate.get(reader.awaits.remote([lost]), timeout=60) == 77
    assert not skate.get(reader.was_blocked.remote(), timeout=60)


@pytest.mark.timeout(120)
def test_a_loop_of_the_driver_goes_on_while_values_are_brought_here(
    cluster: Callable[..., None],
) -> None:
    cluster(num_cpus=2, object_store_memory=32 * MB)
    refs = [make.remote(i) for i in range(60)]
    skate.wait(refs, num_returns=60)

    async def first(ref: Any) -> int:
        return int((await ref)[0])

    async def everything() -> list[int]:
        # One that is cancelled while its value is brought here leaves nothing behind.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first(refs[0]), 0)
        return await asyncio.gather(*[first(ref) for ref in refs])

    assert asyncio.run(everything()) == [*range(60)]
    lost, gone = make.remote(78), skate.put(np.zeros(MB, dtype=np.uint8))
    skate.wait([lost])
    lose(lost)
    assert asyncio.run(first(lost)) == 78
    lose(gone)
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="put"):
        asyncio.run(first(gone))


@pytest.mark.timeout(120)
def test_no_room_for_what_is_awaited(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=32 * MB)
    refs = [make.remote(i) for i in range(60)]
    skate.wait(refs, num_returns=60)

    async def everything() -> list[Any]:
        return [await ref for ref in refs]

    with pytest.raises(exceptions.ObjectStoreFullError, match="looks at everything"):
        asyncio.run(everything())


def test_constructors_get_stored_arguments_again_after_a_restart(session: None) -> None:
    @skate.remote(max_restarts=1, max_task_retries=1)
    class Holder:
        def __init__(self, array: Any, number: int) -> None:
            self.value = int(array[0]) + number

        def get(self) -> tuple[int, int]:
            return self.value, os.getpid()

    holder = Holder.remote(skate.put(np.full(MB, 9, dtype=np.uint8)), one.remote())
    gc.collect()
    value, pid = skate.get(holder.get.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    again, other = skate.get(holder.get.remote(), timeout=30)
    assert value == again == 10
    assert other != pid


def test_the_names_of_actors_in_a_removed_group_are_free_at_once(session: None) -> None:
    @skate.remote(num_cpus=1, max_restarts=-1)
    class Named:
        def pid(self) -> int:
            return os.getpid()

    for _ in range(10):
        group = placement_group([{"CPU": 1}])
        placed = Named.options(name="same", placement_group=group).remote()
        pid = skate.get(placed.pid.remote(), timeout=30)
        remove_placement_group(group)
        other = Named.options(name="same", get_if_exists=True).remote()
        assert skate.get(other.pid.remote(), timeout=30) != pid
        with pytest.raises(
            exceptions.ActorPlacementGroupRemovedError, match="its placement group is gone"
        ):
            skate.get(placed.pid.remote(), timeout=30)
        skate.kill(other)


def test_errors_say_what_is_the_matter(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=32 * MB)
    with pytest.raises(exceptions.ObjectStoreFullError, match="all of the object store") as caught:
        skate.put(np.zeros(64 * MB, dtype=np.uint8))
    assert "largest objects" not in str(caught.value)  # there are none

    @skate.remote(max_task_retries=2)
    class Maker:
        def make(self) -> Any:
            return np.zeros(MB, dtype=np.uint8)

    maker = Maker.remote()
    made = maker.make.remote()
    skate.wait([made])
    skate.kill(maker)
    lose(made)
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="dead: killed by skate"):
        skate.get(made, timeout=30)

    named = Maker.options(name="named").remote()
    skate.get(named.make.remote(), timeout=30)
    found = skate.get_actor("named")
    del named
    gc.collect()

    def call_for_ever() -> None:
        while True:
            skate.get(found.make.remote(), timeout=30)

    with pytest.raises(exceptions.ActorDiedError, match="lifetime='detached'"):
        call_for_ever()


def test_an_owner_that_died_is_named_with_its_pid(session: None) -> None:
    @skate.remote
    class Owner:
        def make(self) -> tuple[list[Any], int]:
            return [skate.put(np.zeros(MB, dtype=np.uint8))], os.getpid()

    owner = Owner.remote()
    [ref], pid = skate.get(owner.make.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(owner.make.remote(), timeout=30)
    with pytest.raises(exceptions.OwnerDiedError, match=rf"pid {pid}, killed by SIGKILL"):
        skate.get(make.remote(ref), timeout=30)


@pytest.mark.parametrize("look", ["waits", "stacks"])
def test_who_looks_at_the_frames_of_this_thread_does_not_keep_them(
    session: None, look: str
) -> None:
    """The frame that had looked held itself, and so the data of all its callers."""
    core: Any = current().core  # type: ignore[attr-defined]  # of the native engine

    def row(*_: object) -> TaskRow:
        return TaskRow(b"", 0, "", "RUNNING", "", b"")

    def uses_data() -> weakref.ref[Any]:
        data = np.zeros(MB)
        with core.lock:
            if look == "waits":
                Waits(core, row, row).page()
            else:
                stacks(core)
        return weakref.ref(data)

    gc.disable()
    try:
        assert uses_data()() is None
    finally:
        gc.enable()
