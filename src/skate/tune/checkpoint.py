"""``Checkpoint``: a folder of files, or a dict, from which a trial can go on.

A checkpoint is always a set of files; a dict is the one file ``DICT_FILE``.  It has two forms: a
folder, and *packed*, in memory, where it travels through the object store: each file is one buffer
of the pickle (protocol 5, out of band), so that nobody on the way copies or reads it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle

from skate.tune.storage import is_url, open_storage

#: The file that holds a dict, and the one with the metadata.
DICT_FILE = "dict_checkpoint.pkl"
METADATA_FILE = ".metadata.json"
#: Files smaller than this ride inside the pickle: a buffer of its own would cost more than a copy.
SMALL_FILE = 4096

Buffer: TypeAlias = bytes | bytearray | memoryview


class PackedCheckpoint:
    """The files of a checkpoint in memory: relative path -> content.

    Contents that came through the object store are views of shared memory, read-only.
    """

    __slots__ = ("files",)

    def __init__(self, files: Mapping[str, Buffer]) -> None:
        self.files = dict(files)

    @classmethod
    def from_folder(cls, folder: Path) -> PackedCheckpoint:
        """Read all files under ``folder``; links are followed, empty folders left out.

        Raises:
            OSError: it cannot be read, or there is something in it that is neither file nor folder.
        """
        paths = _files_below(folder, frozenset())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    @property
    def nbytes(self) -> int:
        """The size of all files together."""
        return sum(len(content) for content in self.files.values())

    def with_metadata(self, metadata: Mapping[str, Any]) -> PackedCheckpoint:
        """Return the same with other metadata.

        Raises:
            TypeError: JSON cannot hold them.
        """
        content = json.dumps(dict(metadata)).encode()
        return PackedCheckpoint({**self.files, METADATA_FILE: content})

    def write(self, folder: Path) -> None:
        """Write the files under ``folder``, which is made if it is not there.

        Raises:
            OSError: they cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content)

    def __reduce__(self) -> tuple[Any, ...]:
        contents = [
            bytes(content) if len(content) < SMALL_FILE else pickle.PickleBuffer(content)
            for content in self.files.values()
        ]
        return _unpack, (list(self.files), contents)


def _unpack(names: list[str], contents: list[Any]) -> PackedCheckpoint:
    views = [c if isinstance(c, bytes) else memoryview(c).cast("B") for c in contents]
    return PackedCheckpoint(dict(zip(names, views, strict=True)))


class _Pieces(list[Any]):
    """A file for a pickler: what is written stays in pieces, large ones without being copied."""

    write = list[Any].append


def pickled(data: dict[str, Any]) -> bytes:
    """Return a dict as ``DICT_FILE`` has it, as it is now.

    Arrays are copied once, into bytes of the right size: a pickle that grows while it is written
    takes ten times as long.

    Raises:
        Exception: it cannot be pickled.
    """
    pieces = _Pieces()
    cloudpickle.Pickler(pieces, protocol=5).dump(data)
    return b"".join(pieces)


def _files_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files in a folder and those below; ``above`` has the folders that it is in."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise OSError(errno.ELOOP, "the folder holds itself through a link", str(folder))
    for path in sorted(folder.iterdir()):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files_below(path, above | {here})
        elif stat.S_ISREG(mode):
            yield path
        else:  # a pipe or a device: reading it might never end
            raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))


