"""The actors of one attempt at a training, as seen by the driver."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import skate
from skate.exceptions import ActorError, NotSupportedError, TaskError
from skate.xgboost.actor import TrainingActor
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.messages import Progress
from skate.xgboost.params import ActorPlan, actor_options

#: When XGBoost fails in one actor that may be because another one has died, of which we learn a
#: moment later.  So many seconds are given to that moment.
VERDICT_S = 5.0
#: Seconds after which a training that still waits for its actors says so.
PATIENCE_S = 15.0

logger = logging.getLogger(__name__)


class ActorDeathError(Exception):
    """A training actor died."""

    def __init__(self, rank: int, error: ActorError) -> None:
        super().__init__(f"the training actor of rank {rank} died: {error}")
        self.rank = rank
        self.error = error


class ActorGroup:
    """Starts the actors, hands out shards, and tells what happens to them.

    Args:
        plan: how many actors, and what they need.
        reserved: what each of them asks the cluster for.
        whole_library: see ``TrainingActor``.
    """

    def __init__(
        self, plan: ActorPlan, *, reserved: Sequence[Mapping[str, float]], whole_library: bool
    ) -> None:
        self._plan = plan
        actor_class = skate.remote(TrainingActor)
        self._actors = [
            actor_class.options(**actor_options(reserved[rank])).remote(
                rank, plan.num_actors, os.getpid(), whole_library
            )
            for rank in range(plan.num_actors)
        ]

    def prepare(self, matrices: Sequence[RayDMatrix]) -> dict[str, Any] | None:
        """Hand out the shards; return where the tracker of the collective listens.

        Raises:
            ActorDeathError: an actor died.
            ValueError: a trial lends fewer GPUs than the actors need.
            NotSupportedError: the actors do not have processes of their own.
        """
        nodes: list[str] | None = None
        if any(matrix.nodes for matrix in matrices):
            wheres = dict(self._results([actor.node.remote() for actor in self._actors]))
            nodes = [wheres[rank] for rank in range(self._plan.num_actors)]
        shards = [matrix.shards(self._plan.num_actors, nodes) for matrix in matrices]
        answers = [
            actor.prepare.remote([each[rank] for each in shards])
            for rank, actor in enumerate(self._actors)
        ]
        self._await_start(answers[0])
        prepared = dict(self._results(answers))
        if len({answer.pid for answer in prepared.values()}) < self._plan.num_actors:
            raise NotSupportedError(
                f"{self._plan.num_actors} training actors need a process each, and this engine runs"
                ' all actors in one: use RayParams(num_actors=1), or skate.init(engine="native")'
            )
        if self._plan.gpus:
            reserved = dict.fromkeys(
                gpu for _, answer in sorted(prepared.items()) for gpu in answer.gpu_ids
            )
            # Those of the trial if it lends its own.
            self._share_gpus(list(reserved) or skate.get_gpu_ids())
        tracker: dict[str, Any] | None = prepared[0].tracker
        return tracker

    def _await_start(self, answer: Any) -> None:
        """Tell the user what the training waits for if rank 0 does not start."""
        ready, _ = skate.wait([answer], timeout=PATIENCE_S)
        if not ready:
            logger.warning(
                "the training has waited %g s for its actors, which need %s; free are %s. It starts"
                " when others give back what they hold.",
                PATIENCE_S,
                self._plan.total(),
                {name: skate.available_resources().get(name, 0) for name in self._plan.total()},
            )

    def _share_gpus(self, gpu_ids: list[int | str]) -> None:
        each = self._plan.gpus
        if len(gpu_ids) < math.ceil(each * self._plan.num_actors):
            raise ValueError(
                f"{self._plan.num_actors} training actors need {each:g} GPUs each, but there are"
                f" only {len(gpu_ids)} for them"
            )
        answers = [
            actor.use_gpus.remote(
                [gpu_ids[int(rank * each) + nth] for nth in range(max(1, int(each)))]
            )
            for rank, actor in enumerate(self._actors)
        ]
        dict(self._results(answers))

    def begin(self, spec: Any, tracker: dict[str, Any] | None, checkpoint: Any) -> None:
        """Start to train; ``spec`` and ``checkpoint`` may be refs."""
        answers = [actor.begin.remote(spec, tracker, checkpoint) for actor in self._actors]
        dict(self._results(answers))

    def progress(self) -> Iterator[tuple[int, Progress]]:
        """Yield news as they come, with the rank, until all actors are done.

        Raises:
            ActorDeathError: an actor died.
            Exception: what the training raised in an actor.
        """
        from xgboost.core import XGBoostError

        pending = {actor.progress.remote(): rank for rank, actor in enumerate(self._actors)}
        # The first error that may be a consequence of a death.
        suspicion: XGBoostError | None = None
        verdict_at = math.inf
        while pending:
            patience = None if suspicion is None else max(0.0, verdict_at - time.monotonic())
            ready, _ = skate.wait(list(pending), num_returns=1, timeout=patience)
            if not ready:
                break
            rank = pending.pop(ready[0])
            try:
                news: Progress = self._result(rank, ready[0])
            except XGBoostError as error:
                if suspicion is None:
                    suspicion, verdict_at = error, time.monotonic() + VERDICT_S
                continue
            if not news.done:
                pending[self._actors[rank].progress.remote()] = rank
            yield rank, news
        if suspicion is not None:
            raise suspicion

    def _results(self, refs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield rank and result of each, the first to be ready first."""
        pending = {ref: rank for rank, ref in enumerate(refs)}
        while pending:
            ready, _ = skate.wait(list(pending), num_returns=1)
            rank = pending.pop(ready[0])
            yield rank, self._result(rank, ready[0])

    def _result(self, rank: int, ref: Any) -> Any:
        try:
            return skate.get(ref)
        except ActorError as error:
            if isinstance(error.__cause__, TaskError):
                # Its constructor raised: it would raise again.
                raise error.__cause__ from None
            raise ActorDeathError(rank, error) from error

    def kill(self) -> None:
        """End all actors at once."""
        for actor in self._actors:
            skate.kill(actor)
