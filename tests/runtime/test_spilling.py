"""More objects than memory: everything goes through, nothing is lost, errors name the object."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_disk import mounted

import skate
from skate import exceptions
from skate.api.session import current
from skate.runtime.store.header import HEADER_SIZE

MB = 1 << 20


@skate.remote
def make(size: int, fill: int = 0) -> Any:
    return np.full(size, fill % 251, dtype=np.uint8)


@skate.remote
def check(array: Any, fill: int) -> int:
    return int((array == fill % 251).sum())


def spill_directory() -> Path:
    return Path(current().session_dir) / "spill"


def spilled_bytes() -> int:
    return sum(path.stat().st_size for path in spill_directory().rglob("*") if path.is_file())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lost_of(refs: list[Any], reason: str) -> list[int]:
    """Look at all objects, and return which are lost; that is said of each, with ``reason``."""
    lost = []
    for i, ref in enumerate(refs):
        try:
            assert right(skate.get(ref, timeout=30), i)
        except exceptions.ObjectLostError as error:
            assert ref._cell.object_id.hex() in str(error)  # noqa: PT017  # some are lost, some not
            assert reason in str(error)  # noqa: PT017
            lost.append(i)
    return lost


def right(array: Any, fill: int) -> bool:
    return bool((array == fill % 251).all())


@pytest.mark.timeout(180)
def test_ten_times_the_memory_through_put_and_get(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    sizes = [(200_000, MB, 4 * MB, 20 * MB)[i % 4] for i in range(104)]
    assert sum(sizes) > 640 * MB
    refs = [skate.put(np.full(size, i % 251, dtype=np.uint8)) for i, size in enumerate(sizes)]
    for i, (ref, size) in enumerate(zip(refs, sizes, strict=True)):
        array = skate.get(ref)
        assert len(array) == size
        assert right(array, i)
        del array
    for start in range(0, len(refs), 4):
        found = skate.get(refs[start : start + 4])
        assert all(right(array, start + i) for i, array in enumerate(found))
        del found
    assert spilled_bytes() > 500 * MB
    assert skate.available_resources()["object_store_memory"] >= 0
    del refs, ref
    gc.collect()
    wait_until(lambda: spilled_bytes() == 0)


@pytest.mark.timeout(180)
def test_ten_times_the_memory_through_tasks(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=4, object_store_memory=64 * MB)
    outputs = [make.remote(4 * MB, i) for i in range(160)]
    checks = [check.remote(output, i) for i, output in enumerate(outputs)]
    assert skate.get(checks, timeout=150) == [4 * MB] * 160
    # And once more from the end, when all is on disk.
    for i in reversed(range(0, 160, 10)):
        assert right(skate.get(outputs[i], timeout=60), i)


@pytest.mark.timeout(120)
def test_many_workers_share_a_small_store(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=8, object_store_memory=16 * MB)
    outputs = [make.remote(300_000, i) for i in range(400)]
    checks = [check.remote(output, i) for i, output in enumerate(outputs)]
    assert skate.get(checks, timeout=100) == [300_000] * 400


@pytest.mark.timeout(120)
def test_tasks_that_wait_for_room_give_their_cpus_back(cluster: Callable[..., None]) -> None:
    """Nested tasks whose outputs do not all fit, on one CPU."""
    cluster(num_cpus=1, object_store_memory=32 * MB)

    @skate.remote
    def tree(depth: int) -> Any:
        if depth == 0:
            return np.ones(6 * MB, dtype=np.uint8)
        parts = [tree.remote(depth - 1) for _ in range(2)]
        total = sum(int(skate.get(part)[-1]) for part in parts)
        return np.full(6 * MB, total, dtype=np.uint8)

    assert right(skate.get(tree.remote(4), timeout=100), 16)


def test_views_are_never_spilled(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    kept = [skate.get(skate.put(np.full(3 * MB, i, dtype=np.uint8))) for i in range(8)]
    refs = [skate.put(np.full(4 * MB, 100 + i, dtype=np.uint8)) for i in range(40)]
    for i, array in enumerate(kept):
        assert right(array, i)
    assert right(skate.get(refs[0]), 100)


def test_views_in_a_worker_are_never_spilled(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=2, object_store_memory=64 * MB)

    @skate.remote
    class Keeper:
        def keep(self, array: Any) -> None:
            self.array = array

        def check(self) -> bool:
            return right(self.array, 77)

    keeper = Keeper.remote()
    skate.get(keeper.keep.remote(skate.put(np.full(20 * MB, 77, dtype=np.uint8))), timeout=30)
    for i in range(30):
        skate.put(np.full(10 * MB, i, dtype=np.uint8))
    assert skate.get(keeper.check.remote(), timeout=30)


def test_what_does_not_fit_into_all_of_the_store(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    with pytest.raises(exceptions.ObjectStoreFullError, match="object_store_memory"):
        skate.put(bytes(70 * MB))
    with pytest.raises(exceptions.ObjectStoreFullError, match="object_store_memory"):
        skate.get(make.options(max_retries=0).remote(70 * MB), timeout=30)


@pytest.mark.timeout(120)
def test_a_store_full_of_views(cluster: Callable[..., None]) -> None:
    """Nothing can be spilled: an error after some seconds, and room as soon as there is some."""
    cluster(num_cpus=1, object_store_memory=64 * MB)
    here = f"{__file__}:{sys._getframe().f_lineno + 1}"
    kept = [skate.get(skate.put(np.full(10 * MB, i, dtype=np.uint8))) for i in range(6)]
    with pytest.raises(exceptions.ObjectStoreFullError, match="looks at") as caught:
        skate.put(bytes(10 * MB))
    rows = [line for line in str(caught.value).splitlines() if line.endswith(here)]
    assert len(rows) == 6
    for row in rows:
        assert row.split()[:2] == ["10.5", "memory"]
        assert row.count(f"driver (pid {os.getpid()})") == 2
    timer = threading.Timer(1.0, kept.clear)
    timer.start()
    assert len(skate.get(skate.put(bytes(30 * MB)))) == 30 * MB
    timer.join()


@pytest.mark.timeout(120)
def test_what_cannot_be_read_for_lack_of_room_is_not_lost(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    spilled = skate.put(np.full(30 * MB, 9, dtype=np.uint8))
    kept = [skate.get(skate.put(np.full(10 * MB, i, dtype=np.uint8))) for i in range(6)]
    with pytest.raises(exceptions.ObjectStoreFullError, match="which is on disk") as caught:
        skate.get(spilled)
    assert spilled._cell.object_id.hex() in str(caught.value)
    assert str(caught.value).count(f"driver (pid {os.getpid()})") >= 6
    kept.clear()
    assert right(skate.get(spilled, timeout=30), 9)


@pytest.mark.timeout(120)
def test_reading_while_memory_and_disk_are_full(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=str(tmp_path))
    spilled = [skate.put(np.full(30 * MB, i, dtype=np.uint8)) for i in range(4)]
    kept = [skate.get(skate.put(np.full(10 * MB, i, dtype=np.uint8))) for i in range(6)]
    unwritten = []
    # Nothing can be written any more: its directory is a file.
    (place,) = tmp_path.iterdir()
    place.rename(tmp_path / "aside")
    place.write_text("no directory")
    for _ in range(2):
        with pytest.raises(exceptions.ObjectStoreFullError):
            unwritten.append(skate.put(np.full(10 * MB, 9, dtype=np.uint8)))
    for ref in spilled:
        with pytest.raises(exceptions.ObjectStoreFullError, match="which is on disk"):
            skate.get(ref)
    kept.clear()
    place.unlink()
    (tmp_path / "aside").rename(place)
    assert all(right(skate.get(ref, timeout=60), i) for i, ref in enumerate(spilled))


@pytest.mark.timeout(120)
def test_the_error_of_a_task_names_who_holds_the_memory(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=2, object_store_memory=64 * MB)

    @skate.remote
    class Hoarder:
        def hoard(self, arrays: list[Any]) -> int:
            self.arrays = skate.get(arrays)
            return os.getpid()

    @skate.remote(max_retries=0)
    def make_soon(size: int) -> Any:
        from skate.runtime.worker import writing

        # A task waits five times as long for room as a driver does.
        writing.TASK_PATIENCE = writing.PUT_PATIENCE
        return np.zeros(size, dtype=np.uint8)

    hoarder = Hoarder.remote()
    pid = skate.get(hoarder.hoard.remote([make.remote(9 * MB, i) for i in range(6)]), timeout=60)
    with pytest.raises(exceptions.ObjectStoreFullError) as caught:
        skate.get(make_soon.remote(30 * MB), timeout=60)
    rows = [line for line in str(caught.value).splitlines() if f"Hoarder (pid {pid})" in line]
    assert len(rows) == 6
    assert all(row.endswith("make") for row in rows)


def test_a_truncated_file_loses_its_object_alone(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    made = make.remote(10 * MB, 50)
    skate.wait([made], timeout=30)
    refs += [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12, 20)]
    # One that is just being written would grow again, with a hole in it.
    whole = {HEADER_SIZE + ref._cell.handle.location.size for ref in (refs[0], made)}
    files = [path for path in spill_directory().rglob("*") if path.stat().st_size in whole]
    assert len(files) > 5
    for path in files:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1000)
    lost = lost_of(refs, "truncated")
    assert 0 < len(lost) < len(refs)
    # What a task has made comes back.
    assert right(skate.get(made, timeout=30), 50)


def test_a_damaged_file_is_named_when_it_was_read_ahead(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    refs = [skate.put(np.full(4 * MB, i, dtype=np.uint8)) for i in range(40)]
    [path] = [path for path in spill_directory().rglob("*") if path.name.endswith("02")]
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(exceptions.ObjectLostError, match="damaged"):
        skate.get(refs[:6], timeout=30)


def test_a_deleted_file(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    put, made = skate.put(np.full(10 * MB, 1, dtype=np.uint8)), make.remote(10 * MB, 2)
    skate.wait([made], timeout=30)
    kept = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    for path in spill_directory().rglob("*"):
        path.unlink()
    with pytest.raises(exceptions.ObjectLostError, match=put._cell.object_id.hex()):
        skate.get(put, timeout=30)
    assert right(skate.get(made, timeout=30), 2)
    assert right(skate.get(kept[-1], timeout=30), 11)


@pytest.mark.timeout(120)
def test_a_chain_whose_files_are_all_deleted(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)

    @skate.remote
    def step(array: Any) -> Any:
        return array + 1

    chain = [make.remote(10 * MB)]
    for _ in range(9):
        chain.append(step.remote(chain[-1]))
    skate.wait(chain, num_returns=10, timeout=60)
    wait_until(lambda: spilled_bytes() > 30 * MB)
    for path in spill_directory().rglob("*"):
        path.unlink()
    # What depends on them, also by way of others that are gone, and every one of them.
    assert right(skate.get(step.remote(chain[8]), timeout=60), 9)
    assert all(right(skate.get(ref, timeout=60), i) for i, ref in enumerate(chain))


def test_small_objects_share_files(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    refs = [skate.put(np.full(200_000, i % 251, dtype=np.uint8)) for i in range(800)]
    files = [path for path in spill_directory().rglob("*") if path.is_file()]
    assert spilled_bytes() > 90 * MB
    assert len(files) < 60
    assert all(right(skate.get(ref), i) for i, ref in enumerate(refs))


def test_a_truncated_file_of_many_loses_those_at_its_end(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB)
    refs = [skate.put(np.full(200_000, i % 251, dtype=np.uint8)) for i in range(800)]
    # The oldest ones: it has been written long ago.
    path = min(path for path in spill_directory().rglob("*") if path.is_file())
    objects = path.stat().st_size // (200_000 + HEADER_SIZE)
    assert objects >= 8
    os.truncate(path, path.stat().st_size // 2)
    lost = lost_of(refs, str(path))
    assert objects // 2 <= len(lost) <= objects // 2 + 2


@pytest.mark.timeout(120)
def test_a_full_disk(cluster: Callable[..., None], tmp_path: Path) -> None:
    """It is full in the middle of a file: nothing else is lost, and room is used when there is."""
    with mounted(tmp_path / "disk", "45m") as disk:
        cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=str(disk))
        refs: list[Any] = []
        # Those before the one that fails stay in the list.
        too_many = (skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(20))
        with pytest.raises(exceptions.ObjectStoreFullError) as caught:
            refs.extend(too_many)
        assert re.match(r"no room for object [0-9a-f]{32} of ", str(caught.value))
        assert f"cannot write to {disk}" in str(caught.value)
        assert "No space left on device" in str(caught.value)
        assert 8 <= len(refs) <= 10

        def only_whole_files_are_there() -> bool:
            try:
                written = [path.stat().st_size for path in disk.rglob("*") if path.is_file()]
            except FileNotFoundError:
                return False
            return bool(written) and all(size > 10 * MB for size in written)

        # Nothing of what could not be written whole is left, once a last attempt has failed.
        wait_until(only_whole_files_are_there)
        for i, ref in enumerate(refs):
            # To read one of them another has to be written, and there is no room for that.
            try:
                assert right(skate.get(ref, timeout=60), i)
            except exceptions.ObjectStoreFullError as error:
                assert ref._cell.object_id.hex() in str(error)  # noqa: PT017  # some are not read
        del refs[:3], ref
        assert all(right(skate.get(ref, timeout=60), 3 + i) for i, ref in enumerate(refs))
        assert right(skate.get(skate.put(np.full(10 * MB, 99, dtype=np.uint8))), 99)
        skate.shutdown()


@pytest.mark.timeout(120)
def test_no_room_on_disk(cluster: Callable[..., None], tmp_path: Path) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=str(tmp_path / "file"))
    # Nothing was made yet.
    (tmp_path / "file").write_text("no directory")
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(6)]
    with pytest.raises(exceptions.ObjectStoreFullError, match="cannot write") as caught:
        skate.put(np.full(10 * MB, 7, dtype=np.uint8))
    assert str(tmp_path) in str(caught.value)
    for i, ref in enumerate(refs):
        assert right(skate.get(ref), i)
    refs.clear()
    del ref
    assert right(skate.get(skate.put(np.full(30 * MB, 8, dtype=np.uint8))), 8)


def test_a_directory_of_the_users_is_left_clean(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=str(tmp_path / "here"))
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    assert right(skate.get(refs[0]), 0)
    skate.shutdown()
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]


def test_a_killed_daemon_leaves_nothing_on_disk(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    cluster(num_cpus=1, object_store_memory=64 * MB, spill_uri=f"file://{tmp_path}")
    # Before, the process that cleans up still imports modules; see the next test.
    assert len(skate.get(make.remote(100), timeout=40)) == 100
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    os.kill(skate.nodes()[0]["daemon_pid"], signal.SIGKILL)
    wait_until(lambda: not list(tmp_path.rglob("*")))
    with pytest.raises(exceptions.SessionError):
        skate.get(refs[0], timeout=30)


def test_a_daemon_killed_at_once_leaves_nothing_after_shutdown(
    cluster: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(30)")
    sys.path.insert(0, str(tmp_path))
    spilled = tmp_path / "spilled"
    try:
        cluster(
            num_cpus=1,
            object_store_memory=64 * MB,
            spill_uri=f"file://{spilled}",
            preload=["slow_to_import"],
        )
    finally:
        sys.path.remove(str(tmp_path))
    directory = current().session_dir
    refs = [skate.put(np.full(10 * MB, i, dtype=np.uint8)) for i in range(12)]
    assert any(path.is_file() for path in spilled.rglob("*"))
    os.kill(skate.nodes()[0]["daemon_pid"], signal.SIGKILL)
    with pytest.raises(exceptions.SessionError):
        skate.get(refs[0], timeout=30)
    skate.shutdown()
    assert not list(spilled.rglob("*"))
    assert not os.path.exists(directory)


def test_what_is_read_again_and_again_stays_in_memory(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1, object_store_memory=128 * MB)
    hot = skate.put(np.full(10 * MB, 1, dtype=np.uint8))
    home = hot._cell.handle.location
    cold = []
    for i in range(30):
        cold.append(skate.put(np.full(10 * MB, i, dtype=np.uint8)))
        assert skate.get(hot)[0] == 1
        # Once a second the daemon is told.
        current().core.objects._reported = 0.0  # type: ignore[attr-defined]  # the native engine
        skate.available_resources()
    assert hot._cell.handle.location == home
    assert right(skate.get(cold[0]), 0)


def test_processes_killed_while_memory_is_short(cluster: Callable[..., None]) -> None:
    """Workers die with pins held and objects half written; everything comes out right."""
    cluster(num_cpus=3, object_store_memory=48 * MB)

    @skate.remote(max_retries=-1)
    def double(array: Any, fill: int, kill: bool) -> Any:
        if kill and not os.path.exists(marker):
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return array * 2

    marker = str(Path(current().session_dir) / "killed")
    outputs = []
    for i in range(40):
        if i % 10 == 5:
            Path(marker).unlink(missing_ok=True)
        outputs.append(double.remote(make.remote(3 * MB, i), i, i % 10 == 5))
    for i, output in enumerate(outputs):
        array = skate.get(output, timeout=60)
        assert (int(array[0]), int(array[-1]), len(array)) == (2 * i, 2 * i, 3 * MB)


def test_futures_of_spilled_values_do_not_wait(
    cluster: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(num_cpus=2, object_store_memory=64_000_000)
    core: Any = current().core  # type: ignore[attr-defined]
    refs = [skate.put(np.full(16_000_000, i, dtype=np.uint8)) for i in range(12)]

    def waits(*_: object) -> None:
        raise AssertionError("it waits for the daemon")

    monkeypatch.setattr(core, "ask_patiently", waits)
    misses = 0
    for i, ref in enumerate(refs):
        future = ref.future()
        misses += not future.done()
        assert future.result(timeout=30)[-1] == i
        del future
    assert misses > 0
    # One that completes later is loaded by whoever pumps, who must not wait either.
    future = make.remote(4 * MB, 7).future()
    assert future.result(timeout=30).max() == 7
