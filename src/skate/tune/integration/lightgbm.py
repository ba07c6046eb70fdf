"""Trials that train with LightGBM."""

from __future__ import annotations

from typing import Any

from lightgbm import Booster

from skate.tune.integration._boosting import BoostingCallback

__all__ = ["TuneReportCheckpointCallback"]


class TuneReportCheckpointCallback(BoostingCallback[Booster]):
    """Reports the scores of each round to Tune, and the model as a checkpoint now and then.

        lightgbm.train(..., valid_sets=[test], valid_names=["eval"], callbacks=[
            TuneReportCheckpointCallback({"loss": "eval-binary_logloss"}, frequency=5)
        ])

    Of ``lightgbm.cv`` it reports mean and deviation of each score, ``"valid-auc-mean"`` and
    ``"valid-auc-stdv"``; there is no model then.  The checkpoint at the end comes with the last
    round: a training that is ended early (``lightgbm.early_stopping``) has none then, but those of
    ``frequency``.

    The arguments are those of ``BoostingCallback``.
    """

    CHECKPOINT_NAME = "model.txt"

    @classmethod
    def _load(cls, path: str) -> Booster:
        return Booster(model_file=path)

    def __call__(self, environment: Any) -> None:
        """Report a round.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        rounds = environment.iteration + 1
        last = rounds == environment.end_iteration
        due = self._is_due(rounds) or (last and self._at_end)
        model = environment.model if isinstance(environment.model, Booster) else None
        save = model.save_model if due and model is not None else None
        self._send(_scores(environment.evaluation_result_list or []), save)


def _scores(results: Any) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for data, metric, value, *more in results:
        name = f"{data}-{metric}"
        if len(more) > 1 and more[1] is not None:  # the deviation, in cross-validation
            scores[f"{name}-mean"], scores[f"{name}-stdv"] = value, more[1]
        else:
            scores[name] = value
    return scores
