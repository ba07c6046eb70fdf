"""Identifiers.  Every process draws its own, without asking anybody.

A ``WorkerID`` is 8 random bytes and names one process (driver, worker or node daemon) for ever.
A task, object or actor id is 16 bytes: the id of the process that made it, then a counter.  The
owner of an object can therefore be read off its id.
"""

from __future__ import annotations

import os

#: Bytes in the id of a process.
PROCESS_ID_SIZE = 8
#: Bytes in the id of a task, an object or an actor.
OBJECT_ID_SIZE = 16


def new_process_id() -> bytes:
    """Return a fresh process id: 8 random bytes."""
    return os.urandom(PROCESS_ID_SIZE)


def owner_of(object_id: bytes) -> bytes:
    """Return the process id of the owner of ``object_id``."""
    return object_id[:PROCESS_ID_SIZE]


class IdSource:
    """Draws consecutive ids for one process.  Not thread safe: its owner holds a lock."""

    __slots__ = ("_next", "prefix")

    def __init__(self, process_id: bytes) -> None:
        self.prefix = process_id
        self._next = 1

    def draw(self, count: int = 1) -> bytes:
        """Return the first of ``count`` consecutive ids; ``nth`` gives the others."""
        number = self._next
        self._next = number + count
        return self.prefix + number.to_bytes(8, "big")


def distance(first: bytes, later: bytes) -> int:
    """Return by how many places ``later`` follows ``first``: the inverse of ``nth``."""
    return int.from_bytes(later[PROCESS_ID_SIZE:], "big") - int.from_bytes(
        first[PROCESS_ID_SIZE:], "big"
    )


def nth(first: bytes, index: int) -> bytes:
    """Return the id that follows ``first`` by ``index`` places."""
    if index == 0:
        return first
    number = int.from_bytes(first[PROCESS_ID_SIZE:], "big") + index
    return first[:PROCESS_ID_SIZE] + number.to_bytes(8, "big")
