"""Spilled objects in a directory of this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Sequence

from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.store.spill._base import (
    BLOCK,
    Record,
    SpillError,
    SpillStorage,
    check_header,
    pread_all,
    pwrite_all,
)

logger = logging.getLogger(__name__)


#: The disk is told to begin after so many bytes.
WRITE_BACK_BYTES = 8 * 1024 * 1024


def _begin_writing(fd: int, start: int, end: int) -> None:
    """Have the disk work while we copy, rather than when the kernel runs out of patience."""
    # What is not yet written is not dropped by this, only begun with.
    os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)


class LocalStorage(SpillStorage):
    """Files in a directory, which is made for the first of them and removed at the end."""

    def __init__(self, directory: str) -> None:
        self.place = directory

    def _path(self, name: str) -> str:
        return os.path.join(self.place, name)

    def write(self, name: str, records: Sequence[Record]) -> None:
        """Write a file."""
        path = self._path(name)
        try:
            os.makedirs(self.place, mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._write(fd, records)
            finally:
                os.close(fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise SpillError(f"cannot write to {path}: {error.strerror or error}") from error

    def _write(self, fd: int, records: Sequence[Record]) -> None:
        block = memoryview(bytearray(min(BLOCK, max(record.length for record in records))))
        position = begun = 0
        for record in records:
            done = 0
            while done < record.length:
                self.check_open()
                part = block[: record.length - done]
                pread_all(record.fd, part, record.offset + done)
                pwrite_all(fd, part, position)
                done += len(part)
                position += len(part)
                if position - begun >= WRITE_BACK_BYTES:
                    _begin_writing(fd, begun, position)
                    begun = position
        _begin_writing(fd, begun, position)

    def read(self, name: str, position: int, record: Record) -> None:
        """Copy an object into memory."""
        path = self._path(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SpillError(f"cannot open {path}: {error.strerror or error}") from error
        try:
            # The disk reads on while a block is copied.
            os.posix_fadvise(fd, position, record.length, os.POSIX_FADV_WILLNEED)
            check_header(os.pread(fd, HEADER_SIZE, position), record, path)
            block = memoryview(bytearray(min(BLOCK, max(record.size, 1))))
            done = 0
            while done < record.size:
                self.check_open()
                part = block[: record.size - done]
                if pread_all(fd, part, position + HEADER_SIZE + done) < len(part):
                    raise SpillError(f"the spill file {path} is truncated")
                pwrite_all(record.fd, part, record.offset + HEADER_SIZE + done)
                done += len(part)
        except OSError as error:
            raise SpillError(f"cannot read {path}: {error.strerror or error}") from error
        finally:
            os.close(fd)

    def delete(self, name: str) -> None:
        """Delete a file."""
        try:
            os.unlink(self._path(name))
        except OSError as error:
            logger.warning("cannot delete a spill file: %s", error)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.place, ignore_errors=True)
