"""What the callbacks for boosting libraries have in common: which scores, and when a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from skate.tune.checkpoint import Checkpoint
from skate.tune.session import report
from skate.util._scores import Metrics, ScoreChoice

#: Gets the scores and returns what is reported.
Postprocess: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


class BoostingReport:
    """Reports the scores of each round, and the model now and then.

    Args:
        metrics: the scores to report: names, such as ``"eval-logloss"``, or a dict from the name in
            the report to that of the score.  None: all of them.
        filename: the file in the checkpoint that has the model.
        frequency: a checkpoint comes with every so many rounds; 0 for none.
        checkpoint_at_end: whether one comes at the end of the training.
        results_postprocessing_fn: gets the scores as a dict and returns the dict to report.

    Raises:
        ValueError: the frequency is negative.
    """

    def __init__(
        self,
        metrics: Metrics | None,
        filename: str,
        frequency: int,
        checkpoint_at_end: bool,
        results_postprocessing_fn: Postprocess | None,
    ) -> None:
        if frequency < 0:
            raise ValueError(f"frequency cannot be negative, got {frequency}")
        self._choice = ScoreChoice(
            metrics, "TuneReportCheckpointCallback", "none (train without validation sets)"
        )
        self.filename = filename
        self._frequency = frequency
        self.at_end = checkpoint_at_end
        self._postprocess = results_postprocessing_fn

    def is_due(self, rounds: int) -> bool:
        """Say whether a checkpoint comes with so many rounds."""
        return self._frequency > 0 and rounds % self._frequency == 0

    def send(self, scores: Mapping[str, Any], save: Callable[[str], object] | None) -> None:
        """Report ``scores``, with the model that ``save`` writes to a path, if there is one.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        result = self._choice.of(scores)
        if self._postprocess is not None:
            result = self._postprocess(result)
        if save is None:
            report(result)
            return
        with tempfile.TemporaryDirectory(prefix="model_") as folder:
            save(str(Path(folder, self.filename)))
            report(result, checkpoint=Checkpoint.from_directory(folder))
