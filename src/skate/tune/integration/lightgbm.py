"""Trials that train with LightGBM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgbm import Booster

from skate.tune.integration._boosting import BoostingReport, Postprocess
from skate.util._scores import Metrics

if TYPE_CHECKING:
    from skate.tune.checkpoint import Checkpoint

__all__ = ["TuneReportCheckpointCallback"]

_FILE = "model.txt"


class TuneReportCheckpointCallback:
    """Reports the scores of each round to Tune, and the model as a checkpoint now and then.

        lightgbm.train(..., valid_sets=[test], valid_names=["eval"], callbacks=[
            TuneReportCheckpointCallback({"loss": "eval-binary_logloss"}, frequency=5)
        ])

    Of ``lightgbm.cv`` it reports mean and deviation of each score, ``"valid-auc-mean"`` and
    ``"valid-auc-stdv"``; there is no model then.

    Args:
        metrics: the scores to report: names, such as ``"eval-auc"``, or a dict from the name in
            the report to that of the score.  None: all of them.
        filename: the file in the checkpoint that has the model.
        frequency: a checkpoint comes with every so many rounds; 0 for none.
        checkpoint_at_end: whether one comes with the last round.  A training that is ended early
            (``lightgbm.early_stopping``) has none then, but those of ``frequency``.
        results_postprocessing_fn: gets the scores as a dict and returns the dict to report.

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
        self._report = BoostingReport(
            metrics, filename, frequency, checkpoint_at_end, results_postprocessing_fn
        )

    @classmethod
    def get_model(cls, checkpoint: Checkpoint, filename: str = _FILE) -> Booster:
        """Return the model of a checkpoint that such a callback has reported.

        Raises:
            LightGBMError: there is none in a file of this name.
        """
        with checkpoint.as_directory() as folder:
            return Booster(model_file=str(Path(folder, filename)))

    def __call__(self, environment: Any) -> None:
        """Report a round.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        rounds = environment.iteration + 1
        last = rounds == environment.end_iteration
        due = self._report.is_due(rounds) or (last and self._report.at_end)
        model = environment.model if isinstance(environment.model, Booster) else None
        save = model.save_model if due and model is not None else None
        self._report.send(_scores(environment.evaluation_result_list or []), save)


def _scores(results: Any) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for data, metric, value, *more in results:
        name = f"{data}-{metric}"
        if len(more) > 1 and more[1] is not None:  # the deviation, in cross-validation
            scores[f"{name}-mean"], scores[f"{name}-stdv"] = value, more[1]
        else:
            scores[name] = value
    return scores
