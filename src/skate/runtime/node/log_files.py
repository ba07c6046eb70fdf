"""The log files of a node, for whoever looks inside: which there are, and their text in pieces."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TypeAlias

from skate.runtime.node.config import Paths
from skate.runtime.wire.logs import PIECE_SIZE, LogPiece, LogRange

Row: TypeAlias = dict[str, str | int]

#: Files in one answer at most.
MOST_FILES = 10_000
#: Larger than any file; offsets beyond are nonsense.
MOST_BYTES = 1 << 62


class LogFiles:
    """The logs of the living, and those of the dead that are kept after the session."""

    def __init__(self, node_id: bytes, paths: Paths, living: Callable[[], Iterator[str]]) -> None:
        """``living()``: the paths of the logs that processes of this node write now."""
        self._node_id = node_id
        self._node_log = paths.node_log
        self._directories = {paths.log_dir: "worker", paths.kept_logs: "crashed"}
        self._living = living

    def rows(self) -> list[Row]:
        """Return a row for each file in which there is something."""
        rows: list[Row] = []
        for directory, kind in self._directories.items():
            try:
                entries = list(os.scandir(directory))
            except OSError:
                continue
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if not stat.S_ISREG(status.st_mode) or not status.st_size:
                    continue
                rows.append(
                    {
                        "name": entry.name,
                        "path": entry.path,
                        "size": status.st_size,
                        "kind": "node" if entry.path == self._node_log else kind,
                        "node_id": self._node_id.hex(),
                    }
                )
        return rows[:MOST_FILES]

    def read(self, wanted: LogRange) -> LogPiece:
        """Return a piece of a file; of names that are none of a log: that there is no such file."""
        name = wanted.name
        if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
            return LogPiece(-1, 0, b"", False)
        live = name == os.path.basename(self._node_log) or any(
            os.path.basename(path) == name for path in self._living()
        )
        for directory in self._directories:
            try:
                # No links out of here, and no waiting for a pipe.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(os.path.join(directory, name), flags)
            except (OSError, ValueError):
                continue
            try:
                status = os.fstat(fd)
                if stat.S_ISREG(status.st_mode):
                    length = min(max(wanted.length, 0), PIECE_SIZE)
                    start = min(max(wanted.start, 0), MOST_BYTES)
                    return LogPiece(
                        status.st_size, status.st_ino, os.pread(fd, length, start), live
                    )
            except OSError:
                continue
            finally:
                os.close(fd)
        return LogPiece(-1, 0, b"", live)
