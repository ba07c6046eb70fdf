"""Where XGBoost keeps bins that are not to be in memory: a folder that goes when they do."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import weakref
from typing import Any

#: Removes a folder when its standard input ends, which it does however its parent ends.
_REMOVER = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


class CacheFolder:
    """A folder on a disk of this machine.

    It is removed when its owner is, or when this process ends: training actors are killed, and
    so another process has to do it.

    Args:
        parent: where to make it; None: where temporary files are.
    """

    def __init__(self, parent: str | None) -> None:
        self.path = tempfile.mkdtemp(prefix="skate-xgboost-", dir=parent)
        self._remover = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _REMOVER, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Whoever ends this process may end its group.
            start_new_session=True,
        )

    def belongs_to(self, owner: Any) -> None:
        """Remove it when this object is gone."""
        weakref.finalize(owner, self.remove)

    def remove(self) -> None:
        """Remove it now."""
        shutil.rmtree(self.path, ignore_errors=True)
        assert self._remover.stdin is not None
        self._remover.stdin.close()
        self._remover.wait()
