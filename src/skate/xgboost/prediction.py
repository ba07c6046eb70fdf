"""``predict``: each actor predicts for its rows, the result is in the order of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import skate
from skate.exceptions import ActorDiedError, TaskError
from skate.xgboost import checks, library, shard, tune
from skate.xgboost.params import RayParams, resolve
from skate.xgboost.params import ray_params as as_ray_params

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.matrix import CentralData, RayDMatrix


class PredictionActor:
    """Predicts for one shard, in a process that has imported nothing else."""

    def __init__(self, driver_pid: int) -> None:
        # On the inline engine this is the user's own process.
        if os.getpid() == driver_pid:
            library.xgboost()
        else:
            library.without_estimators()

    def predict(
        self,
        model: bytes,
        data: CentralData,
        part: slice,
        threads: int,
        arguments: dict[str, Any],
    ) -> npt.NDArray[Any]:
        """Return what the model says about some rows."""
        module = library.xgboost()
        booster = module.Booster({"nthread": threads}, model_file=bytearray(model))
        chosen = shard.arguments(data, part)
        for name in ("label", "weight", "qid", "label_lower_bound", "label_upper_bound"):
            chosen.pop(name, None)
        predicted: npt.NDArray[Any] = booster.predict(
            module.DMatrix(**chosen, nthread=threads), **arguments
        )
        return predicted


def predict(
    model: Any,
    data: RayDMatrix,
    ray_params: RayParams | Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> npt.NDArray[Any]:
    """Predict on several actors.

    An actor that dies is replaced, up to ``RayParams.max_actor_restarts`` times.

    Args:
        model: a ``Booster``, a file or serialized bytes.
        data: for which rows.
        ray_params: how the prediction is distributed.
        kwargs: arguments of ``Booster.predict``, such as ``output_margin`` or ``pred_leaf``.

    Returns:
        One prediction per row, in the order of the rows.

    Raises:
        TypeError, ValueError: arguments that cannot be.
        ActorDiedError: actors died too often.
        XGBoostError, ValueError: the data does not fit the model.
    """
    distribution = as_ray_params(ray_params)
    checks.matrix(data, "data")
    if model is None:
        raise TypeError("predict needs a model: a Booster, a file or bytes")
    rows = data.num_row()
    plan = resolve(distribution, {}, in_trial=tune.in_trial())
    # No actor for nothing.
    num_actors = min(plan.num_actors, max(1, rows))
    paid = tune.pays_for(plan)
    options = {} if paid else {"num_cpus": plan.cpus, "resources": dict(plan.custom) or None}
    actor_class = skate.remote(PredictionActor).options(
        max_restarts=distribution.max_actor_restarts,
        max_task_retries=distribution.max_actor_restarts,
        **options,
    )
    actors = [actor_class.remote(os.getpid()) for _ in range(num_actors)]
    try:
        shared, source = skate.put(checks.model_bytes(model)), data.ref()
        shards = data.plan(num_actors)
        answers = [
            actor.predict.remote(shared, source, part, plan.threads, kwargs)
            for actor, part in zip(actors, shards.parts, strict=True)
        ]
        return shards.merge(skate.get(answers))
    except ActorDiedError as error:
        if isinstance(error.__cause__, TaskError):
            # A constructor raised.
            raise error.__cause__ from None
        raise
    finally:
        for actor in actors:
            skate.kill(actor)
