"""The contract of a place for spilled objects.

A file holds objects one after the other, each as it lay in memory: its header, then its bytes.  So
a place in a file that does not begin with the object's header, or ends before the object does, is
damaged, and nothing is ever taken for another object.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from typing import NamedTuple

from skate.runtime.store import header

#: Bytes that are read and written at a time: as much as stays in the processor's cache between the
#: one and the other, and large enough that the system calls do not show.
BLOCK = 1 << 20


class SpillError(Exception):
    """Objects could not be written or read; the text says why, for the user."""


class Record(NamedTuple):
    """An object in a segment: where it is read from, or where it goes to."""

    object_id: bytes
    size: int
    #: Descriptor of the segment, and where in it the header is.
    fd: int
    offset: int

    @property
    def length(self) -> int:
        """Bytes in a file."""
        return header.HEADER_SIZE + self.size


class SpillStorage(abc.ABC):
    """Files of objects.  All methods block, and may be called from several threads at once.

    Names are unique: nothing is written twice, and what is read or deleted was written before.
    """

    #: For messages: a path or a URL.
    place: str
    #: The session ends: what is running gives up.
    closing: bool = False

    def check_open(self) -> None:
        """Raise SpillError if the session ends."""
        if self.closing:
            raise SpillError("the session ends")

    @abc.abstractmethod
    def write(self, name: str, records: Sequence[Record]) -> None:
        """Write a file of these objects, in their order; leave nothing behind if that fails.

        Raises:
            SpillError: the disk is full, the bucket cannot be reached...
        """

    @abc.abstractmethod
    def read(self, name: str, position: int, record: Record) -> None:
        """Copy the object at ``position`` in a file to its place in a segment, without header.

        Raises:
            SpillError: the file is gone or damaged, or cannot be reached.
        """

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; only a warning is logged if that fails."""

    @abc.abstractmethod
    def close(self) -> None:
        """Delete everything: the session ends."""


def check_header(data: bytes, record: Record, name: str) -> None:
    """Raise SpillError unless ``data`` begins with the header of the object."""
    if not header.names(data, record.object_id, record.size):
        raise SpillError(f"the spill file {name} is damaged: it does not hold the object")


def pread_all(fd: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` from a file; return how many bytes there were."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def pwrite_all(fd: int, view: memoryview, offset: int) -> None:
    """Write all of ``view`` to a file."""
    while view:
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]
