"""Directories and archives on their way into the session, as packages named by their content.

A package is a zip file whose name is the digest of its bytes.  Directories are packed in a fixed
order with fixed times, so that equal ones give equal packages; nothing is compressed, since the way
to the daemon is short.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from skate.exceptions import RuntimeEnvSetupError
from skate.runtime.wire.environments import (
    PACKAGE_SCHEME,
    PIECE,
    FindPackages,
    PackageStored,
    StorePackage,
)
from skate.runtime.worker.ignore import Ignored

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core

#: Largest package, in bytes.
MAX_PACKAGE = 512 << 20
#: How many of the largest files the error about a package that is too large names.
NAMED_FILES = 5
#: Never of use to a task.
ALWAYS_IGNORED = ("__pycache__/", ".git/", ".hg/", ".svn/")
#: Times in packages: the earliest that zip files know.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Packages:
    """What this process has brought into the session."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._brought: set[str] = set()

    def bring(self, path: str, excludes: list[str], as_module: bool) -> str:
        """Bring a directory or file into the session and return the id of its package.

        Args:
            path: Absolute, or the name of a package that the session has.
            excludes: Patterns of what to leave out of a directory.
            as_module: The directory itself is to be imported, not what is in it.

        Raises:
            RuntimeEnvSetupError: it cannot be read, is too large, or the node cannot keep it.
        """
        if path.startswith(PACKAGE_SCHEME):
            return path.removeprefix(PACKAGE_SCHEME)
        try:
            with tempfile.TemporaryFile() as file:
                if os.path.isdir(path):
                    pack(path, excludes, os.path.basename(path) if as_module else "", file)
                elif path.endswith(".py"):
                    _pack_file(path, file)
                else:
                    _copy(path, file)
                package_id = digest(file)
                if package_id not in self._brought:
                    self._send(package_id, file)
        except OSError as error:
            raise RuntimeEnvSetupError(f"{path} cannot be packed: {error}") from error
        self._brought.add(package_id)
        return package_id

    def _send(self, package_id: str, file: IO[bytes]) -> None:
        core = self._core
        if not core.ask(lambda number: FindPackages(number, [package_id])).package_ids:
            return
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        offset = 0
        while True:
            piece = file.read(PIECE)
            start, offset = offset, offset + len(piece)

            def message(
                number: int, start: int = start, piece: bytes = piece, end: int = offset
            ) -> StorePackage:
                return StorePackage(number, package_id, start, piece, end == size)

            answer: PackageStored = core.ask(message)
            if answer.error:
                raise RuntimeEnvSetupError(f"the node cannot keep a package: {answer.error}")
            if offset == size:
                return


def digest(file: IO[bytes]) -> str:
    """Return what a package with this content is called."""
    hasher = hashlib.blake2b(digest_size=16)
    file.seek(0)
    while piece := file.read(1 << 20):
        hasher.update(piece)
    return hasher.hexdigest()


def digest_of_files(requirements: list[str]) -> str:
    """Return a digest of the local files that requirements name; "" if they name none."""
    hasher = hashlib.blake2b(digest_size=16)
    found = False
    for line in requirements:
        path = line.removeprefix("--constraint=").partition(" ;")[0].partition("[")[0]
        if not os.path.isabs(path):
            continue
        found = True
        if os.path.isdir(path):
            for name, full in walk(path, []):
                hasher.update(f"{name}\0{os.stat(full).st_mtime_ns}\0".encode())
        else:
            with open(path, "rb") as file:
                hasher.update(digest(file).encode())
    return hasher.hexdigest() if found else ""


def pack(directory: str, excludes: list[str], prefix: str, file: IO[bytes]) -> None:
    """Write the package of a directory; ``prefix`` is the directory's name inside.

    Raises:
        OSError: a file cannot be read.
        RuntimeEnvSetupError: it is too large.
    """
    files = [(name, path, os.stat(path)) for name, path in walk(directory, excludes)]
    sizes = {name: status.st_size for name, _, status in files}
    if sum(sizes.values()) > MAX_PACKAGE:
        raise RuntimeEnvSetupError(_too_large(directory, sizes))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, path, status in files:
            with open(path, "rb") as source:
                _add(archive, f"{prefix}/{name}" if prefix else name, source, status.st_mode)


def _pack_file(path: str, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, open(path, "rb") as source:
        _add(archive, os.path.basename(path), source, 0o644)


def _add(archive: zipfile.ZipFile, name: str, source: IO[bytes], mode: int) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    # Only what matters: who may execute it.
    entry.external_attr = (stat.S_IFREG | (0o755 if mode & 0o100 else 0o644)) << 16
    with archive.open(entry, "w") as target:
        while piece := source.read(1 << 20):
            target.write(piece)


def _copy(path: str, file: IO[bytes]) -> None:
    size = os.path.getsize(path)
    if size > MAX_PACKAGE:
        raise RuntimeEnvSetupError(
            f"{path} is {size >> 20} MiB large, and a package has at most {MAX_PACKAGE >> 20} MiB"
        )
    with open(path, "rb") as source:
        while piece := source.read(1 << 20):
            file.write(piece)


def walk(directory: str, excludes: list[str]) -> Iterator[tuple[str, str]]:
    """Return the files that belong into a package, sorted: name inside, and path."""
    yield from _walk(directory, "", Ignored([*ALWAYS_IGNORED, *excludes]), {})


def _walk(
    directory: str, prefix: str, ignored: Ignored, above: dict[str, None]
) -> Iterator[tuple[str, str]]:
    real = os.path.realpath(directory)
    if real in above:
        return  # a link to a directory around it
    above = {**above, real: None}
    ignored = ignored.entering(directory, prefix)
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        name = prefix + entry.name
        is_directory = entry.is_dir()
        if ignored.matches(name, is_directory):
            continue
        if is_directory:
            yield from _walk(entry.path, name + "/", ignored, above)
        elif entry.is_file():
            yield name, entry.path


def _too_large(directory: str, sizes: dict[str, int]) -> str:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED_FILES]
    lines = "".join(f"\n  {sizes[name] / (1 << 20):8.1f} MiB  {name}" for name in largest)
    return (
        f"{directory} has {sum(sizes.values()) / (1 << 20):.0f} MiB of files, and a package has at"
        f" most {MAX_PACKAGE >> 20} MiB; the largest are:"
        f"{lines}\n"
        "Leave out what tasks do not need, with 'excludes' in the runtime environment or with a"
        " .skateignore file (patterns as in .gitignore)"
    )
