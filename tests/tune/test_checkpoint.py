"""Checkpoints by themselves: two forms, and the way between them."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from skate.tune import Checkpoint
from skate.tune.checkpoint import PackedCheckpoint


def travel(packed: PackedCheckpoint) -> PackedCheckpoint:
    """Pickle as the object store does: buffers beside the pickle, read-only views at the end."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    views = [memoryview(buffer.raw()).toreadonly() for buffer in buffers]
    assert len(data) < 10_000
    made: PackedCheckpoint = pickle.loads(data, buffers=views)
    return made


def folder(path: Path) -> Path:
    (path / "deep" / "er").mkdir(parents=True)
    (path / "large").write_bytes(bytes(range(256)) * 100)
    (path / "deep" / "er" / "small").write_text("hello")
    (path / "empty").touch()
    return path


def content(path: str | Path) -> dict[str, bytes]:
    files = [found for found in Path(path).rglob("*") if found.is_file()]
    return {found.relative_to(path).as_posix(): found.read_bytes() for found in files}


def test_a_dict_is_copied_when_the_checkpoint_is_made() -> None:
    numpy = pytest.importorskip("numpy")
    weights = numpy.arange(100_000.0)
    checkpoint = Checkpoint.from_dict({"weights": weights, "f": lambda x: x + 1, "b": b"x" * 99})
    weights += 1
    data = Checkpoint.from_packed(travel(checkpoint.pack())).to_dict()
    assert (data["weights"] == numpy.arange(100_000.0)).all()
    data["weights"] += 1  # and what comes out may be changed
    assert data["f"](1) == 2
    assert data["b"] == b"x" * 99


def test_a_folder_travels_whole(tmp_path: Path) -> None:
    source = folder(tmp_path / "source")
    packed = travel(Checkpoint(source).pack())
    assert packed.nbytes == 25_605
    there = Checkpoint.from_packed(packed)
    expected = content(source)
    assert content(there.to_directory(tmp_path / "copy")) == expected
    assert content(there.to_directory()) == expected
    with there.as_directory() as path:
        assert content(path) == expected
    assert not Path(path).exists()
    assert content(there.path) == expected
    assert there.path == there.path
    assert content(Checkpoint(source).to_directory(tmp_path / "another")) == expected
    with Checkpoint(source).as_directory() as path:
        assert path == str(source)


def test_metadata(tmp_path: Path) -> None:
    for checkpoint in (Checkpoint.from_dict({"a": 1}), Checkpoint(folder(tmp_path / "f"))):
        assert checkpoint.get_metadata() == {}
        checkpoint.set_metadata({"step": 1})
        checkpoint.update_metadata({"loss": 0.5})
        other = Checkpoint.from_packed(travel(checkpoint.pack()))
        assert other.get_metadata() == {"step": 1, "loss": 0.5}
        with pytest.raises(TypeError):
            checkpoint.set_metadata({"x": object()})


def test_checkpoints_can_be_pickled(tmp_path: Path) -> None:
    inside = Checkpoint.from_dict({"a": 1})
    outside = Checkpoint(folder(tmp_path / "f"))
    assert pickle.loads(pickle.dumps(inside)).to_dict() == {"a": 1}
    assert pickle.loads(pickle.dumps(outside)).path == outside.path
    assert repr(outside) == f"Checkpoint({outside.path!r})"
    assert "bytes in memory" in repr(inside)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Checkpoint("/does/not/exist"), ValueError, "there is none at '/does/not/exist'"),
        (lambda: Checkpoint.from_dict([1]), TypeError, "wants a dict, got list"),  # type: ignore[arg-type]  # the mistake
        (lambda: Checkpoint.from_dict({"x": threading.Lock()}), TypeError, "cannot be pickled"),
    ],
)
def test_checkpoints_that_are_none(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_folder_is_no_dict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder of files, not a dict"):
        Checkpoint(folder(tmp_path / "f")).to_dict()


# ------------------------------------------------------------------------------- odd folders


def test_a_folder_that_is_gone_is_no_empty_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    checkpoint = Checkpoint(folder)
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="gone"):
        checkpoint.pack()


def test_what_is_no_file_is_told_of_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    os.mkfifo(tmp_path / "below" / "pipe")  # who reads it waits for a writer
    with pytest.raises(OSError, match=r"neither a file nor a folder: .*pipe"):
        PackedCheckpoint.from_folder(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("here")
    (tmp_path / "again").symlink_to(tmp_path / "data")
    packed = PackedCheckpoint.from_folder(tmp_path)
    assert sorted(packed.files) == ["again/file", "data/file"]
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    with pytest.raises(OSError, match="holds itself through a link"):
        PackedCheckpoint.from_folder(tmp_path)
