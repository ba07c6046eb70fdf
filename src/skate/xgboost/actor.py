"""The training actor: holds one shard, trains in a thread, and answers with what has happened."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import boosting, collective, library, loading
from skate.xgboost.messages import Checkpoint, Prepared, Progress, Scores, TrainingSpec

if TYPE_CHECKING:
    from skate.xgboost.loading import LoadedShard, ShardSpec


class TrainingActor:
    """One member of a training.

    ``prepare``, ``begin``, then ``progress`` until it says ``done``.  Each call of ``progress``
    waits until there is something to say, so that a call is under way at all times and whoever
    waits for it learns of this actor's death.

    Args:
        rank: 0 to ``num_actors - 1``.
        num_actors: how many take part.
        driver_pid: the process that trains through this actor.
        whole_library: whether user code is going to run here that may want all of ``xgboost``.
    """

    def __init__(self, rank: int, num_actors: int, driver_pid: int, whole_library: bool) -> None:
        self._rank = rank
        self._num_actors = num_actors
        # On the inline engine this is the user's own process.
        self._own_process = os.getpid() != driver_pid
        if whole_library or not self._own_process:
            library.xgboost()
        else:
            library.without_estimators()
        self._data: list[LoadedShard] = []
        self._condition = threading.Condition()
        self._news = Progress()
        self._error: Exception | None = None

    def node(self) -> str:
        """Return the id of the node where this is."""
        return skate.get_runtime_context().get_node_id()

    def prepare(self, shards: list[ShardSpec]) -> Prepared:
        """Load the shards, one of each matrix."""
        self._data = [loading.load(shard) for shard in shards]
        tracker = None
        # A tracker stays for as long as its process.  In the user's own it would listen for ever,
        # for a training that is going to be refused: there are no actors to meet.
        if self._rank == 0 and self._num_actors > 1 and self._own_process:
            tracker = collective.Tracker(self._num_actors).worker_args
        return Prepared(os.getpid(), skate.get_gpu_ids(), tracker)

    def use_gpus(self, gpu_ids: list[int | str]) -> None:
        """Use some of the GPUs that rank 0 holds for all."""
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpu_ids))

    def begin(
        self,
        spec: TrainingSpec,
        tracker: dict[str, Any] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Start to train."""
        thread = threading.Thread(
            target=self._run,
            args=(spec, tracker, checkpoint),
            name=f"xgboost-rank-{self._rank}",
            # The process may end while the thread waits for a peer that is dead.
            daemon=True,
        )
        thread.start()

    def progress(self) -> Progress:
        """Wait for news and return them.  Raises what the training raised."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._news.rounds or self._news.done or self._error is not None
            )
            if self._error is not None:
                raise self._error
            news, self._news = self._news, Progress()
            return news

    # ---------------------------------------------------------------- in the thread

    def _run(
        self, spec: TrainingSpec, tracker: dict[str, Any] | None, checkpoint: Checkpoint | None
    ) -> None:
        model: bytes | None = None
        error: Exception | None = None
        try:
            collective.join(tracker, self._rank)
            reporter = self if self._rank == 0 else None
            # A model that was not trained at all looks the number of features up in its matrices.
            matrices = self._matrices(spec)
            booster = boosting.boost(spec, matrices, checkpoint, reporter)
            if self._rank == 0:
                model = boosting.serialized(booster)
        except Exception as raised:
            error = raised
        except BaseException as raised:
            # SystemExit and its like would end this process instead of reaching the driver.
            error = RuntimeError(f"the training raised {raised!r}")
            error.__cause__ = raised
        with self._condition:
            self._error = error
            self._news.model = model
            self._news.done = True
            self._condition.notify_all()
        if tracker is not None:
            # XGBoost complains about collectives whose thread ends before they were left.
            threading.Event().wait()

    def _matrices(self, spec: TrainingSpec) -> list[Any]:
        built: list[Any] = []
        binned = loading.is_binned(spec.params, continues=spec.initial_model is not None)
        for loaded in self._data:
            reference = built[0] if built else None
            built.append(
                loading.build(
                    loaded, spec.params, threads=spec.threads, binned=binned, reference=reference
                )
            )
        # From here on the matrices hold all that is needed; what they were made of may go.
        self._data = []
        return built

    def round_done(self, index: int, scores: Scores, checkpoint: Checkpoint | None) -> None:
        """Pass on what the boosting loop reports."""
        with self._condition:
            self._news.rounds.append((index, scores))
            if checkpoint is not None:
                self._news.checkpoint = checkpoint
            self._condition.notify_all()
