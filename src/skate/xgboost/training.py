"""``train``: what the user calls, and the attempts that it takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import checks, tune
from skate.xgboost.group import ActorDeathError, ActorGroup
from skate.xgboost.library import xgboost
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.messages import TrainingSpec
from skate.xgboost.params import ActorPlan, RayParams, resolve
from skate.xgboost.params import ray_params as as_ray_params
from skate.xgboost.restarts import RestartPolicy
from skate.xgboost.scores import ScoreLog

if TYPE_CHECKING:
    from xgboost import Booster

logger = logging.getLogger(__name__)


def train(
    params: Mapping[str, Any],
    dtrain: RayDMatrix,
    num_boost_round: int = 10,
    *,
    evals: Sequence[tuple[RayDMatrix, str]] | None = None,
    obj: Callable[..., Any] | None = None,
    maximize: bool | None = None,
    early_stopping_rounds: int | None = None,
    evals_result: dict[str, Any] | None = None,
    additional_results: dict[str, Any] | None = None,
    verbose_eval: bool | int | None = True,
    xgb_model: Any = None,
    callbacks: Sequence[Any] | None = None,
    custom_metric: Callable[..., Any] | None = None,
    ray_params: RayParams | Mapping[str, Any] | None = None,
) -> Booster:
    """Train a model on several actors: ``xgboost.train`` with ``ray_params``.

    Inside a Tune trial the scores of each round are reported by themselves (see
    ``skate.xgboost.tune.TuneReportCallback`` to choose).

    Args:
        params: of the model.  ``nthread`` is what ``RayParams.cpus_per_actor`` says, or less.
        dtrain: the training data.
        num_boost_round: how many rounds.
        evals: matrices to score after each round, and their names.
        obj: a custom objective.  Each actor calls it with its own rows.
        maximize: whether early stopping looks for a maximum; None: what suits the metric.
        early_stopping_rounds: stop if the last metric of the last matrix has not become better
            for so many rounds.
        evals_result: a dict that receives the scores: ``{"eval": {"logloss": [...]}}``.
        additional_results: a dict that receives ``total_n`` (training rows), ``training_time_s``
            and ``total_time_s`` (seconds), ``restarts`` and ``failures``.
        verbose_eval: print the scores after every round, or every so many.
        xgb_model: a model to continue: a ``Booster``, a file or serialized bytes.
        callbacks: instances of ``xgboost.callback.TrainingCallback``.  Each actor has its copy.
        custom_metric: a custom metric.  Each actor calls it with its own rows; the mean counts.
        ray_params: how the training is distributed.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: arguments that cannot be, before anything starts.
        TrainingFailedError: actors died too often.
        SerializationError: a callback, objective or metric cannot be pickled.
        Exception: what XGBoost or the user's functions raised in an actor.
    """
    started = time.perf_counter()
    distribution = as_ray_params(ray_params)
    checks.training(
        params, dtrain, num_boost_round, evals, obj, early_stopping_rounds, verbose_eval, callbacks
    )
    in_trial = tune.in_trial()
    plan = resolve(distribution, params, in_trial=in_trial)
    plan.check_fits()
    matrices, eval_indices = _distinct(dtrain, evals or ())
    dtrain.check_actors(plan.num_actors)
    report, remote_callbacks = tune.split(callbacks or (), in_trial)
    spec = TrainingSpec(
        params={key: value for key, value in params.items() if key not in ("nthread", "n_jobs")},
        num_boost_round=num_boost_round,
        evals=eval_indices,
        objective=obj,
        custom_metric=custom_metric,
        callbacks=remote_callbacks,
        early_stopping_rounds=early_stopping_rounds,
        maximize=maximize,
        initial_model=checks.model_bytes(xgb_model),
        checkpoint_frequency=distribution.checkpoint_frequency,
        threads=checks.threads(params, plan.threads),
    )
    log = ScoreLog(checks.print_period(verbose_eval) if evals else 0, report)
    policy = RestartPolicy(distribution.max_actor_restarts)
    reserved = tune.reservations(plan)
    training = _Training(spec, skate.put(spec), matrices, plan, policy, log, reserved)
    model = training.run()
    log.finish()
    if evals_result is not None:
        evals_result.update(log.history)
    if additional_results is not None:
        additional_results.update(
            total_n=dtrain.num_row(),
            training_time_s=training.training_seconds,
            total_time_s=time.perf_counter() - started,
            restarts=len(policy.failures),
            failures=list(policy.failures),
        )
    booster: Booster = xgboost().Booster(dict(params), model_file=bytearray(model))
    return booster


def _distinct(
    dtrain: RayDMatrix, evals: Sequence[tuple[RayDMatrix, str]]
) -> tuple[list[RayDMatrix], list[tuple[int, str]]]:
    """Return the matrices, each once and ``dtrain`` first, and the evaluations by index."""
    matrices = [dtrain]
    indices: list[tuple[int, str]] = []
    for matrix, name in evals:
        index = next((nth for nth, known in enumerate(matrices) if known is matrix), None)
        if index is None:
            index = len(matrices)
            matrices.append(matrix)
        indices.append((index, name))
    return matrices, indices


@dataclass(slots=True)
class _Training:
    """One training: attempts until one succeeds or the policy gives up."""

    spec: TrainingSpec
    spec_ref: Any
    matrices: list[RayDMatrix]
    plan: ActorPlan
    policy: RestartPolicy
    log: ScoreLog
    #: What the actors ask the cluster for, all together.
    reserved: list[dict[str, float]]
    #: Seconds in the boosting loop, of all attempts.
    training_seconds: float = 0.0

    def run(self) -> bytes:
        """Return the serialized model."""
        while True:
            try:
                return self._attempt()
            except ActorDeathError as death:
                failure = self.policy.on_death(death.rank, self.log.rounds, str(death.error))
                self.log.rewind(self.policy.resumed_from)
                logger.warning("%s. The training goes on from there.", failure)

    def _attempt(self) -> bytes:
        spec = self.spec
        whole = any((spec.objective, spec.custom_metric, spec.callbacks))
        group = ActorGroup(self.plan, reserved=self.reserved, whole_library=whole)
        try:
            # The actors import it at the same time, in their constructors.
            xgboost()
            tracker = group.prepare(self.matrices)
            started = time.perf_counter()
            checkpoint = self.policy.checkpoint
            group.begin(
                self.spec_ref, tracker, None if checkpoint is None else skate.put(checkpoint)
            )
            try:
                return self._follow(group)
            finally:
                self.training_seconds += time.perf_counter() - started
        finally:
            group.kill()

    def _follow(self, group: ActorGroup) -> bytes:
        model: bytes | None = None
        try:
            for _rank, news in group.progress():
                if news.checkpoint is not None:
                    self.policy.checkpoint = news.checkpoint
                for index, scores in news.rounds:
                    self.log.add(index, scores)
                if news.model is not None:
                    model = news.model
        except ActorDeathError:
            # The model is complete when rank 0 has it; the others are only waited for so that
            # their callbacks can finish.
            if model is None:
                raise
        assert model is not None
        return model
