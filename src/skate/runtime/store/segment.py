"""Anonymous shared memory: making a segment, mapping it, and views that keep things alive.

Mappings are made with ``mmap(2)`` itself and not with Python's ``mmap`` module: that one keeps a
descriptor per mapping, gives no address for a read-only one, and cannot populate pages without
holding the interpreter.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import tempfile
from pickle import PickleBuffer
from typing import Any

_LINUX = sys.platform == "linux"
#: From ``linux/mman.h``; not in Python's ``mmap`` module before 3.14.
_MADV_POPULATE_WRITE = 23
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


#: Segments that take many objects are this large at most, and so large a part of the store.
SLAB_BYTES = 64 * 1024 * 1024
SLABS = 32


def slab_size(limit_bytes: int) -> int:
    """Return the size of segments for many objects in a store of ``limit_bytes``."""
    return max(1 << 20, min(SLAB_BYTES, limit_bytes // SLABS) & ~0xFFFF)


def create_segment(size: int) -> int:
    """Return the descriptor of ``size`` bytes of shared memory that has no name.

    On Linux the size is sealed, so that no process can pull the memory from under another's
    mapping.

    Raises:
        OSError: no descriptors or no memory are left.
    """
    if _LINUX:
        fd = os.memfd_create("skate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        fd, path = tempfile.mkstemp(prefix="skate-")
        os.unlink(path)
    try:
        os.ftruncate(fd, size)
        if _LINUX:
            import fcntl

            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_only_descriptor(fd: int) -> int:
    """Return another descriptor of the same segment, through which it cannot be written.

    Where that is not possible (no ``/proc``) it is a duplicate that can.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(fd)


class Descriptor:
    """A file descriptor that is closed with the last reference to this object.

    A thread that writes through it keeps it open by holding it, however soon another is done with
    it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Any = os.close) -> None:
        close(self.fd)


class Mapping:
    """A segment in this process's address space, for as long as anything refers to it.

    Raises:
        OSError: the segment cannot be mapped.
        ValueError: the descriptor's file is smaller than ``size``; reading would kill the process.
    """

    __slots__ = ("__weakref__", "address", "size")

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self.size = 0
        actual = os.fstat(fd).st_size
        if size <= 0 or actual < size:
            raise ValueError(f"segment has {actual} bytes, not {size}")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
        if address is None or address == _MAP_FAILED:
            errno = ctypes.get_errno()
            raise OSError(errno, f"cannot map {size} bytes: {os.strerror(errno)}")
        self.address: int = address
        self.size = size

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        if self.size:
            munmap(self.address, self.size)

    def populate(self, start: int, end: int) -> None:
        """Make the pages of a range writable without a fault each; only a hint."""
        if _LINUX:
            start -= start % mmap.PAGESIZE
            _libc.madvise(self.address + start, min(end, self.size) - start, _MADV_POPULATE_WRITE)

    def writable_view(self, offset: int, size: int) -> memoryview:
        """Return a view of bytes that keeps the mapping alive.  The mapping has to be writable."""
        return self._view(offset, size, self)

    def pinned_view(self, offset: int, size: int, pin: object) -> memoryview:
        """Return a read-only view of bytes.

        As long as it, or anything that was made from it, lives, so do the mapping and ``pin``.

        Raises:
            ValueError: the range is not inside the segment.
        """
        return self._view(offset, size, (self, pin)).toreadonly()

    def _view(self, offset: int, size: int, pin: object) -> memoryview:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"range {offset}+{size} is outside of a segment of {self.size} bytes")
        region = _region_type(size).from_address(self.address + offset)
        region.pin = pin
        # A view of the array itself has the format "<B", which cannot be assigned or cast.
        return PickleBuffer(region).raw()


@functools.lru_cache(maxsize=512)
def _region_type(size: int) -> Any:
    """Return a ctypes array type of ``size`` bytes whose instances carry a ``pin``.

    The array is what views export: Python's buffer protocol has no other way, before 3.12, to
    attach something to the lifetime of every view.  Making a type takes 6 us, hence the cache.
    """
    namespace = {"_length_": size, "_type_": ctypes.c_ubyte, "__slots__": ("pin",)}
    return type("Region", (ctypes.Array,), namespace)
