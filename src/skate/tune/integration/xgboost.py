"""Trials that train with XGBoost in their own process.

For trainings on several processes or machines there is ``skate.xgboost``, which reports by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgboost import Booster
from xgboost.callback import TrainingCallback

from skate.tune.integration._boosting import BoostingReport, Postprocess
from skate.util._scores import Metrics

if TYPE_CHECKING:
    from skate.tune.checkpoint import Checkpoint

__all__ = ["TuneReportCheckpointCallback"]

_FILE = "model.ubj"


class TuneReportCheckpointCallback(TrainingCallback):
    """Reports the scores of each round to Tune, and the model as a checkpoint now and then.

        xgboost.train(..., evals=[(test, "eval")], callbacks=[
            TuneReportCheckpointCallback({"loss": "eval-logloss"}, frequency=5)
        ])

    Of ``xgboost.cv`` it reports mean and deviation of each score, ``"test-logloss"`` and
    ``"test-logloss-stdv"``; there is no model then.

    Args:
        metrics: the scores to report: names, such as ``"eval-logloss"``, or a dict from the name in
            the report to that of the score.  None: all of them.
        filename: the file in the checkpoint that has the model; how it ends says in which format.
        frequency: a checkpoint comes with every so many rounds; 0 for none.
        checkpoint_at_end: whether one comes at the end of the training, with one more report of the
            last scores, unless the last round has brought one.
        results_postprocessing_fn: gets the scores as a dict (of ``xgboost.cv``: pairs of mean and
            deviation) and returns the dict to report.

    Raises:
        ValueError: the frequency is negative.
    """

    CHECKPOINT_NAME = _FILE

    def __init__(
        self,
        metrics: Metrics | None = None,
        filename: str = _FILE,
        frequency: int = 0,
        checkpoint_at_end: bool = True,
        results_postprocessing_fn: Postprocess | None = None,
    ) -> None:
        super().__init__()
        self._report = BoostingReport(
            metrics, filename, frequency, checkpoint_at_end, results_postprocessing_fn
        )
        self._as_it_is = results_postprocessing_fn is not None
        self._scores: dict[str, Any] = {}
        self._saved = False

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = _FILE) -> Booster:
        """Return the model of a checkpoint that such a callback has reported.

        Raises:
            XGBoostError: there is none in a file of this name.
        """
        booster = Booster()
        with checkpoint.as_directory() as folder:
            booster.load_model(str(Path(folder, filename)))
        return booster

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report a round.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        self._scores = self._newest(evals_log)
        self._saved = self._report.is_due(epoch + 1) and isinstance(model, Booster)
        self._report.send(self._scores, model.save_model if self._saved else None)
        return False

    def after_training(self, model: Any) -> Any:
        """Report the model at the end."""
        if self._report.at_end and not self._saved and isinstance(model, Booster) and self._scores:
            self._report.send(self._scores, model.save_model)
        return model

    def _newest(self, evals_log: Any) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        for data, metrics in evals_log.items():
            for metric, values in metrics.items():
                name, value = f"{data}-{metric}", values[-1]
                if isinstance(value, tuple) and not self._as_it_is:
                    scores[name], scores[f"{name}-stdv"] = value
                else:
                    scores[name] = value
        return scores
