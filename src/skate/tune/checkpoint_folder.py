"""Checkpoints the way functions made them in 2022: folders.

def train(config, checkpoint_dir=None):
    step = int(open(os.path.join(checkpoint_dir, "step")).read()) if checkpoint_dir else 0
    while step < 10:
        step += 1
        with tune.checkpoint_dir(step) as folder:
            open(os.path.join(folder, "step"), "w").write(str(step))
        tune.report(loss=1 / step)
"""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from skate.tune.checkpoint import Checkpoint
from skate.tune.session import get_checkpoint, save_with_next_report

PARAMETER = "checkpoint_dir"


@contextlib.contextmanager
def checkpoint_dir(step: int | None = None) -> Iterator[str]:
    """Give a folder to write to; what is in it is the checkpoint of the next ``tune.report``.

    Args:
        step: ignored: checkpoints are counted.

    Raises:
        OSError: the folder cannot be written, or not be read afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="checkpoint_") as folder:
        yield folder
        save_with_next_report(Checkpoint.from_directory(folder))


def takes_checkpoint_dir(function: Callable[..., Any]) -> bool:
    """Say whether a function wants to know the folder that it goes on from."""
    if inspect.isclass(function):
        return False
    try:
        return PARAMETER in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in
        return False


def call(function: Callable[..., Any], config: dict[str, Any], **parameters: Any) -> Any:
    """Call a function that takes ``checkpoint_dir`` with the folder of the trial's checkpoint."""
    checkpoint = get_checkpoint()
    if checkpoint is None:
        return function(config, **{PARAMETER: None, **parameters})
    folder = checkpoint.path  # it lasts as long as the session, which has the checkpoint
    return function(config, **{PARAMETER: folder, **parameters})


class WithCheckpointDir:
    """A function of one configuration, made of one that takes ``checkpoint_dir`` too."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.__name__ = name
        self._function = function

    def __call__(self, config: dict[str, Any]) -> Any:
        return call(self._function, config)
