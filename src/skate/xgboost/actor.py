"""The training actor: holds one shard, trains in a thread, and answers with what has happened."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import boosting, library, loading, session
from skate.xgboost.callback import DistributedCallbackContainer
from skate.xgboost.collective import Membership, speak_as
from skate.xgboost.cuts import Cuts
from skate.xgboost.messages import (
    Checkpoint,
    Left,
    Loaded,
    Progress,
    Scores,
    TrainingSpec,
    World,
)

if TYPE_CHECKING:
    from skate.xgboost.loading import LoadedShard, ShardSpec

#: Calls that may run at the same time: ``progress``, which waits, and another one.
CONCURRENCY = 2
#: Seconds without use of a CPU after which a thread that should leave a world is left behind.
IDLE_S = 2.0
#: Seconds between two looks at that.
LOOK_S = 0.25


class TrainingActor:
    """One member of a training.

    ``load`` once; then, for each world, ``begin``, and ``progress`` until it says ``done``.  Each
    call of ``progress`` waits until there is something to say, so that a call is under way at all
    times and whoever waits for it learns of this actor's death.  Its matrices outlive worlds.

    Args:
        rank: 0 to the number of actors - 1.
        driver_pid: the process that trains through this actor.
        whole_library: whether user code is going to run here that may want all of ``xgboost``.
    """

    def __init__(self, rank: int, driver_pid: int, whole_library: bool) -> None:
        self.rank = rank
        # On the inline engine this is the user's own process.
        self._own_process = os.getpid() != driver_pid
        if whole_library or not self._own_process:
            library.xgboost()
        else:
            library.without_estimators()
        self._hooks = DistributedCallbackContainer()
        self._shards: list[ShardSpec] = []
        #: What matrices are made of; None once there are some.
        self._loaded: list[LoadedShard] | None = None
        self._matrices: list[Any] | None = None
        self._membership: Membership | None = None
        self._condition = threading.Condition()
        self._news = Progress()
        self._error: Exception | None = None
        self._pause = False
        self._world = 0
        #: That trains in this world.
        self._thread: threading.Thread | None = None
        self._on_gpu = False

    def node(self) -> str:
        """Return the id of the node where this is."""
        return skate.get_runtime_context().get_node_id()

    def load(self, spec: TrainingSpec, cuts: Cuts | None, shards: list[ShardSpec]) -> Loaded:
        """Load the shards, one of each matrix; with ``cuts``, make the matrices."""
        self._hooks = DistributedCallbackContainer(spec.distributed_callbacks)
        self._hooks.call("on_init", self)
        self._hooks.call("before_data_loading", self, shards)
        self._shards = shards
        self._loaded = [loading.load(shard) for shard in shards]
        if cuts is not None:
            self._build_with(cuts, spec)
        self._hooks.call("after_data_loading", self, shards)
        node_id = skate.get_runtime_context().get_node_id()
        built = self._matrices is not None
        return Loaded(os.getpid(), node_id, skate.get_gpu_ids(), built)

    def use_gpus(self, gpu_ids: list[int | str]) -> None:
        """Use some of the GPUs that the trial around this training holds."""
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpu_ids))

    def track(self, num_members: int, host: str) -> dict[str, Any]:
        """Start the tracker of the next world."""
        self._membership = Membership()
        return self._membership.track(num_members, host)

    def begin(self, world: World, spec: TrainingSpec, checkpoint: Checkpoint | None) -> None:
        """Start to train."""
        if world.rank > 0:
            self._membership = Membership()
        thread = threading.Thread(
            target=self._run,
            args=(world, spec, checkpoint),
            name=f"xgboost-rank-{self.rank}",
            # The process may end while the thread waits for a peer that is dead.
            daemon=True,
        )
        self._on_gpu = loading.is_on_gpu(spec.params)
        with self._condition:
            self._news, self._error, self._pause = Progress(), None, False
            self._world, self._thread = world.number, thread
            self._condition.notify_all()
        thread.start()

    def progress(self, world: int) -> Progress:
        """Wait for news of a world and return them.  Raises what the training raised."""
        with self._condition:
            self._condition.wait_for(lambda: self._world > world or self._has_news(world))
            if self._world > world:
                # Nobody listens to this call any more, and it must not take the others' news.
                return Progress(done=True)
            if self._error is not None:
                raise self._error
            news, self._news = self._news, Progress(done=self._news.done)
            return news

    def pause(self) -> None:
        """Of rank 0: make all members stop after the same round, with a checkpoint."""
        self._pause = True

    def leave(self, world: int, seconds: float) -> Left:
        """Leave a world by force; wait until the training thread is out of it."""
        with self._condition:
            # Calls run side by side: ``begin`` may be about to.
            self._condition.wait_for(lambda: self._world >= world, seconds)
        if self._membership is not None:
            self._membership.leave()
        out = self._wait_until_out(time.monotonic() + seconds)
        return Left(out, self._matrices is not None)

    def _wait_until_out(self, deadline: float) -> bool:
        """Wait for the training thread to be out of its world; return whether another can begin.

        Now and then XGBoost does not wake the thread that waits for an operation that has failed.
        Such a process uses no CPU, and one that is on its way out does.  The thread is left behind
        then: what it could still do fails, and nobody listens to it.  Not so where it may still
        occupy a GPU.
        """
        used, idle_since = time.process_time(), time.monotonic()
        with self._condition:
            while not self._condition.wait_for(lambda: self._news.done or self._error, LOOK_S):
                now, uses = time.monotonic(), time.process_time()
                if uses - used > LOOK_S / 10:
                    idle_since = now
                used = uses
                if now - idle_since >= IDLE_S:
                    return not self._on_gpu
                if now >= deadline:
                    return False
        return True

    def cuts(self) -> Cuts | None:
        """Return the bins of the training matrix; None if it has none that others can use."""
        if self._matrices is None or self._on_gpu:
            return None
        if not isinstance(self._matrices[0], library.xgboost().QuantileDMatrix):
            return None
        return Cuts.of(self._matrices[0])

    def _is_current(self) -> bool:
        """Whether the calling thread trains in this world, and was not left behind in another."""
        return threading.current_thread() is self._thread

    def _has_news(self, world: int) -> bool:
        news = self._news
        return self._world == world and bool(
            news.rounds or news.queue or news.done or self._error is not None
        )

    # ---------------------------------------------------------------- in the thread

    def _run(self, world: World, spec: TrainingSpec, checkpoint: Checkpoint | None) -> None:
        model: bytes | None = None
        error: Exception | None = None
        try:
            model = self._train(world, spec, checkpoint)
        except boosting.PausedError:
            pass
        except Exception as raised:
            error = raised
        except BaseException as raised:
            # SystemExit and its like would end this process instead of reaching the driver.
            error = RuntimeError(f"the training raised {raised!r}")
            error.__cause__ = raised
        with self._condition:
            if self._is_current():
                self._error = error
                self._news.model = model
                self._news.done = True
                self._condition.notify_all()
        if world.tracker is not None:
            # XGBoost complains about collectives whose thread ends before they were left.
            threading.Event().wait()

    def _train(
        self, world: World, spec: TrainingSpec, checkpoint: Checkpoint | None
    ) -> bytes | None:
        """Return the model if this is the first of the world, otherwise None."""
        speak_as(world.rank)
        if world.tracker is not None:
            assert self._membership is not None
            self._membership.join(world.tracker, world.rank)
        if self._own_process:
            session.enter(self)
        if world.rebuild or self._matrices is None:
            self._matrices = None
            self._matrices = self._build(spec, None)
            # They hold all that is needed; what they were made of may go.
            self._loaded = None
        self._hooks.call("before_train", self)
        booster = boosting.boost(
            spec,
            self._matrices,
            checkpoint,
            self if world.rank == 0 else None,
            pausable=world.pausable,
        )
        self._hooks.call("after_train", self, {"bst": booster if world.rank == 0 else None})
        self._hooks.call("on_stop", self)
        return boosting.serialized(booster) if world.rank == 0 else None

    def _build_with(self, cuts: Cuts, spec: TrainingSpec) -> None:
        """Make the matrices alone, with the bins of the others, if that is possible."""
        matrices = self._build(spec, cuts.reference(spec.threads))
        if Cuts.of(matrices[0]).same_as(cuts):
            self._matrices, self._loaded = matrices, None

    def _build(self, spec: TrainingSpec, reference: Any) -> list[Any]:
        """Make the matrices.  Collective without ``reference``: all members take part."""
        if self._loaded is None:
            # The matrices that were made of it are of no use any more.
            self._loaded = [loading.load(shard) for shard in self._shards]
        built: list[Any] = []
        binned = loading.is_binned(spec.params, continues=spec.initial_model is not None)
        for loaded in self._loaded:
            built.append(
                loading.build(
                    loaded,
                    spec.params,
                    threads=spec.threads,
                    binned=binned,
                    reference=built[0] if built else reference,
                )
            )
        return built

    # ---------------------------------------------------------------- what reports from there

    def round_done(self, index: int, scores: Scores, checkpoint: Checkpoint | None) -> None:
        """Pass on what the boosting loop reports."""
        with self._condition:
            if not self._is_current():
                return
            self._news.rounds.append((index, scores))
            if checkpoint is not None:
                self._news.checkpoint = checkpoint
            self._condition.notify_all()

    def wants_pause(self) -> bool:
        """Say whether ``pause`` was called."""
        return self._pause

    def put(self, item: Any) -> None:
        """Pass on what user code has to say."""
        with self._condition:
            self._news.queue.append(item)
            self._condition.notify_all()
