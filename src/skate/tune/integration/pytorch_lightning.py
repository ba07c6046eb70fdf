"""Trials that train with PyTorch Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skate.tune.integration._training import TrainingReport, hooks
from skate.util._scores import Metrics

if TYPE_CHECKING:
    Callback = Any
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError as error:
            raise ImportError(
                "skate.tune.integration.pytorch_lightning needs PyTorch Lightning:"
                " pip install lightning"
            ) from error

__all__ = ["TuneCallback", "TuneReportCallback", "TuneReportCheckpointCallback"]

_HOOKS = [
    name for name, _ in inspect.getmembers(Callback, inspect.isfunction) if name.startswith("on_")
]


class TuneCallback(Callback):  # type: ignore[misc]  # its base is known where Lightning is
    """Base of callbacks that do something at hooks which are chosen by name.

    Derived classes have ``_handle``.

    Args:
        on: the hooks, such as "validation_end" or ["train_start", "train_epoch_end"].

    Raises:
        ValueError: Lightning has no such hook.
    """

    def __init__(self, on: str | Sequence[str] = "validation_end") -> None:
        super().__init__()
        for hook in hooks(on, _HOOKS):
            setattr(self, f"on_{hook}", self._on_hook)

    def _on_hook(self, trainer: Any, pl_module: Any = None, *more: Any, **named: Any) -> None:
        # Lightning validates a few batches first, to see whether that works.
        if not trainer.sanity_checking:
            self._handle(trainer, pl_module)

    def _handle(self, trainer: Any, pl_module: Any) -> None:
        raise NotImplementedError


class TuneReportCheckpointCallback(TuneCallback):
    """Reports what Lightning has logged to Tune, with a checkpoint of the training.

        lightning.Trainer(callbacks=[
            TuneReportCheckpointCallback({"loss": "val_loss"}, on="validation_end")
        ])

    A trial goes on from it with ``trainer.fit(model, ckpt_path=...)``, the path being that of
    ``filename`` in the folder of ``tune.get_checkpoint()``.

    Args:
        metrics: what to report of ``trainer.callback_metrics``: names, or a dict from the name in
            the report to that in Lightning.  None: all of it.  What is not there yet is left out,
            with a warning; where nothing is there, nothing is reported.
        filename: the file in the checkpoint.
        save_checkpoints: whether there are checkpoints.
        on: at which hooks, without the ``on_`` before them.

    Raises:
        ValueError: Lightning has no such hook.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        filename: str = "checkpoint",
        save_checkpoints: bool = True,
        on: str | Sequence[str] = "validation_end",
    ) -> None:
        super().__init__(on)
        self._report = TrainingReport(metrics)
        self._filename = filename
        self._save = save_checkpoints

    def _handle(self, trainer: Any, pl_module: Any) -> None:
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self._report.send(logged, self._filename, trainer.save_checkpoint if self._save else None)


class TuneReportCallback(TuneReportCheckpointCallback):
    """Reports what Lightning has logged to Tune, without checkpoints.

    Args:
        metrics, on: as for ``TuneReportCheckpointCallback``.

    Raises:
        ValueError: Lightning has no such hook.
    """

    def __init__(
        self, metrics: Metrics | None = None, on: str | Sequence[str] = "validation_end"
    ) -> None:
        super().__init__(metrics, save_checkpoints=False, on=on)
