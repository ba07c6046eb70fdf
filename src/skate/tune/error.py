"""What goes wrong in a tuning run, as types."""

from __future__ import annotations

from skate.exceptions import SkateError, TaskError
from skate.tune.readable import text_of


class TuneError(SkateError):
    """A run could not go on, or some of its trials failed (see ``tune.run``)."""


def describe(error: BaseException | None) -> str:
    """Return what happened in one line, without the traceback: "ValueError: no such layer"."""
    if error is None:
        return ""
    shown = error
    if isinstance(error, TaskError):
        if error.cause is None:  # it could not be brought here: the traceback ends with it
            return str(error).strip().splitlines()[-1]
        shown = error.cause
    message = text_of(shown).strip().splitlines()
    name = type(shown).__name__
    # Where there is a note, it says what to do.
    notes = "".join(f" ({note.strip().splitlines()[0]})" for note in _notes(shown))
    return (f"{name}: {message[0]}" if message else name) + notes


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", [])
    return [note for note in notes if isinstance(note, str) and note.strip()]


class StorageError(TuneError, OSError):
    """A file of a run cannot be written or read; the message names it and says why.

    Attributes:
        path: path or URL of the file or folder.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class MetricError(TuneError, ValueError):
    """Trials do not report a metric that the run needs; the message names what they report."""
