"""Writes the state of a run while it goes on, so that it can be resumed however it ends."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skate.tune.callback import Callback, states_of
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.experiment_state import STATE_FILE, SUMMARY_FILE, TUNER_FILE, Encoded, Encoder
from skate.tune.files import ResultFiles
from skate.tune.orchestrator import Orchestrator
from skate.tune.storage import LocalStorage, Storage
from skate.tune.trial import Trial
from skate.tune.troubles import Troubles

#: The state is written at most every so many seconds, on a disk and elsewhere: a driver that is
#: killed has to repeat so much.
LOCAL_S = 1.0
REMOTE_S = 10.0
#: Encoding it takes at most this share of the driver's time.
MOST_OF_TIME = 0.04


class StateWriter(Callback):
    """Has the state encoded by the thread that runs the experiment, and written by another.

    Of a run whose storage is remote, the files of the trials are on this machine; those that have
    changed are sent along, before the state.

    Args:
        storage: the folder of the run.
        folder: where the files of its trials are written.
        keeper: knows the checkpoints, and has the thread.
        files: writes what trials report; it does so before the state is written.
        troubles: where errors go.
        tuner: what the run was started with, encoded; None if that cannot be pickled.
        callbacks: of the user, who may want something saved.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        folder: Path,
        keeper: CheckpointKeeper,
        files: ResultFiles,
        troubles: Troubles,
        tuner: bytes | None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._storage = storage
        self._keeper = keeper
        self._files = files
        self._troubles = troubles
        self._tuner = tuner
        self._callbacks = callbacks
        self._encoder = Encoder(name)
        self._orchestrator: Orchestrator | None = None
        remote = not isinstance(storage, LocalStorage)
        self._mirror = Mirror(folder, storage) if remote else None
        self._pause_s = REMOTE_S if remote else LOCAL_S
        self._next = 0.0
        self._writing = False
        self._final = False
        #: Whether the run can be resumed: a searcher, say, may be something that cannot be pickled.
        self._possible = True

    def setup(self, **info: Any) -> None:
        """Write the first state: a storage that does not work is found before a trial starts.

        Raises:
            StorageError: it cannot be written.
        """
        self._orchestrator = info["orchestrator"]
        if self._tuner is not None:
            self._storage.write(TUNER_FILE, self._tuner)
        encoded = self._encode()
        if encoded is None:
            self._storage.write(SUMMARY_FILE, b"{}\n")
        else:
            self._write(encoded)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Write the state if the last one is old enough."""
        self._troubles.note(self._keeper.take_errors())
        if not self._writing and info["now"] >= self._next:
            self._save()

    def on_experiment_ending(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the state as it is, if the run is to go on from here one day."""
        if info["end_reason"] in ("interrupted", "fail_fast"):
            self._save()
            self._final = True

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Write the state for the last time."""
        if not self._final:
            self._save()
        elif self._mirror is not None:
            self._keeper.write_state(self._mirror.send, None)

    def _save(self) -> None:
        self._files.flush()
        began = time.monotonic()
        encoded = self._encode()
        now = time.monotonic()
        self._next = now + max(self._pause_s, (now - began) / MOST_OF_TIME)
        if encoded is None:
            if self._mirror is not None:
                self._keeper.write_state(self._mirror.send, None)
            return
        self._writing = True
        self._keeper.write_state(lambda: self._write(encoded), encoded.named)

    def _encode(self) -> Encoded | None:
        orchestrator = self._orchestrator
        if not self._possible or orchestrator is None:
            return None
        kept = {trial.trial_id: self._keeper.kept(trial.trial_id) for trial in orchestrator.trials}
        try:
            return self._encoder.encode(orchestrator, kept, states_of(self._callbacks))
        except Exception as error:  # whatever pickling the user's objects raises
            self._possible = False
            warnings.warn(
                f"this run cannot be resumed, its state cannot be saved: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def _write(self, encoded: Encoded) -> None:
        try:
            if self._mirror is not None:
                self._mirror.send()
            self._storage.write(STATE_FILE, encoded.state)
            self._storage.write(SUMMARY_FILE, encoded.summary)
        finally:
            self._writing = False


class Mirror:
    """Sends the files of a local folder to a storage, those that have changed."""

    def __init__(self, folder: Path, storage: Storage) -> None:
        self._folder = LocalStorage(folder)
        self._storage = storage
        self._sent: dict[str, tuple[int, int]] = {}

    def send(self) -> None:
        """Send.

        Raises:
            StorageError: a file cannot be read or sent.
        """
        for name in self._folder.files():
            try:
                status = Path(self._folder.where(name)).stat()
            except FileNotFoundError:  # deleted a moment ago
                continue
            looks = (status.st_mtime_ns, status.st_size)
            if self._sent.get(name) == looks:
                continue
            content = self._folder.read(name)
            if content is not None:
                self._storage.write(name, content)
                self._sent[name] = looks
