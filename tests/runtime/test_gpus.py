"""Who has used a GPU ends before others get it, and no worker looks for GPUs that has none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpus import gpus
from node_fakes import PATIENCE, FakeDriver, driver, is_running, tell, wait_until

import skate
from skate.runtime.node import processes
from skate.runtime.wire import messages as wire
from skate.util.placement_group import placement_group
from skate.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture
def session() -> Iterator[FakeDriver]:
    with driver(resources={"CPU": 2.0, "GPU": 1.0}) as link:
        yield link


@pytest.fixture
def device() -> Iterator[Path]:
    """Something that looks like a GPU's device file to whoever lists what a process has open."""
    path = Path(f"/dev/nvidia-test-{os.getpid()}")
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        pytest.skip(f"no file can be made in /dev: {error}")
    try:
        yield path
    finally:
        path.unlink()


def test_what_a_process_has_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not processes.has_open(os.getpid(), str(tmp_path))
    with path.open("w"):
        assert processes.has_open(os.getpid(), str(tmp_path))
        assert not processes.has_open(os.getpid(), str(tmp_path / "other"))
    assert not processes.has_open(2**22 + 1, "/")  # no such process


def test_a_worker_with_an_open_gpu_ends_before_others_get_it(
    session: FakeDriver, device: Path
) -> None:
    first = session.lease(1, CPU=1, GPU=0.5)
    tell(first.worker_address, f"worker.kept = open({str(device)!r})")
    session.request_lease(2, CPU=1, GPU=1)
    session.send(wire.ReturnLease(first.lease_id))
    second = session.wait_for(wire.LeaseGranted, request_id=2)
    # The daemon has reaped it: nothing of it is left on the GPU.
    assert not is_running(first.pid)
    assert second.gpu_ids == [0]


def test_a_worker_that_has_opened_no_gpu_is_used_again(session: FakeDriver) -> None:
    first = session.lease(1, CPU=1, GPU=1)
    session.send(wire.ReturnLease(first.lease_id))
    second = session.lease(2, CPU=1, GPU=1)
    assert second.worker_id == first.worker_id


def test_a_gpu_is_not_kept_by_a_worker_that_others_need(session: FakeDriver, device: Path) -> None:
    first = session.lease(1, CPU=1, GPU=1)
    tell(first.worker_address, f"worker.kept = open({str(device)!r}); worker.needed = True")
    session.send(wire.ReturnLease(first.lease_id))
    second = session.lease(2, CPU=1, GPU=1)
    assert second.worker_id != first.worker_id
    assert is_running(first.pid)
    tell(first.worker_address, "worker.needed = False")
    wait_until(lambda: not is_running(first.pid), "end of the worker")


def test_workers_for_gpus_run_nothing_else(session: FakeDriver) -> None:
    plain = session.lease(1, CPU=1)
    session.send(wire.ReturnLease(plain.lease_id))
    with_gpu = session.lease(2, CPU=1, GPU=1)
    session.send(wire.ReturnLease(with_gpu.lease_id))
    assert with_gpu.worker_id != plain.worker_id
    assert session.lease(3, CPU=1).worker_id == plain.worker_id


# ------------------------------------------------------------------ where there is one


@pytest.fixture(scope="module")
def real() -> int:
    """How many GPUs there are."""
    if not (number := gpus()):
        pytest.skip("no GPU here")
    return number


@pytest.fixture
def found(real: int) -> Iterator[int]:
    """A session that finds its GPUs by itself."""
    skate.init(num_cpus=4)
    try:
        yield real
    finally:
        skate.shutdown()


def use_gpu(megabytes: int = 64) -> tuple[int, int, int]:
    """Write to a GPU's memory and read it back; return pid, GPUs seen, and free MiB before."""
    import ctypes

    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        if code := getattr(cuda, name)(*arguments):
            raise RuntimeError(f"{name}: CUDA error {code}")

    number, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGetCount", ctypes.byref(number))
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    size = megabytes << 20
    memory = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    call("cuMemsetD8_v2", memory, ctypes.c_ubyte(7), ctypes.c_size_t(size))
    back = ctypes.create_string_buffer(16)
    call("cuMemcpyDtoH_v2", back, ctypes.c_uint64(memory.value + size - 16), ctypes.c_size_t(16))
    if back.raw != bytes([7]) * 16:
        raise RuntimeError("the GPU's memory holds something else")
    return os.getpid(), number.value, free.value >> 20


def count_gpus() -> int:
    """Return what CUDA's runtime makes of the devices, once for the process."""
    import ctypes

    cuda = ctypes.CDLL("libcuda.so.1")
    number = ctypes.c_int()
    return number.value if cuda.cuInit(0) == cuda.cuDeviceGetCount(ctypes.byref(number)) else 0


def test_all_gpus_are_found(found: int) -> None:
    resources = skate.cluster_resources()
    assert resources["GPU"] == found
    assert [name for name in resources if name.startswith("accelerator_type:")]


def test_tasks_use_their_gpu_and_leave_nothing_on_it(found: int) -> None:
    use = skate.remote(num_gpus=1)(use_gpu)
    first = skate.get([use.remote(64) for _ in range(3)])
    assert {seen for _, seen, _ in first} == {1}
    # Another shape of request: another lease, after which the memory of the first is free.
    whole = skate.remote(num_gpus=found)(use_gpu)
    pid, seen, free = skate.get(whole.options(num_cpus=2).remote(64))
    assert seen == found
    assert pid not in {pid for pid, _, _ in first}
    assert free >= min(free for _, _, free in first) - 16


def test_who_has_no_gpu_sees_none_and_spoils_none(found: int) -> None:
    count = skate.remote(count_gpus)
    assert set(skate.get([count.remote() for _ in range(8)])) == {0}
    use = skate.remote(num_gpus=1)(use_gpu)
    assert skate.get(use.remote())[1] == 1


def test_actors_share_a_gpu_and_give_it_back(found: int) -> None:
    @skate.remote(num_gpus=0.5)
    class Half:
        def use(self) -> tuple[int, int, int]:
            return use_gpu(256)

        def ids(self) -> list[int | str]:
            return skate.get_gpu_ids()

    pairs = [Half.remote() for _ in range(2)]
    assert {seen for _, seen, _ in skate.get([actor.use.remote() for actor in pairs])} == {1}
    one, other = skate.get([actor.ids.remote() for actor in pairs])
    assert one == other
    for actor in pairs:
        skate.kill(actor)
    group = placement_group([{"CPU": 1, "GPU": 1}])
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    inside = Half.options(num_gpus=1, scheduling_strategy=strategy).remote()
    assert skate.get(inside.use.remote(), timeout=PATIENCE)[1] == 1
