"""Trials that train with Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.integration._training import TrainingReport, hooks
from skate.util._scores import Metrics

if TYPE_CHECKING:
    from skate.tune.checkpoint import Checkpoint

    Callback = Any
else:
    try:
        from keras.callbacks import Callback
    except ModuleNotFoundError as error:
        raise ImportError("skate.tune.integration.keras needs Keras: pip install keras") from error

__all__ = ["TuneReportCallback", "TuneReportCheckpointCallback"]

_HOOKS = [name for name in dir(Callback) if name.startswith("on_")]
_FILE = "model.keras"


class TuneReportCheckpointCallback(Callback):  # type: ignore[misc]  # its base is known where Keras is
    """Reports what Keras logs to Tune, and the model as a checkpoint.

        model.fit(..., callbacks=[TuneReportCheckpointCallback({"loss": "val_loss"})])

    Args:
        metrics: what to report: names, or a dict from the name in the report to that in Keras.
            None: all of it.  What is not there is left out, with a warning; where nothing is there,
            nothing is reported.
        filename: the file in the checkpoint that has the model; how it ends says in which format.
        frequency: a checkpoint comes with every so many calls of a hook.
        on: at which hooks, without the ``on_`` before them, as in 2022.
        report_metrics_on: at which hooks there are reports; ``on`` if None.
        checkpoint_on: at which hooks the report has a checkpoint; ``on`` if None.

    Raises:
        ValueError: Keras has no such hook, or the frequency is below 1.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        filename: str = _FILE,
        frequency: int = 1,
        on: str | Sequence[str] = "epoch_end",
        *,
        report_metrics_on: str | Sequence[str] | None = None,
        checkpoint_on: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if frequency < 1:
            raise ValueError(f"frequency has to be at least 1, got {frequency}")
        reports = hooks(on if report_metrics_on is None else report_metrics_on, _HOOKS)
        self._checkpoint_on = hooks(on if checkpoint_on is None else checkpoint_on, _HOOKS)
        self._report = TrainingReport(metrics)
        self._filename = filename
        self._frequency = frequency
        self._calls: Counter[str] = Counter()
        for hook in {*reports, *self._checkpoint_on}:
            setattr(self, f"on_{hook}", _Hook(self, hook))

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = _FILE) -> Any:
        """Return the model of a checkpoint that such a callback has reported.

        Raises:
            ValueError: there is none in a file of this name.
        """
        import keras

        with checkpoint.as_directory() as folder:
            return keras.saving.load_model(str(Path(folder, filename)))

    def _handle(self, hook: str, logs: Mapping[str, Any]) -> None:
        self._calls[hook] += 1
        due = hook in self._checkpoint_on and self._calls[hook] % self._frequency == 0
        self._report.send(logs, self._filename, self.model.save if due else None)


class _Hook:
    """One of the hooks of Keras, some of which are given a number before the logs."""

    def __init__(self, callback: TuneReportCheckpointCallback, hook: str) -> None:
        self._callback = callback
        self._hook = hook

    def __call__(self, *given: Any, logs: Mapping[str, Any] | None = None) -> None:
        if logs is None and given and isinstance(given[-1], Mapping):
            logs = given[-1]
        self._callback._handle(self._hook, logs or {})


class TuneReportCallback(TuneReportCheckpointCallback):
    """Reports what Keras logs to Tune, without checkpoints.

    Args:
        metrics, on: as for ``TuneReportCheckpointCallback``.

    Raises:
        ValueError: Keras has no such hook.
    """

    def __init__(
        self, metrics: Metrics | None = None, on: str | Sequence[str] = "epoch_end"
    ) -> None:
        super().__init__(metrics, on=on, checkpoint_on=())
