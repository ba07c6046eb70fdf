"""Files and folders of a run, on a disk and on an S3 server: whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import serving
from small_disk import mounted

from skate.tune import StorageError
from skate.tune.storage import MANIFEST, LocalStorage, Storage, append, open_storage

BUCKET = "runs"


@pytest.fixture(params=["local", "memory", "s3"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    if request.param == "local":
        yield open_storage(tmp_path / "run")
        return
    if request.param == "memory":
        pytest.importorskip("fsspec")
        yield open_storage(f"memory://{tmp_path.name}/run")
        return
    with serving(tmp_path, BUCKET, monkeypatch):
        yield open_storage(f"s3://{BUCKET}/run")


@pytest.mark.timeout(150)
def test_what_is_written_is_read(storage: Storage) -> None:
    assert storage.read("state") is None
    assert storage.files() == []
    storage.write("state", b"first")
    storage.write("state", memoryview(b"second"))
    storage.write("a/b/c", b"")
    assert storage.read("state") == b"second"
    assert storage.files() == ["a/b/c", "state"]
    assert storage.files("a") == ["a/b/c"]
    storage.delete("a")
    storage.delete("state")
    storage.delete("never was there")
    assert storage.files() == []

    files = {"weights": bytes(100_000), "sub/step": b"7"}
    assert not storage.has_folder("t/checkpoint_000000")
    storage.write_folder("t/checkpoint_000000", files)
    assert storage.has_folder("t/checkpoint_000000")
    assert storage.read_folder("t/checkpoint_000000") == files
    storage.write_folder("t/checkpoint_000000", {"other": b"1"})
    assert storage.read_folder("t/checkpoint_000000") == {"other": b"1"}
    storage.delete("t/checkpoint_000000")
    assert not storage.has_folder("t/checkpoint_000000")
    with pytest.raises(StorageError, match="checkpoint_000000"):
        storage.read_folder("t/checkpoint_000000")


def test_a_remote_folder_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    storage = open_storage(f"memory://{tmp_path.name}/run")
    storage.write_folder("c", {"a": b"12", "b": b"3"})
    storage.write("c/a", b"1")
    with pytest.raises(StorageError, match="truncated"):
        storage.read_folder("c")
    storage.delete(f"c/{MANIFEST}")
    assert not storage.has_folder("c")
    assert storage.files("c") == ["c/a", "c/b"]


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_that_is_killed_leaves_no_half_behind(tmp_path: Path, seed: int) -> None:
    code = """
        import sys
        from pathlib import Path
        from skate.tune.storage import LocalStorage

        storage = LocalStorage(Path(sys.argv[1]))
        for number in range(10_000):
            content = bytes([number % 251]) * 300_000
            storage.write_folder(f"c{number}", {"a": content, "sub/b": content})
            storage.write("state", content)
            print(number, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(3 + 2 * seed):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    storage = LocalStorage(tmp_path)
    state = storage.read("state")
    assert state is not None
    assert state == state[:1] * 300_000
    folders = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".partial")}
    for name in folders - {"state"}:
        files = storage.read_folder(name)
        assert set(files) == {"a", "sub/b"}
        assert files["a"] == files["sub/b"] == bytes([int(name[1:]) % 251]) * 300_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with mounted(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_names_the_file_and_keeps_what_was_there(small_disk: Path) -> None:
    storage = LocalStorage(small_disk)
    storage.write("state", b"old")
    storage.write_folder("c0", {"a": b"old"})
    with pytest.raises(StorageError, match=r"state: No space left on device") as caught:
        storage.write("state", bytes(2 << 20))
    assert caught.value.path == str(small_disk / "state")
    with pytest.raises(StorageError, match=r"c1/sub/b: No space left"):
        storage.write_folder("c1", {"a": b"1", "sub/b": bytes(2 << 20)})
    append(small_disk / "lines", b"one\n")
    with pytest.raises(StorageError, match="lines"):
        append(small_disk / "lines", bytes(2 << 20))
    assert (small_disk / "lines").read_bytes() == b"one\n"
    # There is room again: halves were deleted.
    storage.write("after", bytes(900_000))
    assert storage.read("state") == b"old"
    assert storage.read_folder("c0") == {"a": b"old"}
    assert not storage.has_folder("c1")
    assert {path.name for path in small_disk.iterdir()} == {"after", "c0", "lines", "state"}


def test_places_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(StorageError, match="nowhere://x"):
        open_storage("nowhere://x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"skate\[spill\]"):
        open_storage("s3://bucket/runs")


def test_local_storage_does_not_import_fsspec() -> None:
    code = (
        "import sys; from skate import tune; tune.run(lambda config: {'loss': 1}, verbose=0);"
        " assert 'fsspec' not in sys.modules"
    )
    environment = {**os.environ, "SKATE_ENGINE": "inline"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=50)
