"""The 64 bytes in front of every object in shared memory, and the locks on them that pin it.

A header names the object behind it.  Readers hold a shared lock on the header for as long as they
look at the object; whoever wants the memory takes an exclusive one, and gives up if it cannot have
it.  With the lock it checks that the header still names the object, and wipes it: the memory
belongs to whoever wiped the header, so it is freed exactly once.

The locks are those of open file descriptions (``F_OFD_SETLK``): one costs 0.8 us, asks nobody, and
the kernel drops it when the process dies.  Two locks conflict only if they were taken through
different open file descriptions, so every process opens a segment anew (``reopen``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from skate.runtime.store.allocator import ALIGNMENT

try:
    import fcntl

    _SETLK = fcntl.F_OFD_SETLK
except (ImportError, AttributeError):  # not on Linux, where the native engine does not run either
    _SETLK = -1

#: Bytes of a header: objects begin aligned behind it.
HEADER_SIZE = ALIGNMENT
#: A header that names nothing.
EMPTY = bytes(HEADER_SIZE)

# Not ``fcntl.fcntl``: that lets go of the interpreter around the call, and a thread that waits for
# it then takes its turn, which makes a lock of a microsecond last a hundred.
_fcntl = ctypes.PyDLL(None).fcntl
# What says why it failed is slower, most of all with cold caches, as after a large object has been
# written (40 instead of 42 us for a whole `get`): it is called only then.
_fcntl_errno = ctypes.PyDLL(None, use_errno=True).fcntl
# For the same reason not ``ctypes.memset``.
_memset = ctypes.PyDLL(None).memset
_memset.restype = ctypes.c_void_p
_memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

_MAGIC = b"skateobj"
_HEADER = struct.Struct("<8s16sQ")
#: Bytes at the start of a header that say something.
NAMED_SIZE = _HEADER.size
# ``struct flock``: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhxxxxqqixxxx")


def header(object_id: bytes, size: int) -> bytes:
    """Return the header of an object of ``size`` bytes."""
    return _HEADER.pack(_MAGIC, object_id, size).ljust(HEADER_SIZE, b"\0")


def names(data: bytes, object_id: bytes, size: int) -> bool:
    """Return whether ``data``, which starts with a header, names that object."""
    return data[:NAMED_SIZE] == _HEADER.pack(_MAGIC, object_id, size)


def reopen(fd: int, *, writable: bool) -> int:
    """Return a descriptor of the same segment with an open file description of its own.

    Raises:
        OSError: no descriptors are left, or there is no ``/proc``.
    """
    mode = os.O_RDWR if writable else os.O_RDONLY
    return os.open(f"/proc/self/fd/{fd}", mode | os.O_CLOEXEC)


def share(fd: int, offset: int) -> bool:
    """Lock the header at ``offset`` as one of its readers; False while somebody claims it.

    Raises:
        OSError: the kernel has no memory for another lock.
    """
    return _lock(fd, fcntl.F_RDLCK, offset)


def claim(fd: int, offset: int) -> bool:
    """Lock the header for ourselves alone; False while anybody else reads or claims it."""
    try:
        return _lock(fd, fcntl.F_WRLCK, offset)
    except OSError:  # out of locks: later then
        return False


def release(fd: int, offset: int) -> None:
    """Give up a lock on the header, whichever it is."""
    # Not ``contextlib.suppress``, which takes as long as the lock: every ``get`` comes here.
    try:  # noqa: SIM105
        _lock(fd, fcntl.F_UNLCK, offset)
    except OSError:
        pass


def _lock(fd: int, kind: int, offset: int) -> bool:
    flock = _FLOCK.pack(kind, os.SEEK_SET, offset, HEADER_SIZE, 0)
    if _fcntl(fd, _SETLK, flock) == 0 or _fcntl_errno(fd, _SETLK, flock) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EAGAIN, errno.EACCES):
        return False
    raise OSError(error, os.strerror(error))


def is_there(fd: int, offset: int, object_id: bytes, size: int) -> bool:
    """Return whether the header at ``offset`` names the object."""
    return names(os.pread(fd, NAMED_SIZE, offset), object_id, size)


def take(fd: int, offset: int, object_id: bytes, size: int) -> bool | None:
    """Wipe the header of an object that nobody looks at: its memory is the caller's.

    Returns:
        None if somebody holds a lock; False if the header names something else, because the memory
        was taken before.
    """
    if not claim(fd, offset):
        return None
    try:
        if not is_there(fd, offset, object_id, size):
            return False
        os.pwrite(fd, EMPTY, offset)
        return True
    finally:
        release(fd, offset)


def take_mapped(fd: int, offset: int, address: int, object_id: bytes, size: int) -> bool:
    """Do what ``take`` does where the segment is mapped, writable, at ``address``; much faster."""
    if not claim(fd, offset):
        return False
    try:
        if not names(ctypes.string_at(address + offset, NAMED_SIZE), object_id, size):
            return False
        _memset(address + offset, 0, HEADER_SIZE)
        return True
    finally:
        release(fd, offset)
