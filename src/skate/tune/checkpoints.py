"""The checkpoints of a run, seen from the driver: which are kept, and the thread that writes.

A checkpoint lies in shared memory as soon as it was reported.  What restores it gets its ref and
never waits for a disk; the writer brings it to the trial's folder meanwhile.
"""

from __future__ import annotations

import math
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
from skate.tune.trial import Trial, TrialCheckpoint, flat_result


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

    All methods are called by the thread that runs the experiment.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config
        self._kept: dict[str, list[TrialCheckpoint]] = {}
        self._numbers: dict[str, int] = {}
        self._queue: queue.SimpleQueue[tuple[TrialCheckpoint, Path] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: What went wrong while writing, in order.
        self.errors: list[OSError] = []

    @property
    def at_end(self) -> bool:
        """Whether classes save a checkpoint when their trial ends."""
        return bool(self._config.checkpoint_at_end)

    def kept(self, trial_id: str) -> list[TrialCheckpoint]:
        """Return the checkpoints that are kept of a trial, oldest first."""
        return list(self._kept.get(trial_id, ()))

    def add(self, trial: Trial, checkpoint: TrialCheckpoint) -> None:
        """Keep a new checkpoint of a trial, and let go of those that are more than wanted."""
        folder = trial.local_path
        checkpoint.number = self._numbers.get(trial.trial_id, 0)
        self._numbers[trial.trial_id] = checkpoint.number + 1
        kept = self._kept.setdefault(trial.trial_id, [])
        if kept:
            # It is not the newest any more: its files are enough.
            kept[-1].release()
        kept.append(checkpoint)
        for surplus in self._surplus(kept):
            kept.remove(surplus)
            surplus.keep_files = False
            if folder is not None:
                self._enqueue(surplus, folder)
        if trial.is_finished:
            checkpoint.release()
        if folder is not None:
            self._enqueue(checkpoint, folder)

    def trial_ended(self, trial: Trial) -> None:
        """Give the memory of a trial back that will not run any more."""
        kept = self._kept.get(trial.trial_id, [])
        for checkpoint in kept:
            checkpoint.release()
        if trial.checkpoint is not None and trial.checkpoint not in kept:
            # That of another trial, which it was cloned from.
            trial.checkpoint = kept[-1] if kept else None

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
            value = sign * _number(checkpoint.metrics, attribute)
            return -math.inf if math.isnan(value) else value

        # The newest one stays, whatever its score: the trial may have to go on from it.
        ranked = sorted(kept[:-1], key=score)
        return ranked[: len(kept) - most]

    def _enqueue(self, checkpoint: TrialCheckpoint, folder: Path) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tune-checkpoints", daemon=True)
            self._thread.start()
        self._queue.put((checkpoint, folder / folder_name(checkpoint.number)))

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            try:
                self._bring(*item)
            except OSError as error:
                self.errors.append(error)

    def _bring(self, checkpoint: TrialCheckpoint, folder: Path) -> None:
        """Have a checkpoint's files be there, or not, as is wanted now."""
        if not checkpoint.keep_files:
            if checkpoint.path is not None:
                shutil.rmtree(folder, ignore_errors=True)
        elif checkpoint.path is None:
            write_folder(skate.get(checkpoint.ref), folder)
            checkpoint.path = str(folder)
            if not checkpoint.keep_ref:
                checkpoint.ref = None


def _number(metrics: Mapping[str, Any], name: str) -> float:
    value = flat_result(dict(metrics)).get(name)
    return float(value) if isinstance(value, (int, float)) else float("nan")
