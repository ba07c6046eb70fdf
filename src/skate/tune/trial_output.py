"""What a trial prints, copied into files of its folder."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, TextIO

from skate.tune.session import current_output


class TrialOutput:
    """The files of one trial.  Within a ``with`` block they get what its threads print.

    Args:
        folder: of the trial.
        stdout: name of the file for standard output; None for none.
        stderr: the same for standard error; it may be the same file.

    Raises:
        OSError: one cannot be opened.
    """

    def __init__(self, folder: Path, stdout: str | None, stderr: str | None) -> None:
        self._files: dict[str, TextIO] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for stream, name in (("stdout", stdout), ("stderr", stderr)):
            if name is None:
                continue
            if stream == "stderr" and name == stdout:
                self._files[stream] = self._files["stdout"]
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole lines at once: trials are killed, and two streams may share a file.
            self._files[stream] = path.open("a", buffering=1, encoding="utf-8", errors="replace")

    def write(self, stream: str, text: str) -> None:
        """Write.  A full disk is told once, and ends no trial."""
        file = self._files.get(stream)
        if file is None:
            return
        try:
            file.write(text)
        except ValueError:  # closed a moment ago: the trial ended while its thread goes on
            return
        except OSError as error:
            self._files.pop(stream)
            message = f"what the trial prints is not written any more: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def __enter__(self) -> None:
        _install()

    def __exit__(self, *error: object) -> None:
        _uninstall()
        for file in self._files.values():
            with contextlib.suppress(OSError):  # of a full disk
                file.close()
        self._files.clear()


class _Copying(io.TextIOBase):
    """A standard stream that copies into the files of the trial that the calling thread runs.

    Threads decide, not the time: on the inline engine several trials share the process.
    """

    def __init__(self, name: str, stream: Any) -> None:
        self._name = name
        self.stream = stream

    def write(self, text: str) -> int:
        """Write to the stream and, within a trial, to its file."""
        written: int = self.stream.write(text)
        output = current_output()
        if output is not None:
            output.write(self._name, text)
        return written

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        descriptor: int = self.stream.fileno()
        return descriptor

    def isatty(self) -> bool:
        """Say whether the stream is a terminal."""
        return bool(self.stream.isatty())

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here, as it is in TextIOWrapper
        """The encoding of the stream."""
        return str(self.stream.encoding)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_lock = threading.Lock()
#: They are never let go: a thread that a trial left behind may be in the midst of ``print``, which
#: (before Python 3.13) holds no reference to the stream that it has found.
_copying: dict[str, _Copying] = {}
#: How many trials of this process are having their output copied.
_copied = 0


def _install() -> None:
    global _copied
    with _lock:
        _copied += 1
        if _copied == 1:
            for name in ("stdout", "stderr"):
                copying = _copying.setdefault(name, _Copying(name, None))
                copying.stream = getattr(sys, name)
                setattr(sys, name, copying)


def _uninstall() -> None:
    global _copied
    with _lock:
        _copied -= 1
        if _copied == 0:
            for name in ("stdout", "stderr"):
                copying = _copying[name]
                if getattr(sys, name) is copying:  # nobody has put another one there meanwhile
                    setattr(sys, name, copying.stream)
