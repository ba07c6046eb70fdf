"""Where a run keeps its files: a local folder, or any URL that fsspec reaches.

Both keep the same promise.  A file is there with all of its content or as it was before, and a
folder that is written as one is there with all of its files or not at all, whenever the writer is
killed.  On a disk that is what ``rename`` gives.  Object stores show a file when it is whole, but
cannot rename a folder: its files come first, and a manifest that names them last.  Without its
manifest a folder does not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from skate.tune.error import StorageError

#: Names the files of a folder on a remote storage, with their sizes.
MANIFEST = ".manifest.json"
#: Where a file is visible only when all of it has arrived.  Elsewhere it is written under another
#: name, then renamed.
_WHOLE_FILES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oss", "memory"})

#: How many files are read at a time: small ones take as long as a server takes to answer.
_READERS = 16

Content: TypeAlias = bytes | bytearray | memoryview


def is_url(place: str | os.PathLike[str]) -> bool:
    """Say whether a place is for fsspec; ``file://`` is not."""
    text = os.fspath(place)
    return "://" in text and not text.startswith(("file://", "local://"))


def local_folder(place: str | os.PathLike[str]) -> Path:
    """Return the path of a place that is no URL, or one of this machine."""
    text = os.fspath(place)
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    return Path(text).expanduser().absolute()


def open_storage(place: str | os.PathLike[str]) -> Storage:
    """Return the storage at a path or URL.  Nothing is made or connected to yet.

    Raises:
        ImportError: fsspec, or what it needs for such URLs, is not installed.
        StorageError: fsspec does not know such URLs.
    """
    return RemoteStorage(os.fspath(place)) if is_url(place) else LocalStorage(local_folder(place))


class Storage(ABC):
    """Files and folders below a place.  Names are relative to it, with "/" between their parts.

    All methods may be called from any thread, and raise ``StorageError``, which names the file.
    """

    @abstractmethod
    def where(self, name: str) -> str:
        """Return the path or URL of a file or folder."""

    @abstractmethod
    def write(self, name: str, content: Content) -> None:
        """Write a file, and the folders it is in; what was there is replaced in one step."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of files, by name; those that are not there are left out."""
        names = list(names)
        with ThreadPoolExecutor(_READERS) as readers:
            contents = zip(names, readers.map(self.read, names), strict=True)
            return {name: content for name, content in contents if content is not None}

    @abstractmethod
    def files(self, folder: str = "") -> list[str]:
        """Return the names of all files below a folder, sorted."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all that is in it, if it is there."""

    @abstractmethod
    def write_folder(self, name: str, files: Mapping[str, Content]) -> None:
        """Write a folder as one; what was there is replaced."""

    @abstractmethod
    def has_folder(self, name: str) -> bool:
        """Say whether a folder that was written as one is there."""

    @abstractmethod
    def read_folder(self, name: str) -> dict[str, bytes]:
        """Return the files of a folder that was written as one, by name.

        Raises:
            StorageError: also if it is not there, or not whole.
        """


