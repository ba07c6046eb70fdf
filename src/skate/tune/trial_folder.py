"""The folder of a trial, as its process uses it: to work in, and for what it prints.

Trials that write ``model.pt`` are not to overwrite each other's.  So the process of a trial works
in the trial's folder, as in Ray Tune.  Where trials run in the driver's process (the inline
engine) nothing is changed: several of them share it with the driver.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import skate

if TYPE_CHECKING:
    from skate.tune.trial_output import TrialOutput

#: Names the folder that the process worked in before, for scripts that read relative paths from
#: there.  It is Ray's name.
_BEFORE = "TUNE_ORIG_WORKING_DIR"


@dataclass(frozen=True, slots=True)
class FolderUse:
    """What trials do with their folders.

    Attributes:
        driver: the id of the process that runs the experiment.
        enter: whether their processes work in them.
        stdout: the file for what they print, relative to the folder; None for none.
        stderr: the same for standard error.
    """

    driver: str = ""
    enter: bool = False
    stdout: str | None = None
    stderr: str | None = None

    def begin(self, folder: str | None) -> TrialOutput | None:
        """Have this process work in a trial's folder; return where what it prints is copied to.

        A folder that cannot be made is no reason to lose a trial: it goes on where it is, with a
        warning.
        """
        if folder is None:
            return None
        try:
            if self.enter and skate.get_runtime_context().get_worker_id() != self.driver:
                _enter(folder)
        except OSError as error:
            warnings.warn(
                f"the trial cannot use its folder {folder}: {error.strerror}; it works where its"
                " process did before",
                RuntimeWarning,
                stacklevel=2,
            )
        if self.stdout is None and self.stderr is None:
            return None
        from skate.tune.trial_output import TrialOutput

        try:
            return TrialOutput(Path(folder), self.stdout, self.stderr)
        except OSError as error:
            warnings.warn(
                f"what the trial prints is not written: {error.filename}: {error.strerror}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def explain(self, error: BaseException) -> None:
        """Have an error about a file that lies where the driver is say why it was not found."""
        before = os.environ.get(_BEFORE)
        name = getattr(error, "filename", None)
        if not self.enter or before is None or not isinstance(error, FileNotFoundError):
            return
        if isinstance(name, str) and not os.path.isabs(name) and Path(before, name).exists():
            error.add_note(
                f"it is in {before}, but trials work in their own folders: name it by its absolute"
                " path, or set SKATE_CHDIR_TO_TRIAL_DIR=0 in the environment of the driver"
            )


def _enter(folder: str) -> None:
    """Change the working directory.

    What the trial has still to import is found where it was found before: entries of ``sys.path``
    that are relative ("" in notebooks and with ``python -c``) mean the folder so far.
    """
    os.makedirs(folder, exist_ok=True)
    os.environ.setdefault(_BEFORE, os.getcwd())
    sys.path[:] = [entry if os.path.isabs(entry) else os.path.abspath(entry) for entry in sys.path]
    os.chdir(folder)
