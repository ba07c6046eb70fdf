"""What cannot be written while a run goes on.

A run outlives its storage: what trials reported stays in memory, and so does the newest checkpoint
of each, until they can be written.  The user is told once, and finds all errors in the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from skate.tune.error import StorageError

#: So many are remembered: a full disk fails thousands of writes in the same way.
REMEMBERED = 100


class Troubles:
    """Collects storage errors and warns of the first."""

    def __init__(self) -> None:
        self.errors: list[StorageError] = []

    def note(self, errors: Iterable[StorageError]) -> None:
        """Take errors."""
        for error in errors:
            if not self.errors:
                warnings.warn(
                    f"{error}; the run goes on, what cannot be written is kept in memory and tried"
                    " again. All such errors are in the result's storage_errors.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            if len(self.errors) < REMEMBERED:
                self.errors.append(error)
