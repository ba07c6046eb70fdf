"""``Trainable``: a training as a class, one step at a time."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.checkpoint import DICT_FILE, Checkpoint, PackedCheckpoint, pickled

if TYPE_CHECKING:
    from skate.tune.resources import PlacementGroupFactory
    from skate.tune.trial_context import TrialContext


class ExportFormat:
    """In which formats a ``Trainable`` may export what it has trained."""

    CHECKPOINT = "checkpoint"
    MODEL = "model"
    ONNX = "onnx"
    H5 = "h5"

    @classmethod
    def check(cls, formats: Sequence[Any] | str) -> list[str]:
        """Return formats as they are spelled here.

        Raises:
            ValueError: there is no such format.
        """
        known = (cls.CHECKPOINT, cls.MODEL, cls.ONNX, cls.H5)
        found = []
        for each in [formats] if isinstance(formats, str) else formats:
            spelled = each.strip().lower() if isinstance(each, str) else each
            if spelled not in known:
                raise ValueError(f"{each!r} is no export format: {', '.join(known)}")
            found.append(spelled)
        return found


class Trainable:
    """Base of trainings that are written as classes.

    Overwrite ``setup`` and ``step``; ``save_checkpoint`` and ``load_checkpoint`` too, so that a
    trial can be paused, cloned, and go on after a failure.  ``reset_config`` lets one object run
    one trial after another, ``_export_model`` writes what ``export_formats`` of the run asks for.

    All methods of one trial are called from one thread of the process that runs it.

    Args:
        config: the configuration.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = dict(config or {})
        self._iteration = 0
        self._time_total = 0.0
        self._context: TrialContext | None = None
        self._logdir: str | None = None
        # Set before ``setup``, which may ask for the trial.
        self._enter(getattr(_starting, "context", None))
        self.setup(dict(self.config))

    # ---------------------------------------------------------------- to overwrite

    def setup(self, config: dict[str, Any]) -> None:
        """Build what the steps need."""

    def step(self) -> dict[str, Any]:
        """Train for a while and return the result; ``done=True`` in it ends the trial."""
        raise NotImplementedError(f"{type(self).__name__} has to have a method step()")

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        """Return a dict to go on from, or write files into ``checkpoint_dir`` and return None."""
        raise NotImplementedError(
            f"{type(self).__name__} is to be saved, so that its trial can be paused, cloned or go"
            " on after a failure: it has to have the methods save_checkpoint and load_checkpoint"
        )

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from what ``save_checkpoint`` returned, or from the folder that it wrote to."""
        raise NotImplementedError(f"{type(self).__name__} has to have a method load_checkpoint()")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial; say whether that is possible.

        If it is not, the object is cleaned up, and another one is made.
        """
        return False

    def _export_model(self, export_formats: list[str], export_dir: str) -> dict[str, str]:
        """Write what was trained into ``export_dir``; return the path of each format."""
        return {}

    def cleanup(self) -> None:
        """Give everything back: the object is not used any more."""

    def log_result(self, result: dict[str, Any]) -> None:
        """Look at a result before it is reported."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory | None:
        """Return what a trial with ``config`` needs; None for one CPU, or what the run says."""
        return None

    # ---------------------------------------------------------------- to use

    @property
    def iteration(self) -> int:
        """How many steps lie behind it, those before its checkpoint included."""
        return self._iteration

    #: What else it is called.
    training_iteration = iteration

    @property
    def logdir(self) -> str:
        """The folder of the trial; a temporary one outside of runs."""
        if self._logdir is None:
            self._logdir = tempfile.mkdtemp(prefix="trainable_")
        return self._logdir

    @property
    def trial_id(self) -> str:
        """The id of the trial, "default" outside of runs."""
        return "default" if self._context is None else self._context.get_trial_id()

    @property
    def trial_name(self) -> str:
        """The name of the trial: its id, unless the run gives names; "default" outside of runs."""
        return "default" if self._context is None else self._context.get_trial_name()

    @property
    def trial_resources(self) -> PlacementGroupFactory | None:
        """What the trial was given to run with; None outside of runs."""
        return None if self._context is None else self._context.get_trial_resources()

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return self.config

    def train(self) -> dict[str, Any]:
        """Do one step and return its result, with the fields that every result has.

        Raises:
            TypeError: ``step`` did not return a dict.
        """
        began = time.monotonic()
        result = self.step()
        if not isinstance(result, dict):
            raise TypeError(
                f"{type(self).__name__}.step has to return a dict of metrics, got {result!r:.100}"
            )
        took = time.monotonic() - began
        self._iteration += 1
        self._time_total += took
        result = {
            "training_iteration": self._iteration,
            "time_this_iter_s": took,
            "time_total_s": self._time_total,
            **result,
        }
        self.log_result(result)
        return result

    def save(self, checkpoint_dir: str | os.PathLike[str] | None = None) -> str:
        """Write a checkpoint to a folder, a new one under ``logdir`` if None; return it.

        Raises:
            NotImplementedError: the class has no ``save_checkpoint``.
        """
        if checkpoint_dir is None:
            checkpoint_dir = Path(self.logdir, f"checkpoint_{self._iteration:06d}")
        self.pack().write(Path(checkpoint_dir))
        return os.fspath(checkpoint_dir)

    def restore(self, checkpoint: str | os.PathLike[str] | Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: there is none at this path.
            NotImplementedError: the class has no ``load_checkpoint``.
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        done = checkpoint.get_metadata()
        self._iteration = done.get("iteration", 0)
        self._time_total = done.get("time_total_s", 0.0)
        with checkpoint.as_directory() as folder:
            pickled = Path(folder, DICT_FILE)
            if pickled.exists():
                self.load_checkpoint(pickle.loads(pickled.read_bytes()))
            else:
                self.load_checkpoint(folder)

    def reset(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial; say whether that was possible."""
        if not self.reset_config(dict(new_config)):
            return False
        self.config = dict(new_config)
        self._iteration, self._time_total = 0, 0.0
        return True

    def export_model(
        self, export_formats: Sequence[str] | str, export_dir: str | os.PathLike[str] | None = None
    ) -> dict[str, str]:
        """Have ``_export_model`` write what was trained, and return what that does.

        Args:
            export_formats: such as "model" or "onnx"; several are a list.
            export_dir: the folder; ``logdir`` if None.

        Raises:
            ValueError: there is no such format.
        """
        formats = ExportFormat.check(export_formats)
        target = self.logdir if export_dir is None else os.fspath(export_dir)
        return self._export_model(formats, target)

    def stop(self) -> None:
        """Give everything back."""
        self.cleanup()

    # ---------------------------------------------------------------- for the run

    def pack(self) -> PackedCheckpoint:
        """Take a checkpoint.

        Raises:
            NotImplementedError: the class has no ``save_checkpoint``.
        """
        with tempfile.TemporaryDirectory(prefix="checkpoint_") as folder:
            saved = self.save_checkpoint(folder)
            packed = PackedCheckpoint.from_folder(Path(folder))
        if isinstance(saved, dict):
            packed.files[DICT_FILE] = pickled(saved)
        done = {"iteration": self._iteration, "time_total_s": self._time_total}
        return packed.with_metadata(done)

    def _enter(self, context: TrialContext | None) -> None:
        if context is not None:
            self._context = context
            self._logdir = context.get_trial_dir()


#: ``context``: the trial for which the calling thread makes an object.  It does not come as an
#: argument, because ``__init__`` belongs to the user.
_starting = threading.local()


def make(kind: type[Trainable], config: dict[str, Any], context: TrialContext) -> Trainable:
    """Return a new object for a trial."""
    _starting.context = context
    try:
        return kind(config)
    finally:
        _starting.context = None


def reuse(trainable: Trainable, config: dict[str, Any], context: TrialContext) -> bool:
    """Have an object run another trial; say whether it can."""
    trainable._enter(context)
    return trainable.reset(config)
