"""Connections between daemons that carry pieces of objects, without copying them around.

What travels are ordinary frames of ordinary messages.  But the sender reads the bytes of an object
to the very place from which the frame is sent, and the receiver reads a frame to a place of its own
and gets a view of the bytes in it: no copy beside those of the kernel, no fresh memory per chunk.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from skate.runtime.wire.authentication import AuthenticatedConnection
from skate.runtime.wire.connection import Connection, M, ProtocolError
from skate.runtime.wire.transfers import CHUNK_SIZE, ObjectChunk

#: What a frame may have beside the bytes of one chunk.
MOST_BESIDE = 4096

_LENGTH = struct.Struct("<I")
#: The head of more than 65,535 bytes, or of fewer, in MessagePack; and of none, as it is encoded.
_BYTES = struct.Struct(">BI")
_BYTES_TAG = 0xC6
_NO_BYTES = b"\xc4\x00"
_encoder = msgspec.msgpack.Encoder()


def chunk_head(object_id: bytes, start: int, length: int) -> bytes:
    """Return what comes before the bytes in the frame of one ``ObjectChunk``."""
    message = _encoder.encode([ObjectChunk(object_id, start, memoryview(b""))])
    assert message.endswith(_NO_BYTES)  # they are the last field
    message = message[: -len(_NO_BYTES)] + _BYTES.pack(_BYTES_TAG, length)
    return _LENGTH.pack(len(message) + length) + message


class ChunkConnection(AuthenticatedConnection[M]):
    """A connection to another daemon, which can send chunks and may be there to receive them."""

    __slots__ = ("_chunk", "_expected", "_filled", "_frame", "_receives_chunks", "_space")

    def __init__(
        self,
        sock: socket.socket,
        decoder: msgspec.msgpack.Decoder[list[M]],
        token: bytes,
        is_client: bool,
        on_ready: Callable[[Connection[Any]], None],
        receives_chunks: bool = False,
    ) -> None:
        """``receives_chunks``: it is for chunks alone, and we are who asks for them."""
        super().__init__(sock, decoder, token, is_client, on_ready)
        self._receives_chunks = receives_chunks
        #: Where chunks are sent from, and what of the current one has not been sent.
        self._space = bytearray()
        self._chunk: memoryview | None = None
        #: The frame that is coming in, how much of it has come, and how much there is to come.
        self._frame = bytearray(_LENGTH.size)
        self._filled = 0
        self._expected = 0

    # ------------------------------------------------------------------ sending

    @property
    def is_idle(self) -> bool:
        """Whether everything has been sent, so that ``send_chunk`` may be called."""
        return self._chunk is None and not self.out and not self.has_backlog

    def chunk_space(self, length: int) -> memoryview:
        """Return the place for the bytes of the next chunk."""
        if len(self._space) < MOST_BESIDE + length:
            self._space = bytearray(MOST_BESIDE + length)
        return memoryview(self._space)[MOST_BESIDE : MOST_BESIDE + length]

    def send_chunk(self, object_id: bytes, start: int, length: int) -> None:
        """Queue the bytes in ``chunk_space``; ``flush`` sends them."""
        head = chunk_head(object_id, start, length)
        begin = MOST_BESIDE - len(head)
        self._space[begin:MOST_BESIDE] = head
        self._chunk = memoryview(self._space)[begin : MOST_BESIDE + length]

    def flush(self) -> bool:
        """As in ``Connection``: first the rest of a chunk, then messages."""
        chunk = self._chunk
        if chunk is not None:
            try:
                while chunk:
                    chunk = chunk[self.sock.send(chunk) :]
            except (BlockingIOError, InterruptedError):
                self._chunk = chunk
                return False
            except OSError as error:
                # ``receive`` reports it.
                self._failed(error)
            self._chunk = None
        return super().flush()

    # ------------------------------------------------------------------ receiving

    def receive(self) -> list[M] | None:
        """As in ``Connection``; a chunk that is returned is good until the next call.

        Raises:
            ProtocolError: the other end does not know the token, or sent no messages of this link.
        """
        if not self._receives_chunks or not self.is_authenticated:
            return super().receive()
        try:
            while True:
                end = self._expected or _LENGTH.size
                with memoryview(self._frame) as view, view[self._filled : end] as rest:
                    count = self.sock.recv_into(rest)
                if not count:
                    return None
                self._filled += count
                if self._filled < end:
                    continue
                self._filled = 0
                if self._expected:
                    self._expected = 0
                    return self._decode(end)
                (self._expected,) = _LENGTH.unpack_from(self._frame)
                if self._expected > CHUNK_SIZE + MOST_BESIDE:
                    raise ProtocolError(f"frame of {self._expected} bytes")
                if self._expected > len(self._frame):
                    self._frame = bytearray(self._expected)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            self._failed(error)
            return None

    def _decode(self, size: int) -> list[M]:
        try:
            return self._decoder.decode(memoryview(self._frame)[:size])
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolError(str(error)) from None
