"""Packages on a node: opaque files named by their content, which processes bring and read.

They lie in the user's cache, so that what was brought once need not be brought by the next session.
While a session may need one it holds a shared lock on the file, and nobody removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterable

from skate.runtime.node import cache
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.environments import PIECE, PackageData, StorePackage

_NAME = re.compile(r"[0-9a-f]{32}")


class _Arriving:
    """A package of which pieces are still missing."""

    def __init__(self, path: str) -> None:
        import hashlib  # most daemons never need it

        self.path = path
        self.file = open(path, "xb")  # noqa: SIM115  # open until the last piece has come
        self.hasher = hashlib.blake2b(digest_size=16)
        self.size = 0

    def drop(self) -> None:
        self.file.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class PackageStore:
    """The packages of one node, as its daemon has them."""

    def __init__(self) -> None:
        #: Descriptors of the packages that this session may need, locked.
        self._held: dict[str, int] = {}
        #: By process and package.
        self._arriving: dict[tuple[bytes, str], _Arriving] = {}
        #: Brings a package here from where it is and then calls back, with "" or why it cannot.
        #: In a cluster it asks the other nodes.
        self.fetch: Callable[[str, Callable[[str], None]], None] = _nowhere

    def missing(self, package_ids: Iterable[str]) -> list[str]:
        """Return which of these are not here; the others stay as long as the session does."""
        return [package_id for package_id in package_ids if not self._hold(package_id)]

    def _hold(self, package_id: str) -> bool:
        if package_id in self._held:
            return True
        try:
            path = package_path(package_id)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Why there is no cache is told to whoever wants to store something.
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Removed between the two, it lives on without a name.
            if os.fstat(fd).st_nlink:
                os.utime(path)
                self._held[package_id] = fd
                return True
        except OSError:
            pass
        os.close(fd)
        return False

    def need(self, package_ids: list[str], done: Callable[[str], None]) -> None:
        """Call ``done("")`` when all of these are here, or ``done(why not)``."""
        try:
            missing = self.missing(package_ids)
        except ProtocolError as error:
            done(str(error))
            return
        if not missing:
            done("")
            return

        def fetched(error: str) -> None:
            if error:
                done(error)
            else:
                self.need(package_ids, done)

        self.fetch(missing[0], fetched)

    def store(self, process_id: bytes, message: StorePackage) -> str:
        """Take a piece; return why it could not be taken, or "".

        Raises:
            ProtocolError: the pieces are not those of the package.
        """
        package_id = message.package_id
        key = (process_id, package_id)
        try:
            path = package_path(package_id)
            arriving = self._arriving.get(key)
            if message.offset == 0:
                if arriving is not None:
                    arriving.drop()
                unique = f".{package_id}-{os.urandom(4).hex()}"
                arriving = _Arriving(os.path.join(os.path.dirname(path), unique))
                self._arriving[key] = arriving
            if arriving is None or message.offset != arriving.size:
                raise ProtocolError("a piece of a package is out of place")
            arriving.hasher.update(message.data)
            arriving.size += len(message.data)
            arriving.file.write(message.data)
            if message.last:
                arriving.file.close()
                if arriving.hasher.hexdigest() != package_id:
                    raise ProtocolError("a package is not what its name says")
                os.rename(arriving.path, path)
                del self._arriving[key]
                self._hold(package_id)
                cache.collect_packages()
        except OSError as error:
            self._drop(key)
            return str(error)
        except ProtocolError:
            self._drop(key)
            raise
        return ""

    def read(self, request_id: int, package_id: str, offset: int) -> PackageData:
        """Return a piece for whoever asks, another node for example."""
        try:
            if not self._hold(package_id):
                return PackageData(request_id, b"", 0, f"there is no package {package_id} here")
            fd = self._held[package_id]
            return PackageData(request_id, os.pread(fd, PIECE, offset), os.fstat(fd).st_size)
        except OSError as error:
            return PackageData(request_id, b"", 0, str(error))

    def process_died(self, process_id: bytes) -> None:
        """Whoever was bringing something is gone."""
        for key in [key for key in self._arriving if key[0] == process_id]:
            self._drop(key)

    def _drop(self, key: tuple[bytes, str]) -> None:
        arriving = self._arriving.pop(key, None)
        if arriving is not None:
            arriving.drop()


def package_path(package_id: str) -> str:
    """Return where a package lies, or would.

    Raises:
        ProtocolError: nothing is called like that.
        OSError: there is no cache.
    """
    if not _NAME.fullmatch(package_id):
        raise ProtocolError(f"{package_id!r} is not the name of a package")
    return os.path.join(cache.directory("packages"), package_id)


def _nowhere(package_id: str, done: Callable[[str], None]) -> None:
    done(
        f"this node does not have the package {package_id}: use the files again that it was made"
        " of, instead of their name from another session"
    )
