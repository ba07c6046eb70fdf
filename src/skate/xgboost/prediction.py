"""``predict``: each actor predicts for its rows, the result is in the order of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import skate
from skate.exceptions import ActorDiedError, TaskError
from skate.xgboost import checks, library, loading, tune
from skate.xgboost.data.sharding import merge
from skate.xgboost.params import RayParams, actor_options, resolve
from skate.xgboost.params import ray_params as as_ray_params

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.data._base import Place
    from skate.xgboost.matrix import RayDMatrix


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
        shard: loading.ShardSpec,
        threads: int,
        arguments: dict[str, Any],
    ) -> list[tuple[Place, npt.NDArray[Any]]]:
        """Return what the model says about some rows, and which they are."""
        device = "cuda" if skate.get_gpu_ids() else "cpu"
        booster = library.xgboost().Booster(
            {"nthread": threads, "device": device}, model_file=bytearray(model)
        )
        loaded = loading.load(shard)
        return loading.predictions(loaded, booster, threads=threads, arguments=arguments)


def predict(
    model: Any,
    data: RayDMatrix,
    ray_params: RayParams | Mapping[str, Any] | None = None,
    _remote: bool | None = None,
    **kwargs: Any,
) -> npt.NDArray[Any]:
    """Predict on several actors.

    An actor that dies is replaced, up to ``RayParams.max_actor_restarts`` times.

    Args:
        model: a ``Booster``, a file or serialized bytes.
        data: for which rows.
        ray_params: how the prediction is distributed.
        _remote: of no meaning; for scripts that pass it to ``xgboost_ray``.
        kwargs: arguments of ``Booster.predict``, such as ``output_margin`` or ``pred_leaf``.

    Returns:
        One prediction per row, in the order of the rows.

    Raises:
        TypeError, ValueError: arguments that cannot be.
        ActorDiedError: actors died too often.
        XGBoostError, ValueError: the data does not fit the model.
    """
    distribution = as_ray_params(ray_params)
    checks.environment()
    checks.matrix(data, "data")
    if model is None:
        raise TypeError("predict needs a model: a Booster, a file or bytes")
    plan = resolve(distribution, {}, in_trial=tune.in_trial())
    plan.check_fits()
    shared = skate.put(checks.model_bytes(model))
    # No actor for nothing.
    num_actors = min(plan.num_actors, max(1, data.num_row()))
    shards = data.shards(num_actors)
    actor_class = skate.remote(PredictionActor).options(
        **actor_options({name: plan.amounts[name] for name in tune.to_reserve(plan)}),
        max_restarts=distribution.max_actor_restarts,
        max_task_retries=distribution.max_actor_restarts,
    )
    actors = [actor_class.remote(os.getpid()) for _ in range(num_actors)]
    pending = {
        actor.predict.remote(shared, shard, plan.threads, kwargs): rank
        for rank, (actor, shard) in enumerate(zip(actors, shards, strict=True))
    }
    results: dict[int, Any] = {}
    try:
        while pending:
            ready, _ = skate.wait(list(pending), num_returns=1)
            rank = pending.pop(ready[0])
            results[rank] = skate.get(ready[0])
            # At once, so that no actor that waits for CPUs waits for one that is done.
            skate.kill(actors[rank])
    except ActorDiedError as error:
        if isinstance(error.__cause__, TaskError):
            # A constructor raised.
            raise error.__cause__ from None
        raise
    finally:
        for rank, actor in enumerate(actors):
            if rank not in results:
                skate.kill(actor)
    parts = [part for rank in range(num_actors) for part in results[rank]]
    return merge(parts, data.num_row())
