"""A tool's link to the daemon of a running session: questions and answers, one at a time."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from skate.exceptions import NodeDiedError, SessionError
from skate.ids import new_process_id
from skate.runtime.node.config import Paths
from skate.runtime.tool.sessions import find
from skate.runtime.wire.connection import Connection, ProtocolError, node_decoder
from skate.runtime.wire.logs import LogRange
from skate.runtime.wire.messages import (
    Hello,
    Register,
    Registered,
    StateAnswer,
    StateRequest,
)
from skate.runtime.wire.parts import PROTOCOL_VERSION
from skate.runtime.wire.state import Filter, Inspect, Inspection

M = TypeVar("M")

#: The daemon answers what it knows itself within so many seconds, unless it hangs.
ANSWER_SECONDS = 30.0


class Attached:
    """A tool's link to one session.  Not thread safe.

    Leaving it as a context manager closes the link; the session goes on.
    """

    def __init__(self, directory: str) -> None:
        """Attach to the session of that directory.

        Raises:
            SessionError: Nobody answers there, or it speaks another version.
        """
        self.directory = directory
        self._process_id = new_process_id()
        self._number = 0
        self._inbox: list[Any] = []
        address = Paths(directory).node_socket
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            raise SessionError(
                f"cannot attach to the session at {directory}: {error}; it may have just ended"
            ) from error
        self._connection: Connection[Any] = Connection(sock, node_decoder)
        try:
            self._send(Hello(self._process_id, os.getpid(), ""), Register("tool", ""))
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        try:
            hello: Hello = self._wait(Hello, ANSWER_SECONDS)
            if hello.version != PROTOCOL_VERSION:
                raise SessionError(
                    f"the session at {self.directory} speaks version {hello.version} of the"
                    f" protocol, this Skate version {PROTOCOL_VERSION}: use the one that started it"
                )
            #: What the session said of itself.
            self.registered: Registered = self._wait(Registered, ANSWER_SECONDS)
        except NodeDiedError as error:
            raise SessionError(
                f"the session at {self.directory} has closed the connection: it has just ended, or"
                " another version of Skate has started it (its log, logs/node.log, says which)"
            ) from error

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach."""
        self._connection.close()

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return rows of the daemon's own tables; see ``StateRequest``.

        Raises:
            SessionError: The session has ended.
        """
        self._number += 1
        self._send(StateRequest(self._number, what))
        answer: StateAnswer = self._wait(StateAnswer, ANSWER_SECONDS, self._number)
        rows: list[dict[str, Any]] = answer.rows
        return rows

    def inspect(
        self,
        what: str,
        limit: int,
        filters: Sequence[Filter],
        timeout: float,
        processes: Sequence[bytes],
        log: LogRange | None = None,
    ) -> Inspection:
        """Ask the processes of the session; see ``Inspect``.

        Raises:
            SessionError: The session has ended.
        """
        self._number += 1
        self._send(Inspect(self._number, what, limit, list(filters), timeout, list(processes), log))
        return self._wait(Inspection, timeout + ANSWER_SECONDS, self._number)

    def _send(self, *messages: object) -> None:
        for message in messages:
            self._connection.send(message)
        while not self._connection.flush():
            select.select([], [self._connection], [], 1.0)

    def _wait(self, kind: type[M], seconds: float, number: int = 0) -> M:
        deadline = time.monotonic() + seconds
        while True:
            for index, message in enumerate(self._inbox):
                if isinstance(message, kind) and (
                    not number or getattr(message, "request_id", 0) == number
                ):
                    del self._inbox[: index + 1]
                    return message
            left = deadline - time.monotonic()
            if left <= 0:
                raise SessionError(
                    f"the daemon of the session at {self.directory} has not answered for"
                    f" {seconds:g} s"
                )
            if not select.select([self._connection], [], [], left)[0]:
                continue
            try:
                messages = self._connection.receive()
            except ProtocolError as error:
                raise SessionError(
                    f"the session at {self.directory} speaks another version of the protocol"
                    f" ({error}): use the Skate that started it"
                ) from error
            if messages is None:
                raise NodeDiedError(f"the session at {self.directory} has ended")
            self._inbox += messages


def attach(address: str | None = None) -> Attached:
    """Attach to a running session; see ``find`` for what ``address`` may be.

    Raises:
        SessionError: There is no such session.
    """
    return Attached(find(address).directory)
