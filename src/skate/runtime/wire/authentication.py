"""Who may speak on a TCP connection: both ends prove that they know the cluster's token.

The client sends a random challenge, the server answers with one of its own, each end then sends
the HMAC of both challenges under the token, the client first: the server tells nothing to somebody
who does not know the token.  Only then is the first message read.  The part that an end plays goes
into its HMAC, so that nothing can be sent back to its sender as an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from skate.exceptions import SessionError
from skate.runtime.wire.connection import Connection, M, ProtocolError

#: What both ends begin with: the name of the protocol and its version.
MAGIC = b"skate/1\n"
CHALLENGE_SIZE = 32
TOKEN_SIZE = 32
#: An accepted connection that has not proved itself by then is closed, in seconds.
HANDSHAKE_SECONDS = 10.0

_GREETING_SIZE = len(MAGIC) + CHALLENGE_SIZE
_PROOF_SIZE = hashlib.sha256().digest_size


def write_token(path: str, token: bytes | None = None) -> bytes:
    """Write a token, a fresh one by default, to a new file that nobody else can read."""
    token = os.urandom(TOKEN_SIZE) if token is None else token
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(token.hex().encode() + b"\n")
    return token


def read_token(path: str) -> bytes:
    """Read a token.

    Raises:
        SessionError: the file cannot be read, others can read it, or it holds no token.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1024)
    except OSError as error:
        raise SessionError(f"cannot read the cluster's token {path}: {error.strerror}") from error
    if mode & 0o077:
        raise SessionError(
            f"others can read the cluster's token {path}: whoever knows it can run code in the "
            f"cluster; chmod 600 {path}"
        )
    try:
        token = bytes.fromhex(text.decode().strip())
    except ValueError:
        token = b""
    if len(token) != TOKEN_SIZE:
        raise SessionError(f"{path} holds no token of a cluster")
    return token


class Handshake:
    """One end of the exchange, without I/O."""

    def __init__(self, token: bytes, is_client: bool) -> None:
        self._token = token
        self._is_client = is_client
        self._challenge = os.urandom(CHALLENGE_SIZE)
        self._theirs = b""
        self._received = b""
        #: Both ends have proved themselves.
        self.done = False
        #: To be sent now.
        self.outgoing = MAGIC + self._challenge if is_client else b""

    @property
    def wanted(self) -> int:
        """How many bytes to read now: never more than belong to the handshake."""
        size = _PROOF_SIZE if self._theirs else _GREETING_SIZE
        return size - len(self._received)

    def feed(self, data: bytes) -> None:
        """Take in at most ``wanted`` bytes.

        Raises:
            ProtocolError: the other end does not speak this protocol, or not with our token.
        """
        self._received += data
        if not self._theirs and not MAGIC.startswith(self._received[: len(MAGIC)]):
            raise ProtocolError("it does not speak the protocol of a cluster")
        if self.wanted:
            return
        received, self._received = self._received, b""
        if not self._theirs:
            self._theirs = received[len(MAGIC) :]
            if self._is_client:
                self.outgoing += self._proof(True)
            else:
                self.outgoing += MAGIC + self._challenge
            return
        if not hmac.compare_digest(received, self._proof(not self._is_client)):
            raise ProtocolError("it does not know the token of this cluster")
        if not self._is_client:
            self.outgoing += self._proof(False)
        self.done = True

    def _proof(self, of_client: bool) -> bytes:
        first, second = self._challenge, self._theirs
        if not self._is_client:
            first, second = second, first
        part = b"client" if of_client else b"server"
        return hmac.digest(self._token, part + first + second, "sha256")


class AuthenticatedConnection(Connection[M]):
    """A connection whose messages wait until both ends have proved themselves."""

    __slots__ = ("_handshake", "_on_ready")

    def __init__(
        self,
        sock: socket.socket,
        decoder: msgspec.msgpack.Decoder[list[M]],
        token: bytes,
        is_client: bool,
        on_ready: Callable[[Connection[Any]], None],
    ) -> None:
        """``on_ready(connection)``: it is time to flush what was queued meanwhile."""
        super().__init__(sock, decoder)
        self._handshake: Handshake | None = Handshake(token, is_client)
        self._on_ready = on_ready

    @property
    def is_authenticated(self) -> bool:
        """Whether the other end has proved itself."""
        return self._handshake is None

    def flush(self) -> bool:
        """As in ``Connection``; before the other end has proved itself messages stay queued."""
        if self._handshake is None:
            return super().flush()
        return self._speak(self._handshake)

    def _speak(self, handshake: Handshake) -> bool:
        while handshake.outgoing:
            try:
                sent = self.sock.send(handshake.outgoing)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                # ``receive`` reports it.
                self._failed(error)
                return True
            handshake.outgoing = handshake.outgoing[sent:]
        return True

    def receive(self) -> list[M] | None:
        """As in ``Connection``.

        Raises:
            ProtocolError: the other end does not know the token, or sent no messages of this link.
        """
        handshake = self._handshake
        if handshake is None:
            return super().receive()
        try:
            data = self.sock.recv(handshake.wanted)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            self._failed(error)
            return None
        if not data:
            return None
        handshake.feed(data)
        # A few bytes to a socket that nothing waits in.
        if not self._speak(handshake):
            raise ProtocolError("it does not read what it is sent")
        if handshake.done:
            self._handshake = None
            self._on_ready(self)
        return []
