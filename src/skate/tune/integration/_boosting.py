"""What the callbacks for boosting libraries have in common: which scores, and when a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from skate.tune.checkpoint import Checkpoint
from skate.tune.integration._reporting import report_with_file
from skate.util._scores import Metrics, ScoreChoice

#: Gets the scores and returns what is reported.
Postprocess: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

#: What the library calls a model.
Model = TypeVar("Model")


class BoostingCallback(Generic[Model]):
    """Reports the scores of each round, and the model as a checkpoint now and then.

    Args:
        metrics: the scores to report: names, such as ``"eval-logloss"``, or a dict from the name in
            the report to that of the score.  None: all of them.
        filename: the file in the checkpoint that has the model; ``CHECKPOINT_NAME`` if None.
        frequency: a checkpoint comes with every so many rounds; 0 for none.
        checkpoint_at_end: whether one comes at the end of the training.
        results_postprocessing_fn: gets the scores as a dict and returns the dict to report.

    Raises:
        ValueError: the frequency is negative.
    """

    #: The file that has the model.
    CHECKPOINT_NAME: str

    def __init__(
        self,
        metrics: Metrics | None = None,
        filename: str | None = None,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Postprocess | None = None,
    ) -> None:
        super().__init__()
        if frequency < 0:
            raise ValueError(f"frequency cannot be negative, got {frequency}")
        self._choice = ScoreChoice(
            metrics, "TuneReportCheckpointCallback", "none (train without validation sets)"
        )
        self._filename = filename or self.CHECKPOINT_NAME
        self._frequency = frequency
        self._at_end = checkpoint_at_end
        self._postprocess = results_postprocessing_fn

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str | None = None) -> Model:
        """Return the model of a checkpoint that such a callback has reported.

        Raises:
            XGBoostError, LightGBMError: there is none in a file of this name.
        """
        with checkpoint.as_directory() as folder:
            return cls._load(str(Path(folder, filename or cls.CHECKPOINT_NAME)))

    @classmethod
    def _load(cls, path: str) -> Model:
        raise NotImplementedError

    def _is_due(self, rounds: int) -> bool:
        """Say whether a checkpoint comes with so many rounds."""
        return self._frequency > 0 and rounds % self._frequency == 0

    def _send(self, scores: Mapping[str, Any], save: Callable[[str], object] | None) -> None:
        """Report ``scores``, with the model that ``save`` writes to a path, if there is one.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        result = self._choice.of(scores)
        if self._postprocess is not None:
            result = self._postprocess(result)
        report_with_file(result, self._filename, save)