class Checkpoint:
    """The state of a training, to report with ``tune.report`` and to go on from.

    Args:
        path: a folder.  It is read when the checkpoint is reported; afterwards it may be deleted.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not Path(path).is_dir():
            raise ValueError(f"a checkpoint is a folder, but there is none at {os.fspath(path)!r}")
        self._folder: Path | None = Path(path).absolute()
        self._packed: PackedCheckpoint | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Return the checkpoint that lies in a folder, or at a URL where a run has kept it.

        Raises:
            ValueError: there is no such folder.
            StorageError: there is nothing at the URL, or it cannot be read.
        """
        if is_url(path):
            return cls.from_packed(PackedCheckpoint(open_storage(path).read_folder("")))
        return cls(path)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Checkpoint:
        """Return a checkpoint that holds ``data``, copied now: what is changed later is not in it.

        Raises:
            TypeError: no dict, or one that cannot be pickled.
        """
        if not isinstance(data, dict):
            raise TypeError(f"Checkpoint.from_dict wants a dict, got {type(data).__name__}")
        try:
            content = pickled(data)
        except Exception as error:
            raise TypeError(f"the checkpoint cannot be pickled: {error}") from error
        return cls.from_packed(PackedCheckpoint({DICT_FILE: content}))

    @classmethod
    def from_packed(cls, packed: PackedCheckpoint) -> Checkpoint:
        """Return the checkpoint that came through the object store."""
        made = cls.__new__(cls)
        made._folder, made._packed, made._temporary = None, packed, None
        return made

    def pack(self) -> PackedCheckpoint:
        """Return the checkpoint in memory; a folder is read now.

        Raises:
            OSError: the folder cannot be read.
        """
        if self._packed is not None:
            return self._packed
        assert self._folder is not None
        return PackedCheckpoint.from_folder(self._folder)

    @property
    def path(self) -> str:
        """The folder; one that travelled in memory is written to a temporary one first.

        A temporary folder lives as long as this object.

        Raises:
            OSError: the temporary folder cannot be written.
        """
        if self._folder is None:
            assert self._packed is not None
            self._temporary = tempfile.TemporaryDirectory(prefix="checkpoint_")
            self._folder = Path(self._temporary.name)
            self._packed.write(self._folder)
        return str(self._folder)

    def to_directory(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the files to ``path``, or to a new temporary folder, which is then the caller's.

        Returns:
            The folder.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(tempfile.mkdtemp(prefix="checkpoint_") if path is None else path)
        if self._packed is not None:
            self._packed.write(target)
        else:
            assert self._folder is not None
            if target.absolute() != self._folder:
                shutil.copytree(self._folder, target, dirs_exist_ok=True)
        return str(target)

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        """Give the files as a folder to read, without copying one that is a folder anyway.

        Raises:
            OSError: it cannot be written.
        """
        if self._folder is not None:
            yield str(self._folder)
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint_") as folder:
            self.to_directory(folder)
            yield folder

    def to_dict(self) -> dict[str, Any]:
        """Return what ``from_dict`` was given; a copy, which the caller may change.

        Raises:
            ValueError: the checkpoint was made from a folder.
        """
        content = self._read(DICT_FILE)
        if content is None:
            raise ValueError(
                "this checkpoint is a folder of files, not a dict; read it with as_directory()"
            )
        data: dict[str, Any] = pickle.loads(content)
        return data

    def get_metadata(self) -> dict[str, Any]:
        """Return the metadata, {} if there are none."""
        content = self._read(METADATA_FILE)
        return {} if content is None else json.loads(bytes(content))

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata, which JSON has to be able to hold.

        Raises:
            TypeError: it cannot.
        """
        if self._packed is not None:
            self._packed = self._packed.with_metadata(metadata)
        if self._folder is not None:
            (self._folder / METADATA_FILE).write_text(json.dumps(dict(metadata)))

    def update_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata, or replace some.

        Raises:
            TypeError: JSON cannot hold them.
        """
        self.set_metadata({**self.get_metadata(), **metadata})

    def _read(self, name: str) -> Buffer | None:
        if self._packed is not None:
            return self._packed.files.get(name)
        assert self._folder is not None
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def __reduce__(self) -> tuple[Any, ...]:
        # A folder stays where it is: whoever gets the checkpoint has to see the same disk.
        if self._packed is not None:
            return Checkpoint.from_packed, (self._packed,)
        return Checkpoint, (str(self._folder),)

    def __repr__(self) -> str:
        if self._folder is not None:
            return f"Checkpoint({str(self._folder)!r})"
        assert self._packed is not None
        return f"Checkpoint({self._packed.nbytes:,} bytes in memory)"
