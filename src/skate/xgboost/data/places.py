"""Files by name: on this machine's disks, or wherever fsspec reaches."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any


class RayFileType(Enum):
    """What is in a file, where its name does not say."""

    CSV = 1
    PARQUET = 2
    #: Refused: for scripts that name it.
    PETASTORM = 3


#: Endings of names, without that of a compression.
_ENDINGS = {
    ".csv": RayFileType.CSV,
    ".parquet": RayFileType.PARQUET,
    ".pq": RayFileType.PARQUET,
}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")


def is_url(name: str) -> bool:
    """Say whether a name is for fsspec."""
    return "://" in name and not name.startswith("file://")


def local_path(name: str) -> str:
    """Return the absolute path of a name that is no URL."""
    return os.path.abspath(os.path.expanduser(name.removeprefix("file://")))


def _filesystem(url: str) -> tuple[Any, str]:
    """Return a filesystem of fsspec, and a path in it.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ImportError(
            f"{url} needs a package that is not installed: {error}. pip install 'skate[spill]',"
            " and what fsspec names for such URLs (s3fs for s3://)"
        ) from error
    return filesystem, path


@contextmanager
def opened(name: str) -> Iterator[Any]:
    """Open a file to read its bytes."""
    if is_url(name):
        filesystem, path = _filesystem(name)
        with filesystem.open(path, "rb") as file:
            yield file
    else:
        with open(name, "rb") as file:
            yield file


def byte_count(name: str) -> int:
    """Return the size of a file."""
    if is_url(name):
        filesystem, path = _filesystem(name)
        return int(filesystem.size(path) or 0)
    return os.path.getsize(name)


def expanded(names: Sequence[str]) -> list[str]:
    """Return the files that names, globs and folders stand for: paths or URLs, in their order.

    Files of a folder or glob are sorted by name; those whose names begin with "." or "_" are none
    of the data.

    Raises:
        FileNotFoundError: there is no such file, or none in such a folder.
    """
    found: list[str] = []
    for name in names:
        files = _remote(name) if is_url(name) else _local(local_path(name))
        if not files:
            raise FileNotFoundError(f"there is no file {name}, and no folder with files of data")
        found.extend(files)
    return found


def _local(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        below = glob.glob(os.path.join(glob.escape(path), "**"), recursive=True)
        return _of_data([each for each in below if os.path.isfile(each)], path)
    if glob.has_magic(path):
        return _of_data([each for each in glob.glob(path, recursive=True) if os.path.isfile(each)])
    return []


def _remote(url: str) -> list[str]:
    filesystem, path = _filesystem(url)
    if glob.has_magic(path):
        return [filesystem.unstrip_protocol(each) for each in _of_data(filesystem.glob(path))]
    if filesystem.isfile(path):
        return [url]
    below = [filesystem.unstrip_protocol(each) for each in filesystem.find(path)]
    return _of_data(below, filesystem.unstrip_protocol(path))


def _of_data(files: Sequence[str], folder: str = "") -> list[str]:
    def is_data(file: str) -> bool:
        inside = file[len(folder) :] if folder else os.path.basename(file)
        return not any(part.startswith((".", "_")) for part in inside.split("/"))

    return sorted(filter(is_data, files))


def folder_columns(files: Sequence[str]) -> set[str]:
    """Return the columns whose values are in the names of folders, as in ``year=2024/``."""
    folders = {folder for file in files for folder in file.split("/")[:-1]}
    return {folder.partition("=")[0] for folder in folders if "=" in folder}


def file_type(files: Sequence[str], given: RayFileType | None) -> RayFileType:
    """Return what is in files.

    Raises:
        TypeError: ``given`` is no file type.
        ValueError: their names do not say, or say different things; a type that is not read.
    """
    if given is not None:
        if not isinstance(given, RayFileType):
            raise TypeError(f"filetype must be a RayFileType, not {given!r}")
        if given is RayFileType.PETASTORM:
            raise ValueError(
                "RayFileType.PETASTORM: Petastorm is not supported; its datasets are Parquet files,"
                " and those whose columns are numbers are read with RayFileType.PARQUET"
            )
        return given
    first = _by_name(files[0])
    for file in files:
        if _by_name(file) is not first:
            raise ValueError(f"files of two kinds: {files[0]} and {file}; pass those of one kind")
    return first


def _by_name(file: str) -> RayFileType:
    name = file.lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    found = _ENDINGS.get(os.path.splitext(name)[1])
    if found is None:
        raise ValueError(
            f"the name {file} does not say what is in the file: one of {', '.join(_ENDINGS)} does;"
            " pass filetype=RayFileType.CSV or RayFileType.PARQUET"
        )
    return found
