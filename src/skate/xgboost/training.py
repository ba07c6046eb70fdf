"""``train``: what the user calls, and the attempts that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import checks, tune
from skate.xgboost.attempts import Attempts, is_reusable
from skate.xgboost.group import ActorGroup
from skate.xgboost.library import xgboost
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.messages import TrainingSpec
from skate.xgboost.params import RayParams, resolve
from skate.xgboost.params import ray_params as as_ray_params
from skate.xgboost.progress import ProgressLines
from skate.xgboost.restarts import RestartPolicy
from skate.xgboost.scores import ScoreLog

if TYPE_CHECKING:
    from xgboost import Booster


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
    _remote: bool | None = None,
) -> Booster:
    """Train a model on several actors: ``xgboost.train`` with ``ray_params``.

    Inside a Tune trial the scores of each round are reported by themselves, with a checkpoint
    after every ``RayParams.checkpoint_frequency`` rounds, from which the training goes on when the
    trial is started again (see ``skate.xgboost.tune.TuneReportCallback`` to choose).

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
            and ``total_time_s`` (seconds), ``restarts``, ``failures``, and in
            ``callback_returns`` for each rank what user code has put into the queue
            (``skate.xgboost.session.put_queue``).
        verbose_eval: print the scores after every round, or every so many.
        xgb_model: a model to continue: a ``Booster``, a file or serialized bytes.
        callbacks: instances of ``xgboost.callback.TrainingCallback``.  Each actor has its copy.
        custom_metric: a custom metric.  Each actor calls it with its own rows; the mean counts.
        ray_params: how the training is distributed.
        _remote: of no meaning; for scripts that pass it to ``xgboost_ray``.

    Returns:
        The model, on the CPU, also if it was trained on GPUs, which were those of the actors.
        ``model.set_param("device", "cuda")`` makes it predict on one of this process.

    Raises:
        TypeError, ValueError: arguments that cannot be, before anything starts.
        TrainingFailedError: actors died too often.
        SerializationError: a callback, objective or metric cannot be pickled.
        Exception: what XGBoost or the user's functions raised in an actor.
    """
    started = time.perf_counter()
    distribution = as_ray_params(ray_params)
    checks.environment()
    checks.training(
        params, dtrain, num_boost_round, evals, obj, early_stopping_rounds, verbose_eval, callbacks
    )
    checks.received(evals_result, "evals_result")
    checks.received(additional_results, "additional_results")
    in_trial = tune.in_trial()
    plan = resolve(distribution, params, in_trial=in_trial)
    plan.check_fits()
    matrices, eval_indices = _distinct(dtrain, evals or ())
    dtrain.check_actors(plan.num_actors)
    trial, remote_callbacks = tune.split(callbacks or (), in_trial)
    updates = checks.updates(params, distribution.elastic_training)
    spec = TrainingSpec(
        # XGBoost takes None for "not given".
        params={
            key: value
            for key, value in params.items()
            if value is not None and key not in ("nthread", "n_jobs")
        },
        num_boost_round=num_boost_round,
        evals=eval_indices,
        objective=obj,
        custom_metric=custom_metric,
        callbacks=remote_callbacks,
        distributed_callbacks=list(distribution.distributed_callbacks or ()),
        early_stopping_rounds=early_stopping_rounds,
        maximize=maximize,
        initial_model=checks.model_bytes(xgb_model),
        # A training that updates the trees of a model cannot begin in the middle: a model loaded
        # with half of its trees updated is one whose trees are all to be updated.
        checkpoint_frequency=0 if updates else distribution.checkpoint_frequency,
        checkpoint_at_end=trial is not None and not updates,
        threads=checks.threads(params, plan.threads),
    )
    log = ScoreLog(checks.print_period(verbose_eval) if evals else 0, trial)
    policy = RestartPolicy(
        distribution.max_actor_restarts,
        # One at least has to be there.
        min(distribution.max_failed_actors, plan.num_actors - 1)
        if distribution.elastic_training
        else 0,
        checkpoint=None if trial is None else trial.restored(),
    )
    if policy.checkpoint is not None:
        log.restore(policy.checkpoint)
    lines = ProgressLines(distribution.verbose, plan.num_actors, num_boost_round)
    placement = tune.placement(plan, distribution.placement_options or {})
    try:
        group = ActorGroup(
            plan,
            placement,
            matrices,
            skate.put(spec),
            whole_library=bool(
                obj or custom_metric or remote_callbacks or spec.distributed_callbacks
            ),
        )
        training = Attempts(plan, group, policy, log, lines, binned=is_reusable(spec))
        model = training.run()
    finally:
        placement.give_back()
    log.finish()
    if evals_result is not None:
        evals_result.update(log.history)
    if additional_results is not None:
        additional_results.update(
            total_n=dtrain.num_row(),
            training_time_s=training.training_seconds,
            total_time_s=time.perf_counter() - started,
            restarts=policy.restarts,
            failures=list(policy.failures),
            callback_returns=training.returned,
        )
    # The GPUs were those of the actors.  Trees that are there would be taken for trees to update.
    kept = {name: value for name, value in params.items() if name not in ("device", "process_type")}
    booster: Booster = xgboost().Booster(kept, model_file=bytearray(model))
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
