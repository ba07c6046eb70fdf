"""Reading logs of any node, a piece at a time: part of ``Inspect`` and of its answer."""

from __future__ import annotations

import msgspec

#: What an ``Inspect`` asks for that has a ``LogRange``.
LOG = "log"
#: Bytes of one piece at most.
PIECE_SIZE = 256 * 1024


class LogRange(msgspec.Struct, array_like=True, gc=False):
    """Which part of which log."""

    #: The node that has it.
    node_id: bytes
    #: Of the file, without directories.
    name: str
    #: The first byte, and how many; a piece may have fewer.
    start: int
    length: int


class LogPiece(msgspec.Struct, array_like=True, gc=False):
    """Part of a log."""

    #: Bytes of the whole file now; -1: there is no such file.
    size: int
    #: Tells whether it is still the same file: one that has become too large is begun anew.
    inode: int
    data: bytes
    #: The process that writes it lives: more may come.
    live: bool
