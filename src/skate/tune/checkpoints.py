"""The checkpoints of a run, seen from the driver: which are kept, and the thread that writes.

A checkpoint lies in shared memory as soon as it was reported.  What restores it gets its ref and
never waits for a disk; the writer brings it to the trial's folder meanwhile.

The state of the run (``experiment_state.py``) names checkpoints, and goes through the same thread.
What the newest state on the storage names is not deleted before a newer state is there: whenever
the driver is killed, the state that is found names checkpoints that are found.
"""

from __future__ import annotations

import functools
import math
import queue
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import skate
from skate.exceptions import SkateError
from skate.tune.config import CheckpointConfig
from skate.tune.error import StorageError
from skate.tune.storage import Storage
from skate.tune.trial import Trial, TrialCheckpoint, flat_result


def checkpoint_name(trial_folder: str, number: int) -> str:
    """Return the name of a checkpoint's folder, relative to that of the run."""
    return f"{trial_folder}/checkpoint_{number:06d}"


class CheckpointKeeper:
    """Brings checkpoints to the folders of their trials, in a thread of its own.

    All methods are called by the thread that runs the experiment.

    One that cannot be written stays in memory as long as it is the newest of its trial, so the run
    goes on; it is tried once more when the trial ends.

    Args:
        config: which are kept.
        storage: the folder of the run.
    """

    def __init__(self, config: CheckpointConfig, storage: Storage) -> None:
        self._config = config
        self._storage = storage
        self._kept: dict[str, list[TrialCheckpoint]] = {}
        self._numbers: dict[str, int] = {}
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._errors: queue.SimpleQueue[StorageError] = queue.SimpleQueue()
        # What the newest state names that waits to be written: it has to be there before the state.
        self._promised: Collection[str] = ()
        # The thread's: what the state on the storage names, and what is to be deleted as soon as
        # another state is there.
        self._named: Collection[str] = ()
        self._doomed: set[str] = set()

    @property
    def at_end(self) -> bool:
        """Whether classes save a checkpoint when their trial ends."""
        return bool(self._config.checkpoint_at_end)

    def kept(self, trial_id: str) -> list[TrialCheckpoint]:
        """Return the checkpoints that are kept of a trial, oldest first."""
        return list(self._kept.get(trial_id, ()))

    def recall(self, trial_id: str, kept: list[TrialCheckpoint]) -> None:
        """Go on with the checkpoints that an earlier run has kept of a trial."""
        self._kept[trial_id] = list(kept)
        self._numbers[trial_id] = kept[-1].number + 1 if kept else 0

    def add(self, trial: Trial, checkpoint: TrialCheckpoint) -> None:
        """Keep a new checkpoint of a trial, and let go of those that are more than wanted."""
        checkpoint.number = self._numbers.get(trial.trial_id, 0)
        checkpoint.name = checkpoint_name(trial.folder, checkpoint.number)
        self._numbers[trial.trial_id] = checkpoint.number + 1
        kept = self._kept.setdefault(trial.trial_id, [])
        # Not the newest any more: their files are enough, if they have any.
        kept[:] = [older for older in kept if not older.failed]
        for older in kept[-1:]:
            older.release()
        kept.append(checkpoint)
        for surplus in self._surplus(kept):
            kept.remove(surplus)
            surplus.keep_files = False
            self._bring(surplus)
        if trial.is_finished:
            checkpoint.release()
        self._bring(checkpoint)

    def older(self, trial: Trial) -> TrialCheckpoint | None:
        """Return the newest checkpoint of a trial that has files; for one whose memory is lost."""
        for checkpoint in reversed(self._kept.get(trial.trial_id, [])):
            if checkpoint.path is not None:
                checkpoint.ref = None
                return checkpoint
        return None

    def trial_ended(self, trial: Trial) -> None:
        """Give the memory of a trial back that will not run any more."""
        kept = self._kept.get(trial.trial_id, [])
        for checkpoint in kept:
            checkpoint.release()
        if kept and kept[-1].failed:
            self._bring(kept[-1])
        if trial.checkpoint is not None and trial.checkpoint not in kept:
            # That of another trial, which it was cloned from.
            trial.checkpoint = kept[-1] if kept else None

    def write_state(self, write: Callable[[], None], named: Collection[str] | None) -> None:
        """Have the state of the run written, after the checkpoints before it.

        Args:
            write: does it.
            named: the checkpoints that the state names; None if it is no new state.
        """
        if named is not None:
            self._promised = named
        self._enqueue(functools.partial(self._write_state, write, named))

    def delete(self, name: str) -> None:
        """Have a checkpoint deleted that nobody has kept, before those to come are written."""
        self._enqueue(functools.partial(self._storage.delete, name))

    def do_later(self, job: Callable[[], None]) -> None:
        """Have the thread do something that nobody waits for; it may raise ``StorageError``."""
        self._enqueue(job)

    def take_errors(self) -> list[StorageError]:
        """Return what went wrong since the last call, in order."""
        taken = []
        while not self._errors.empty():
            taken.append(self._errors.get())
        return taken

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

    def _bring(self, checkpoint: TrialCheckpoint) -> None:
        self._enqueue(functools.partial(self._make_true, checkpoint))

    # ---------------------------------------------------------------- in the thread

    def _enqueue(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="tune-checkpoints", daemon=True)
            thread.start()
            self._thread = thread
        self._queue.put(job)

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                return
            try:
                job()
            except StorageError as error:
                self._errors.put(error)

    def _make_true(self, checkpoint: TrialCheckpoint) -> None:
        """Have a checkpoint's files be there, or not, as is wanted now."""
        name = checkpoint.name
        if not checkpoint.keep_files:
            if checkpoint.path is not None:
                if name in self._named:
                    self._doomed.add(name)
                else:
                    self._storage.delete(name)
                return
            if name not in self._promised:
                return
        ref = checkpoint.ref  # the other thread may let go of it
        if checkpoint.path is not None or ref is None:
            return
        checkpoint.failed = False
        try:
            self._storage.write_folder(name, skate.get(ref).files)
        except SkateError as error:
            checkpoint.failed = True
            if isinstance(error, StorageError):
                raise
            where = self._storage.where(name)
            raise StorageError(f"cannot write {where}: {error}", where) from error
        checkpoint.path = self._storage.where(name)
        if not checkpoint.keep_files and name in self._named:
            self._doomed.add(name)
        if not checkpoint.keep_ref:
            checkpoint.ref = None

    def _write_state(self, write: Callable[[], None], named: Collection[str] | None) -> None:
        write()
        if named is None:
            return
        self._named = named
        doomed, self._doomed = self._doomed, {name for name in self._doomed if name in named}
        for name in doomed - self._doomed:
            self._storage.delete(name)


def _number(metrics: Mapping[str, Any], name: str) -> float:
    value = flat_result(dict(metrics)).get(name)
    return float(value) if isinstance(value, (int, float)) else float("nan")
