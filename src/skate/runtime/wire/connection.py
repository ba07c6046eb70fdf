"""Framing: many messages in one frame, many frames in one system call.

A frame is a 4-byte little-endian length followed by a MessagePack array of messages.  Decoding is
typed: bytes that do not spell known messages raise ``ProtocolError``, which ends that connection
and nothing else.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Generic, TypeVar

import msgspec

from skate.runtime.wire.messages import NodeMessage, PeerMessage

#: Frames beyond this size are refused: larger data belongs in shared memory.
MAX_FRAME = 1 << 30
#: What callers may put into one message; they check it, so that frames stay below ``MAX_FRAME``.
MAX_PAYLOAD = 1 << 29
#: How much one ``recv`` asks for: a full pipeline of small tasks fits.
RECV_SIZE = 256 * 1024
#: Messages encoded into one frame, so that a reader starts on the first while we write the rest.
MESSAGES_PER_FRAME = 512

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()

M = TypeVar("M")

peer_decoder: msgspec.msgpack.Decoder[list[PeerMessage]] = msgspec.msgpack.Decoder(
    list[PeerMessage]
)
node_decoder: msgspec.msgpack.Decoder[list[NodeMessage]] = msgspec.msgpack.Decoder(
    list[NodeMessage]
)


class ProtocolError(Exception):
    """The other side sent bytes that are no message."""


class Connection(Generic[M]):
    """A non-blocking stream socket that speaks messages of one link.

    Whoever uses it serialises calls of the writing half (``send``, ``flush``) and of the reading
    half (``receive``); the two halves may run in different threads.
    """

    __slots__ = ("_backlog", "_buffer", "_decoder", "closed", "failure", "out", "sock")

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[list[M]]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._decoder = decoder
        #: Messages that wait for the next ``flush``.
        self.out: list[Any] = []
        self._backlog: bytearray | None = None
        self._buffer = bytearray()
        self.closed = False
        #: Why the transport has failed, if it has.
        self.failure: OSError | None = None

    def _failed(self, error: OSError) -> None:
        """Note why the transport has failed.

        Without the traceback: its frames refer to this connection, which then would be there until
        the next search for garbage.
        """
        self.failure = error.with_traceback(None)

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self.sock.fileno()

    def send(self, message: object) -> None:
        """Queue a message; ``flush`` sends it."""
        self.out.append(message)

    @property
    def has_backlog(self) -> bool:
        """Whether bytes wait for the socket to become writable."""
        return self._backlog is not None

    @property
    def backlog_size(self) -> int:
        """How many bytes wait for the socket to become writable."""
        return len(self._backlog) if self._backlog is not None else 0

    def flush(self) -> bool:
        """Send what is queued.  Return whether all of it left; if not, call again when writable.

        Errors of the transport are left to ``receive``, which reports the end of the connection.
        """
        out = self.out
        if out:
            self.out = []
            frames = self._backlog if self._backlog is not None else bytearray()
            for start in range(0, len(out), MESSAGES_PER_FRAME):
                payload = _encoder.encode(out[start : start + MESSAGES_PER_FRAME])
                if len(payload) <= MAX_FRAME:
                    frames += _LENGTH.pack(len(payload))
                    frames += payload
                    continue
                for message in out[start : start + MESSAGES_PER_FRAME]:
                    payload = _encoder.encode([message])
                    frames += _LENGTH.pack(len(payload))
                    frames += payload
            self._backlog = frames
        pending = self._backlog
        if pending is None:
            return True
        if self.closed:
            self._backlog = None
            return True
        try:
            while pending:
                sent = self.sock.send(pending)
                if sent == len(pending):
                    break
                del pending[:sent]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._failed(error)
            self._backlog = None
            return True
        self._backlog = None
        return True

    def receive(self) -> list[M] | None:
        """Return the messages that have arrived, or None once the other side is gone.

        Raises:
            ProtocolError: the bytes are no messages of this link.
        """
        try:
            data = self.sock.recv(RECV_SIZE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            self._failed(error)
            return None
        if not data:
            return None
        buffer: bytes | bytearray
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        else:
            buffer = data
        messages: list[M] = []
        position, end = 0, len(buffer)
        with memoryview(buffer) as view:
            while end - position >= 4:
                (size,) = _LENGTH.unpack_from(view, position)
                if size > MAX_FRAME:
                    raise ProtocolError(f"frame of {size} bytes")
                if end - position - 4 < size:
                    break
                position += 4
                try:
                    decoded = self._decoder.decode(view[position : position + size])
                except (msgspec.MsgspecError, ValueError) as error:
                    raise ProtocolError(str(error)) from None
                messages = messages + decoded if messages else decoded
                position += size
        if buffer is data:
            if position < end:
                self._buffer += data[position:]
        else:
            del self._buffer[:position]
        return messages

    def close(self) -> None:
        """Close the socket; harmless when called again."""
        self.closed = True
        self.sock.close()
