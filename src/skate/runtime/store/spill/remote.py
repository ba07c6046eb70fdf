"""Spilled objects anywhere that fsspec can reach: S3, GCS, Azure, HDFS, SFTP..."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from skate.runtime.store.header import HEADER_SIZE
from skate.runtime.store.spill._base import (
    Record,
    SpillError,
    SpillStorage,
    check_header,
    pread_all,
    pwrite_all,
)

logger = logging.getLogger(__name__)

#: Bytes that are sent or asked for at a time: each is a request, which takes some 50 ms.
REMOTE_BLOCK = 16 * 1024 * 1024


class RemoteStorage(SpillStorage):
    """Files below a URL, in a folder of their own."""

    def __init__(self, url: str) -> None:
        self.place = f"{url.rstrip('/')}/skate-{uuid.uuid4().hex[:12]}"
        self._lock = threading.Lock()
        self._filesystem: Any = None
        self._root = ""

    def _path(self, name: str) -> str:
        # Importing fsspec and what stands behind it takes a second, so the first file does it.
        with self._lock:
            if self._filesystem is None:
                try:
                    import fsspec

                    self._filesystem, self._root = fsspec.core.url_to_fs(self.place)
                except ImportError as error:
                    raise SpillError(
                        f"spilling to {self.place} needs a package that is not installed: {error}."
                        " pip install 'skate[spill]', and what fsspec names for such URLs"
                    ) from error
                except Exception as error:  # every filesystem has its own
                    raise SpillError(f"cannot use {self.place}: {_reason(error)}") from error
        return f"{self._root}/{name}"

    def write(self, name: str, records: Sequence[Record]) -> None:
        """Write a file."""
        path = self._path(name)
        try:
            self._filesystem.makedirs(self._root, exist_ok=True)
            with self._filesystem.open(path, "wb", block_size=REMOTE_BLOCK) as file:
                for record in records:
                    done = 0
                    while done < record.length:
                        self.check_open()
                        part = bytearray(min(REMOTE_BLOCK, record.length - done))
                        pread_all(record.fd, memoryview(part), record.offset + done)
                        file.write(bytes(part))
                        done += len(part)
        except Exception as error:  # every filesystem has its own
            with contextlib.suppress(Exception):
                self._filesystem.rm_file(path)
            raise SpillError(f"cannot write {self.place}/{name}: {_reason(error)}") from error

    def read(self, name: str, position: int, record: Record) -> None:
        """Copy an object into memory."""
        path = self._path(name)
        where = f"{self.place}/{name}"
        try:
            done = -HEADER_SIZE
            while done < record.size:
                self.check_open()
                start = position + HEADER_SIZE + done
                length = min(REMOTE_BLOCK, record.size - done)
                data = self._filesystem.cat_file(path, start=start, end=start + length)
                view = memoryview(data)
                if done < 0:
                    check_header(bytes(view[:HEADER_SIZE]), record, where)
                    view = view[HEADER_SIZE:]
                    done = 0
                    length -= HEADER_SIZE
                if len(view) < length:
                    raise SpillError(f"the spill file {where} is truncated")
                pwrite_all(record.fd, view, record.offset + HEADER_SIZE + done)
                done += length
        except SpillError:
            raise
        except Exception as error:  # every filesystem has its own
            raise SpillError(f"cannot read {where}: {_reason(error)}") from error

    def delete(self, name: str) -> None:
        """Delete a file."""
        try:
            self._filesystem.rm_file(self._path(name))
        except Exception as error:  # every filesystem has its own
            logger.warning("cannot delete a spill file: %s", _reason(error))

    def close(self) -> None:
        """Delete all files."""
        if self._filesystem is None:
            return
        try:
            self._filesystem.rm(self._root, recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:  # every filesystem has its own
            logger.warning("cannot delete the spill files in %s: %s", self.place, _reason(error))


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
