"""What the daemon and its zygote say to each other, and how: frames on a socket pair.

A frame is a 4-byte little-endian length and one MessagePack message.  File descriptors travel with
the first byte of a frame.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from skate.runtime.worker.config import WorkerConfig


class Fork(msgspec.Struct, tag=1, array_like=True):
    """Daemon: start a worker.  The write ends of its stdout and stderr come along."""

    config: WorkerConfig
    #: Not empty: it is no worker, but prepares the runtime environment of that name.
    build: bytes = b""


class Signal(msgspec.Struct, tag=2, array_like=True):
    """Daemon: send a signal to a worker and its group, unless it has ended."""

    pid: int
    number: int


class End(msgspec.Struct, tag=3, array_like=True):
    """Daemon: end all workers, politely for ``grace`` seconds, then by force, and exit."""

    grace: float


class Ready(msgspec.Struct, tag=4, array_like=True):
    """Zygote: everything is imported.  ``warnings`` tell of modules that could not be."""

    warnings: list[str]


class Forked(msgspec.Struct, tag=5, array_like=True):
    """Zygote: the worker runs, or (pid 0) could not be started because of ``error``."""

    worker_id: bytes
    pid: int
    error: str = ""


class Ended(msgspec.Struct, tag=6, array_like=True):
    """Zygote: a worker has ended with this status of ``waitpid``; its pid may be used anew."""

    pid: int
    status: int


ToZygote: TypeAlias = Fork | Signal | End
ToDaemon: TypeAlias = Ready | Forked | Ended

to_zygote_decoder: msgspec.msgpack.Decoder[ToZygote] = msgspec.msgpack.Decoder(ToZygote)
to_daemon_decoder: msgspec.msgpack.Decoder[ToDaemon] = msgspec.msgpack.Decoder(ToDaemon)
_encode = msgspec.msgpack.Encoder().encode
_LENGTH = struct.Struct("<I")


def encode(message: ToZygote | ToDaemon) -> bytes:
    """Return the frame of a message."""
    payload = _encode(message)
    return _LENGTH.pack(len(payload)) + payload


def split(buffer: bytearray) -> list[bytes]:
    """Take the complete frames off the front of ``buffer`` and return their payloads."""
    payloads = []
    while len(buffer) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(buffer)
        end = _LENGTH.size + size
        if len(buffer) < end:
            break
        payloads.append(bytes(buffer[_LENGTH.size : end]))
        del buffer[:end]
    return payloads


def send(sock: socket.socket, message: ToZygote | ToDaemon, fds: Sequence[int] = ()) -> None:
    """Send a message on a blocking socket.

    Raises:
        OSError: the other side is gone.
    """
    frame = encode(message)
    if fds:
        sent = socket.send_fds(sock, [frame], fds)
        frame = frame[sent:]
    if frame:
        sock.sendall(frame)


def receive(sock: socket.socket) -> tuple[ToZygote, list[int]] | None:
    """Wait for one message to the zygote; return it with its descriptors, or None at the end."""
    header, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 8)
    rest = _read(sock, _LENGTH.size - len(header)) if header else None
    if rest is None:
        return None
    (size,) = _LENGTH.unpack(header + rest)
    payload = _read(sock, size)
    return None if payload is None else (to_zygote_decoder.decode(payload), fds)


def _read(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
