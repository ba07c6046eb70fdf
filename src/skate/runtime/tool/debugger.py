"""The other side of a breakpoint: shows what the pdb in a task says, and sends it lines."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from skate.exceptions import SessionError
from skate.runtime.wire.connection import Connection, ProtocolError
from skate.runtime.wire.debug import (
    DebugComplete,
    DebugCompletions,
    DebugEnd,
    DebugLine,
    DebugOutput,
    DebugPrompt,
    debug_decoder,
)

#: How often a prompt is interrupted until it ends, in seconds.
INTERRUPT_SECONDS = 0.3
#: And how often at most.
INTERRUPTS = 20
#: A worker answers a request for completions within so many seconds, unless a property of some
#: object takes longer.
COMPLETE_SECONDS = 2.0


class DebuggerClient:
    """A connection to a task that stands at a breakpoint.  Closing it lets the task go on."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            SessionError: The task waits no more.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            raise SessionError(
                f"the breakpoint at {address} waits no more ({error}): another debugger has"
                " attached to it, or the task or its session has ended"
            ) from error
        self._connection: Connection[Any] = Connection(sock, debug_decoder)
        self._inbox: list[Any] = []
        self._interrupt = False

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def talk(
        self,
        read: Callable[[str], str],
        write: Callable[[str], object],
        *,
        interrupt: bool = False,
    ) -> str:
        """Show output and send lines until it is over; return why.

        Args:
            read: Shows a prompt and returns a line; raises EOFError to leave, KeyboardInterrupt to
                give up the line.
            write: Shows text.
            interrupt: Send this thread SIGINT if it is over while ``read`` waits for a line.  Only
                for programs that do nothing else: the signal may come a little late.
        """
        self._interrupt = interrupt
        try:
            while True:
                message = self._next(None)
                if isinstance(message, DebugOutput):
                    write(message.text)
                elif isinstance(message, DebugPrompt):
                    self._send(DebugLine(self._read(read, write, message.text)))
                elif isinstance(message, DebugEnd):
                    return message.reason
                elif message is None:
                    return "the task has ended, or its session"
        except (EOFError, KeyboardInterrupt):
            return "detached; the task goes on"
        finally:
            self.close()

    def _read(self, read: Callable[[str], str], write: Callable[[str], object], prompt: str) -> str:
        while True:
            try:
                with self._watched():
                    return read(prompt)
            except KeyboardInterrupt:
                if self._is_over():
                    write("\n")
                    return ""
                write("\n")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Interrupt the prompt when the task ends meanwhile: nothing else wakes a thread that
        reads from a terminal."""
        if not self._interrupt:
            yield
            return
        read, write = os.pipe()
        reader = threading.get_ident()

        def watch() -> None:
            poll = select.poll()
            poll.register(self._connection, select.POLLRDHUP | select.POLLHUP)
            poll.register(read, select.POLLIN)
            if any(fd == read for fd, _ in poll.poll()):
                return
            # Again and again: one that comes before the reader waits in the kernel is lost on it.
            for _ in range(INTERRUPTS):
                signal.pthread_kill(reader, signal.SIGINT)
                if select.select([read], [], [], INTERRUPT_SECONDS)[0]:
                    return

        thread = threading.Thread(target=watch, name="skate-debug", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.write(write, b"x")
            thread.join()
            os.close(read)
            os.close(write)

    def _is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP | select.POLLHUP)
        return bool(poll.poll(0))

    def complete(self, text: str) -> list[str]:
        """Return what ``text`` can be completed to."""
        self._send(DebugComplete(text))
        message = self._next(COMPLETE_SECONDS)
        if isinstance(message, DebugCompletions):
            return message.found
        if message is not None:
            self._inbox.insert(0, message)
        return []

    def _send(self, message: object) -> None:
        self._connection.send(message)
        while not self._connection.flush():
            select.select([], [self._connection], [], 1.0)

    def _next(self, timeout: float | None) -> Any:
        """Return the next message; None at the end, or when the time is over."""
        while not self._inbox:
            if not select.select([self._connection], [], [], timeout)[0]:
                return None
            try:
                messages = self._connection.receive()
            except ProtocolError as error:
                raise SessionError(
                    f"the task speaks another version of the debugger's protocol ({error}):"
                    " use the Skate that started its session"
                ) from error
            if messages is None:
                return None
            self._inbox += messages
        return self._inbox.pop(0)
