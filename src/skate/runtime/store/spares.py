"""Memory of segments that were dropped because others wait for memory."""

from __future__ import annotations

import os


class Spares:
    """What is kept for the next segments.

    Its pages are there already, and the kernel takes much longer to make pages than it takes to
    copy into them.  Who had it mapped and still looks for an object there finds another header.
    """

    def __init__(self) -> None:
        self._spares: list[tuple[int, int]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._spares)

    def add(self, fd: int, size: int) -> None:
        """Keep a descriptor."""
        self._spares.append((fd, size))
        self._bytes += size

    def take(self, size: int, most: int) -> tuple[int, int] | None:
        """Return descriptor and size of one that is large enough and not much larger."""
        most = min(most, size + size // 16)
        for index, (fd, found) in enumerate(self._spares):
            if size <= found <= most:
                del self._spares[index]
                self._bytes -= found
                return fd, found
        return None

    def shrink(self, limit: int) -> None:
        """Keep so many bytes at most."""
        while self._bytes > limit and self._spares:
            fd, size = self._spares.pop(0)
            self._bytes -= size
            os.close(fd)
