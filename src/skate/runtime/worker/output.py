"""What user code prints in a worker, on its way to the driver.

Standard output and error of a worker are pipes that the daemon reads.  Which task or actor prints
is said in the stream itself, so that it stays in order: a marker line before the first output after
a change of name.
"""

from __future__ import annotations

import io
from typing import Any, TextIO

#: Begins a marker line; the daemon strips it.
MARKER = "\x1fskate-name:"


class NamedOutput(io.TextIOBase):
    """A text stream that announces the current name before output under it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._announced = ""
        self.name = ""
        #: Whether there is a line without an end: it has to be flushed.
        self.pending = False

    def write(self, text: str) -> int:
        """Write text, after a marker if the name has changed."""
        if self.name != self._announced and text:
            self._announced = self.name
            self._stream.write(f"{MARKER}{self.name}\n")
        self.pending = not text.endswith("\n")
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush the pipe."""
        self.pending = False
        self._stream.flush()

    def fileno(self) -> int:
        """Return the pipe's descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return False: the driver's terminal is elsewhere."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here, as it is in TextIOWrapper
        """The pipe's encoding."""
        return self._stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
