"""Trials that train with XGBoost in their own process.

For trainings on several processes or machines there is ``skate.xgboost``, which reports by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from xgboost import Booster
from xgboost.callback import TrainingCallback

from skate.tune.integration._boosting import BoostingCallback

__all__ = ["TuneReportCheckpointCallback"]


class TuneReportCheckpointCallback(BoostingCallback[Booster], TrainingCallback):
    """Reports the scores of each round to Tune, and the model as a checkpoint now and then.

        xgboost.train(..., evals=[(test, "eval")], callbacks=[
            TuneReportCheckpointCallback({"loss": "eval-logloss"}, frequency=5)
        ])

    Of ``xgboost.cv`` it reports mean and deviation of each score, ``"test-logloss"`` and
    ``"test-logloss-stdv"``, unless there is a ``results_postprocessing_fn``, which gets them as
    pairs; there is no model then.  How ``filename`` ends says in which format the model is.  The
    checkpoint at the end comes with one more report of the last scores, unless the last round has
    brought one.

    The arguments are those of ``BoostingCallback``.
    """

    CHECKPOINT_NAME = "model.ubj"
    _scores: Mapping[str, Any] = MappingProxyType({})
    _saved = False

    @classmethod
    def _load(cls, path: str) -> Booster:
        booster = Booster()
        booster.load_model(path)
        return booster

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report a round.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        self._scores = self._newest(evals_log)
        self._saved = self._is_due(epoch + 1) and isinstance(model, Booster)
        self._send(self._scores, model.save_model if self._saved else None)
        return False

    def after_training(self, model: Any) -> Any:
        """Report the model at the end."""
        if self._at_end and not self._saved and isinstance(model, Booster) and self._scores:
            self._send(self._scores, model.save_model)
        return model

    def _newest(self, evals_log: Any) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        for data, metrics in evals_log.items():
            for metric, values in metrics.items():
                name, value = f"{data}-{metric}", values[-1]
                if isinstance(value, tuple) and self._postprocess is None:
                    scores[name], scores[f"{name}-stdv"] = value
                else:
                    scores[name] = value
        return scores
