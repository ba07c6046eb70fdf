"""The folder of a run on this machine, which belongs to one run at a time.

Two runs in one folder would write over each other's files.  So the log of a run (``run_log.py``)
is locked from before anything else is read or written there until all is written.  The kernel
takes the lock back however the process ends.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

from skate.tune.error import TuneError
from skate.tune.files import naming_files
from skate.tune.storage import LocalStorage, Storage, append_to

#: The log of a run, in its folder.
LOG_FILE = "run.jsonl"


class Claim:
    """A folder that is one run's until the ``with`` block is left.

    Args:
        path: the folder, which exists.

    Raises:
        TuneError: another run goes on there.
        StorageError: its log cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        log = path / LOG_FILE
        with naming_files("write", log):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self.descriptor = os.open(log, flags, 0o666)
        if not _lock(self.descriptor):
            os.close(self.descriptor)
            raise TuneError(
                f"another run goes on in {path}; give one of them another name, or none: then it"
                " gets a folder of its own"
            )

    def fetch_log(self, storage: Storage) -> None:
        """Have the log be that on the storage, of a run that is resumed here.

        Raises:
            StorageError: it cannot be read or written.
        """
        content = None if isinstance(storage, LocalStorage) else storage.read(LOG_FILE)
        if content is not None:
            with naming_files("write", self.path / LOG_FILE):
                os.ftruncate(self.descriptor, 0)
                append_to(self.descriptor, content)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)


def claim(folder: Path, name: str) -> Claim:
    """Claim the folder of a run that was given its name.

    Raises:
        TuneError: another run goes on there.
        StorageError: it cannot be made or written.
    """
    path = folder / name
    with naming_files("make", path):
        path.mkdir(parents=True, exist_ok=True)
    return Claim(path)


def claim_new(folder: Path, name: str) -> Claim:
    """Claim a new folder, called ``name`` with a number behind it if that is there already.

    Raises:
        StorageError: it cannot be made or written.
    """
    for number in itertools.count():
        path = folder / (f"{name}_{number}" if number else name)
        with naming_files("make", path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
        return Claim(path)
    raise AssertionError("there are enough numbers")


def _lock(descriptor: int) -> bool:
    """Lock the log of a run; say whether that was possible: no other run holds it."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who asks whether a run goes on shares the lock for an instant; a run shares it with
            # nobody.
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        except OSError:  # a file system without locks
            return True
        else:
            return True
