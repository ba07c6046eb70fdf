"""How objects come from the memory of one node to another: daemon to daemon, in chunks."""

from __future__ import annotations

from skate.runtime.wire.parts import Location, Message

#: Bytes of one chunk: little enough to stay in the processor's cache between the system calls that
#: read and write it, and that nothing else in the daemon waits long.
CHUNK_SIZE = 1024 * 1024


class PullChunk(Message, tag=161):
    """Send me these bytes of an object of yours; ``ObjectChunk`` or ``ChunkFailed`` answers."""

    object_id: bytes
    start: int
    length: int
    #: Where the object was said to be.
    location: Location


class ObjectChunk(Message, tag=162):
    """Some bytes of an object; ``wire/chunks.py`` relies on their being the last field."""

    object_id: bytes
    start: int
    data: memoryview


class ChunkFailed(Message, tag=163):
    """The object is not here, or cannot be read; ``reason`` is for the user."""

    object_id: bytes
    start: int
    reason: str


class NoteCopy(Message, tag=164):
    """To the node of the owner: I am about to have a copy, tell me when the object is freed."""

    object_id: bytes


class CopyNoted(Message, tag=165):
    """Answer to ``NoteCopy``; ``others`` are nodes that have, or will have, copies too."""

    object_id: bytes
    others: list[bytes]


class FreeCopy(Message, tag=166):
    """The owner, who is a process of mine, has freed the object; ``location`` is what it knew."""

    object_id: bytes
    location: Location


class CarryChunks(Message, tag=169):
    """First on a connection: I am a node, and this connection is for chunks that I ask for."""
