"""What workers print: from their pipes to the log file and, in bounded amounts, to the driver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from skate.runtime.wire.messages import LogLines

#: Begins a line by which a worker names the task or actor that prints from there on.
MARKER = b"\x1fskate-name:"
#: Bytes of a line that the driver is sent; the log file has all of it.
MAX_LINE = 16 * 1024
#: Reads from a pipe whose worker has ended: more than a pipe holds (64 KiB, or 1 MiB if enlarged).
LAST_READS = 64
#: Bytes of one read of a pipe.
READ_SIZE = 64 * 1024
#: A log file that has grown to this many bytes becomes ``<name>.1``, and a new one begins.
MAX_FILE = 64 * 1024 * 1024
#: Bytes of output on their way to a driver that does not read before lines are left out.
MAX_IN_FLIGHT = 4 * 1024 * 1024

Forward = Callable[[LogLines], None]


class Piece(NamedTuple):
    """Part of a stream: a line, or one of several pieces of a long one."""

    name: str
    text: bytes
    begins_line: bool
    ends_line: bool


class LineSplitter:
    """Cuts one stream into lines and takes the markers out.  No I/O."""

    def __init__(self) -> None:
        self._name = ""
        self._partial = b""
        #: Part of the current line was emitted already.
        self._inside = False

    def feed(self, data: bytes) -> list[Piece]:
        """Return the lines that are complete now, and the beginnings of overlong ones."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        pieces = [piece for line in lines for piece in self._line(line)]
        if len(self._partial) > MAX_LINE:
            pieces.append(self._piece(self._partial, ends=False))
            self._partial = b""
        return pieces

    def finish(self) -> list[Piece]:
        """Return what is left at the end of the stream."""
        partial, self._partial = self._partial, b""
        return list(self._line(partial)) if partial else []

    def _line(self, line: bytes) -> Iterator[Piece]:
        text, marker, name = line.partition(MARKER)
        if not marker or text or self._inside:
            yield self._piece(text, ends=True)
        if marker:
            self._name = name.decode("utf-8", "replace")

    def _piece(self, text: bytes, ends: bool) -> Piece:
        begins, self._inside = not self._inside, not ends
        return Piece(self._name, text, begins, ends)


class LogFile:
    """A file that is made when the first bytes come, and starts anew when it is large."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append; a full disk loses output, not the daemon."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, 0o600)
            os.write(self._fd, data)
            self._size += len(data)
            if self._size > MAX_FILE:
                os.rename(self.path, self.path + ".1")
                self.close()

    def close(self) -> None:
        """Close the file; a later ``write`` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._size = 0


class Pipe:
    """The reading end of one stream of a worker."""

    def __init__(self, fd: int, stream: int, output: WorkerOutput) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        #: 1 stdout, 2 stderr.
        self.stream = stream
        self.splitter = LineSplitter()
        self._output = output

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self.fd

    def read(self) -> bool | None:
        """Handle one read; return None at the end, False if nothing is there now, else True."""
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if not data:
            return None
        self._output.emit(self.stream, self.splitter.feed(data))
        return True

    def close(self) -> None:
        """Emit what is left and close."""
        if self.fd >= 0:
            self._output.emit(self.stream, self.splitter.finish())
            os.close(self.fd)
            self.fd = -1


class WorkerOutput:
    """Both streams of one worker."""

    def __init__(self, path: str, stdout: int, stderr: int, forward: Forward) -> None:
        """Take over the reading ends; ``forward`` is given what the driver should see."""
        self.file = LogFile(path)
        self.pipes = [Pipe(stdout, 1, self), Pipe(stderr, 2, self)]
        self.pid = 0
        self._forward = forward

    def emit(self, stream: int, pieces: list[Piece]) -> None:
        """Write pieces to the file and forward them, consecutive lines of one name together."""
        if not pieces:
            return
        self.file.write(b"".join(p.text + b"\n" if p.ends_line else p.text for p in pieces))
        message: LogLines | None = None
        for piece in pieces:
            if not piece.begins_line:
                continue
            if message is None or message.name != piece.name:
                message = LogLines(self.pid, piece.name, stream, [])
                self._forward(message)
            message.lines.append(_visible(piece))

    def close(self) -> None:
        """Take what the pipes still hold, then close everything.

        What the worker wrote fits into the pipes; a process that it left behind may go on writing.
        """
        for pipe in self.pipes:
            for _ in range(LAST_READS):
                if pipe.fd < 0 or not pipe.read():
                    break
            pipe.close()
        self.pipes = []  # they refer to us
        self.file.close()


class Forwarder:
    """Bounds what is on its way to the driver: lines are left out, and counted, when it lags."""

    def __init__(self, send: Forward) -> None:
        self._send = send
        self._batch: list[LogLines] = []
        self._in_flight = 0
        self._left_out = 0

    def forward(self, message: LogLines) -> None:
        """Take a message; its lines may still grow until ``flush``."""
        self._batch.append(message)

    def flush(self) -> None:
        """Send what was collected, or leave it out."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        for message in batch:
            size = sum(map(len, message.lines)) + 8 * len(message.lines)
            if self._in_flight + size > MAX_IN_FLIGHT:
                self._left_out += len(message.lines)
                continue
            if self._left_out:
                text = f"[{self._left_out} lines left out here, see the logs of the workers]"
                self._send(LogLines(message.pid, message.name, 2, [text]))
                self._left_out = 0
            self._in_flight += size
            self._send(message)

    def caught_up(self) -> None:
        """Everything that was sent has left."""
        self._in_flight = 0


def _visible(piece: Piece) -> str:
    """Return a line as a terminal would show it at last: what follows the last carriage return."""
    text = piece.text.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    cut = not piece.ends_line or len(text) > MAX_LINE
    return text[:MAX_LINE] + " [cut here]" if cut else text
