"""The store link: requests for segments, answered one at a time, descriptors attached.

The client blocks for each answer.  The daemon receives with ``Connection`` and
``request_decoder``, and answers with ``send_answer``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import msgspec

from skate.runtime.wire.connection import MAX_FRAME, ProtocolError
from skate.runtime.wire.messages import Hello, SegmentAnswer, StoreRequest

_LENGTH = struct.Struct("<I")
_FD = struct.Struct("@i")
_FD_SPACE = socket.CMSG_LEN(_FD.size)
#: ``socket.recv_fds`` would ignore this flag, and a descriptor would leak into programs the user
#: starts.
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_encoder = msgspec.msgpack.Encoder()

#: What a daemon decodes the client's frames with.
request_decoder: msgspec.msgpack.Decoder[list[Hello | StoreRequest]] = msgspec.msgpack.Decoder(
    list[Hello | StoreRequest]
)
_answer_decoder: msgspec.msgpack.Decoder[list[Hello | SegmentAnswer]] = msgspec.msgpack.Decoder(
    list[Hello | SegmentAnswer]
)


def _frame(message: msgspec.Struct) -> bytes:
    payload = _encoder.encode([message])
    return _LENGTH.pack(len(payload)) + payload


def send_answer(sock: socket.socket, answer: SegmentAnswer, fd: int | None) -> None:
    """Send one answer, and a duplicate of ``fd`` with it.

    Works on non-blocking sockets too: a client that waits for its answer has an empty buffer.

    Raises:
        OSError: the client is gone, or does not read its answers; close the connection.
    """
    frame = _frame(answer)
    sent = sock.send(frame) if fd is None else socket.send_fds(sock, [frame], [fd])
    if sent != len(frame):
        raise OSError("the client does not read its answers")


class StoreLink:
    """The client's end.  Not thread safe."""

    def __init__(self, address: str, process_id: bytes) -> None:
        """Connect to the daemon's store socket at path ``address``.

        Raises:
            OSError: nobody listens there.
        """
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray()
        try:
            self._sock.connect(address)
            self._sock.sendall(_frame(Hello(process_id, os.getpid(), "")))
        except BaseException:
            self._sock.close()
            raise

    def request(self, message: StoreRequest) -> tuple[SegmentAnswer, int | None]:
        """Send a request and return its answer, with the descriptor that came along.

        Raises:
            OSError: the daemon is gone.
            ProtocolError: it sent something else than an answer.
        """
        self._sock.sendall(_frame(message))
        fds: list[int] = []
        try:
            while True:
                for answer in self._decode():
                    if isinstance(answer, SegmentAnswer):
                        return answer, fds.pop() if fds else None
                data, ancillary, _, _ = self._sock.recvmsg(4096, _FD_SPACE, _CLOEXEC)
                for level, kind, payload in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        fds += _FD.unpack(payload[: _FD.size])
                if not data:
                    raise ConnectionResetError("the node daemon closed the store connection")
                self._buffer += data
        finally:
            for fd in fds:
                os.close(fd)

    def _decode(self) -> list[Hello | SegmentAnswer]:
        """Return the messages of the first complete frame in the buffer, if there is one."""
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return []
        (size,) = _LENGTH.unpack_from(buffer)
        if size > MAX_FRAME:
            raise ProtocolError(f"frame of {size} bytes")
        end = _LENGTH.size + size
        if len(buffer) < end:
            return []
        payload = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        try:
            return _answer_decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolError(str(error)) from None

    def interrupt(self) -> None:
        """Make a request that waits in another thread fail."""
        with contextlib.suppress(OSError):  # it is closed already
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; harmless when called again."""
        self._sock.close()
