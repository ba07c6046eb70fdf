"""The checkpoints of a run, seen from the driver: which are kept, and the thread that writes.

A checkpoint lies in shared memory as soon as it was reported.  What restores it gets its ref and
never waits for a disk; the writer brings it to the trial's folder meanwhile.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import skate
from skate.tune.checkpoint import PackedCheckpoint
from skate.tune.config import CheckpointConfig
from skate.tune.trial import TrialCheckpoint


def folder_name(number: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"checkpoint_{number:06d}"


def write_folder(packed: PackedCheckpoint, folder: Path) -> None:
    """Write a checkpoint so that ``folder`` is there with all of it or not at all.

    Raises:
        OSError: it cannot be written.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    packed.write(beside)
    for parent, _, names in os.walk(beside, topdown=False):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CheckpointKeeper:
    """Brings checkpoints to the folders of their trials, in a thread of its own.

    ``add`` and ``forget`` are called by the thread that runs the experiment; ``flush`` waits until
    everything is written.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config
        self._kept: dict[str, list[TrialCheckpoint]] = {}
        self._numbers: dict[str, int] = {}
        self._queue: queue.SimpleQueue[tuple[TrialCheckpoint, Path] | threading.Event | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        #: What went wrong while writing, in order.
        self.errors: list[OSError] = []

    def kept(self, trial_id: str) -> list[TrialCheckpoint]:
        """Return the checkpoints that are kept of a trial, oldest first."""
        return self._kept.get(trial_id, [])

    def add(self, trial_id: str, checkpoint: TrialCheckpoint, folder: Path | None) -> None:
        """Keep a checkpoint, and let go of those that are more than are wanted.

        Args:
            trial_id: whose it is.
            checkpoint: the newest of the trial.
            folder: the trial's; None if the run keeps no files.
        """
        checkpoint.number = self._numbers.get(trial_id, 0)
        self._numbers[trial_id] = checkpoint.number + 1
        kept = self._kept.setdefault(trial_id, [])
        # The one before is not the newest any more: its files are enough.
        for older in kept:
            if older.path is not None:
                older.ref = None
        kept.append(checkpoint)
        for surplus in self._surplus(kept):
            kept.remove(surplus)
            if surplus.path is not None:
                shutil.rmtree(surplus.path, ignore_errors=True)
        if folder is not None:
            self._start()
            self._queue.put((checkpoint, folder / folder_name(checkpoint.number)))

    def trial_ended(self, trial_id: str) -> None:
        """Give the memory of a trial back that will not run any more."""
        for checkpoint in self.kept(trial_id):
            if checkpoint.path is not None:
                checkpoint.ref = None

    def flush(self) -> None:
        """Wait until everything is written."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put(done)
            done.wait()

    def close(self) -> None:
        """Write the rest and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _surplus(self, kept: list[TrialCheckpoint]) -> list[TrialCheckpoint]:
        most = self._config.num_to_keep
        if most is None or len(kept) <= most:
            return []
        attribute = self._config.checkpoint_score_attribute
        if attribute is None:
            return kept[:-most]
        sign = 1.0 if self._config.checkpoint_score_order == "max" else -1.0

        def score(checkpoint: TrialCheckpoint) -> float:
            return sign * _number(checkpoint.metrics, attribute)

        # The newest one stays, whatever its score: the trial may have to go on from it.
        ranked = sorted(kept[:-1], key=score)
        return ranked[: len(kept) - most]

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._write, name="tune-checkpoints", daemon=True
            )
            self._thread.start()

    def _write(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, threading.Event):
                item.set()
                continue
            checkpoint, folder = item
            try:
                write_folder(skate.get(checkpoint.ref), folder)
            except OSError as error:
                self.errors.append(error)
            else:
                checkpoint.path = str(folder)


def _number(metrics: Mapping[str, Any], name: str) -> float:
    value = metrics.get(name)
    return float(value) if isinstance(value, (int, float)) else float("-inf")