class LocalStorage(Storage):
    """A folder on a disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def where(self, name: str) -> str:
        """Return the path."""
        return str(self.folder / name)

    def write(self, name: str, content: Content) -> None:
        """Write beside it, bring that to the disk, rename."""
        path = self.folder / name
        beside = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _sync(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise _failed("write", path, error) from error

    def read(self, name: str) -> bytes | None:
        """Read it."""
        path = self.folder / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", path, error) from error

    def files(self, folder: str = "") -> list[str]:
        """Walk through it; what is being written is left out."""
        found = []
        for parent, folders, names in os.walk(self.folder / folder):
            folders[:] = [each for each in folders if not each.endswith(".partial")]
            found += [
                Path(parent, name).relative_to(self.folder).as_posix()
                for name in names
                if not name.endswith(".partial")
            ]
        return sorted(found)

    def delete(self, name: str) -> None:
        """Delete; a folder is renamed first, so that a half of it is never seen."""
        path = self.folder / name
        try:
            if path.is_dir():
                beside = path.with_name(f".{path.name}.deleted.partial")
                shutil.rmtree(beside, ignore_errors=True)
                path.rename(beside)
                shutil.rmtree(beside)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed("delete", path, error) from error

    def write_folder(self, name: str, files: Mapping[str, Content]) -> None:
        """Write beside it, bring that to the disk, rename."""
        path = self.folder / name
        beside = path.with_name(f".{path.name}.partial")
        writing = beside
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            folders = {beside}
            for part, content in files.items():
                writing = beside / part
                writing.parent.mkdir(parents=True, exist_ok=True)
                folders.add(writing.parent)
                with writing.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for folder in folders:
                _sync(folder)
            writing = path
            self.delete(name)
            beside.rename(path)
            _sync(path.parent)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, StorageError):
                raise
            shown = path / writing.relative_to(beside) if writing.is_relative_to(beside) else path
            raise _failed("write", shown, error) from error

    def has_folder(self, name: str) -> bool:
        """Whatever has its name is whole."""
        return (self.folder / name).is_dir()

    def read_folder(self, name: str) -> dict[str, bytes]:
        """Read all files."""
        path = self.folder / name
        if not path.is_dir():
            raise StorageError(f"there is no folder {path}", str(path))
        contents = {}
        for part in self.files(name):
            content = self.read(part)
            if content is not None:
                contents[part[len(name) + 1 :]] = content
        return contents


class RemoteStorage(Storage):
    """What lies below a URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ImportError(
                f"storage at {url} needs a package that is not installed: {error}."
                " pip install 'skate[spill]', and what fsspec names for such URLs (s3fs for s3://)"
            ) from error
        except Exception as error:  # every filesystem has its own
            raise StorageError(f"cannot use {url}: {_reason(error)}", url) from error
        protocol = self._filesystem.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._whole_files = bool(protocols & _WHOLE_FILES)

    def where(self, name: str) -> str:
        """Return the URL."""
        return f"{self.url}/{name}" if name else self.url

    def write(self, name: str, content: Content) -> None:
        """Send it."""
        path = f"{self._root}/{name}"
        try:
            if self._whole_files:
                # Folders are not made there, only buckets would be: a name that nobody has made
                # is a mistake.
                self._filesystem.pipe_file(path, bytes(content))
                return
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            beside = f"{path}.partial"
            self._filesystem.pipe_file(beside, bytes(content))
            if self._filesystem.exists(path):
                self._filesystem.rm_file(path)
            self._filesystem.mv(beside, path)
        except Exception as error:  # every filesystem has its own
            raise _failed("write", self.where(name), error) from error

    def read(self, name: str) -> bytes | None:
        """Fetch it."""
        try:
            content: bytes = self._filesystem.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise _failed("read", self.where(name), error) from error
        return content

    def files(self, folder: str = "") -> list[str]:
        """Ask for them; listings are not taken from a cache."""
        below = f"{self._root}/{folder}".rstrip("/")
        try:
            self._filesystem.invalidate_cache()
            found = self._filesystem.find(below)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _failed("list", self.where(folder), error) from error
        root = self._root.rstrip("/") + "/"
        return sorted(
            path.removeprefix(root)
            for path in found
            if path.startswith(root) and not path.endswith(".partial")
        )

    def delete(self, name: str) -> None:
        """Delete; the manifest of a folder goes first."""
        path = f"{self._root}/{name}"
        try:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.rm_file(f"{path}/{MANIFEST}")
            self._filesystem.invalidate_cache()
            if self._filesystem.exists(path):
                self._filesystem.rm(path, recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _failed("delete", self.where(name), error) from error

    def write_folder(self, name: str, files: Mapping[str, Content]) -> None:
        """Send the files, then the manifest."""
        if self.has_folder(name):
            self.delete(name)
        for part, content in files.items():
            self.write(f"{name}/{part}", content)
        sizes = {part: len(content) for part, content in files.items()}
        self.write(f"{name}/{MANIFEST}", json.dumps(sizes).encode())

    def has_folder(self, name: str) -> bool:
        """Look for the manifest."""
        return self.read(_join(name, MANIFEST)) is not None

    def read_folder(self, name: str) -> dict[str, bytes]:
        """Fetch what the manifest names."""
        manifest = self.read(_join(name, MANIFEST))
        if manifest is None:
            raise StorageError(f"there is no whole folder {self.where(name)}", self.where(name))
        contents = {}
        for part, size in json.loads(manifest).items():
            content = self.read(_join(name, part))
            if content is None or len(content) != size:
                place = self.where(_join(name, part))
                raise StorageError(f"{place} is missing or truncated", place)
            contents[part] = content
        return contents


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def append(path: Path, content: bytes) -> None:
    """Append to a local file: all of ``content``, or nothing if it does not fit.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            append_to(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed("write", path, error) from error


def append_to(descriptor: int, content: bytes) -> None:
    """Append to an open local file: all of ``content``, or nothing if it does not fit.

    Raises:
        OSError: it cannot be written.
    """
    size = os.fstat(descriptor).st_size
    remaining = memoryview(content)
    try:
        while remaining:  # a disk that fills up takes a part, then refuses the next call
            remaining = remaining[os.write(descriptor, remaining) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(what: str, place: str | Path, error: Exception) -> StorageError:
    return StorageError(f"cannot {what} {place}: {_reason(error)}", str(place))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    return f"{type(error).__name__}: {error}"
