"""The actors of a training, as seen by the driver: starts them, and tells what happens to them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import skate
from skate.exceptions import ActorError, NotSupportedError, TaskError
from skate.util.node_address import node_address
from skate.xgboost.actor import CONCURRENCY, TrainingActor
from skate.xgboost.collective import LOOPBACK
from skate.xgboost.cuts import Cuts
from skate.xgboost.loading import ShardSpec
from skate.xgboost.matrix import RayDMatrix
from skate.xgboost.messages import Left, Loaded, Progress, World
from skate.xgboost.params import ActorPlan, actor_options
from skate.xgboost.placement import Placement


@dataclass(frozen=True, slots=True)
class Died:
    """The actor of a rank is dead."""

    error: ActorError


@dataclass(slots=True)
class Raised:
    """A call of the actor has raised something, the training for instance."""

    error: Exception | None

    def reraise(self) -> NoReturn:
        """Raise it, and forget it.

        Its traceback has the frames of those who hold this, and they the data of the training: it
        would stay in the object store until Python looks for cycles.
        """
        error, self.error = self.error, None
        assert error is not None
        try:
            raise error
        finally:
            del error


#: What is told of an actor: its rank, and what has happened.
Event: TypeAlias = "tuple[int, Loaded | Left | Progress | Died | Raised]"


class ActorGroup:
    """One actor for each rank, replaced as often as ``replace`` is called.

    Args:
        plan: how many actors, and what they need.
        placement: where they run.
        matrices: what they share.
        spec: a ref to what is trained.
        whole_library: see ``TrainingActor``.
    """

    def __init__(
        self,
        plan: ActorPlan,
        placement: Placement,
        matrices: Sequence[RayDMatrix],
        spec: Any,
        *,
        whole_library: bool,
    ) -> None:
        self._plan = plan
        self._placement = placement
        self._spec = spec
        self._whole_library = whole_library
        self._matrices = matrices
        #: What each rank has to load; None until it is known.
        self._shards: list[list[ShardSpec]] | None = None
        #: Where the actors are, as far as they have said.
        self._nodes: dict[int, str] = {}
        self._class = skate.remote(TrainingActor)
        self._actors: dict[int, Any] = {}
        #: Calls that have not been answered, and of which rank.
        self._pending: dict[Any, int] = {}
        self._world = 0
        #: Ranks that have loaded, and what they said then.
        self.loaded: dict[int, Loaded] = {}

    # ---------------------------------------------------------------- their lives

    def start_all(self) -> None:
        """Start one actor for each rank; they load then."""
        for rank in range(self._plan.num_actors):
            self._create(rank)
        if not any(matrix.nodes for matrix in self._matrices):
            # While they start: what the driver has is stored now.
            self._divide(None)
        for rank in range(self._plan.num_actors):
            self._instruct(rank, None)

    def replace(self, rank: int, cuts: Cuts | None) -> None:
        """Start an actor in the place of one that has died; it loads then."""
        self.end(rank)
        self._create(rank)
        self._instruct(rank, cuts)

    def _create(self, rank: int) -> None:
        options = actor_options(self._placement.amounts())
        options.update(self._placement.options(rank))
        self._actors[rank] = self._class.options(max_concurrency=CONCURRENCY, **options).remote(
            rank, os.getpid(), self._whole_library
        )

    def _instruct(self, rank: int, cuts: Cuts | None) -> None:
        """Have an actor load, or say where it is if that matters and is not known."""
        if self._shards is None:
            self._call(rank, self._actors[rank].node.remote())
        else:
            self._load(rank, cuts)

    def _placed(self, rank: int, node_id: str) -> None:
        """Take notice of where an actor is; once that is known of all, they load what is near."""
        self._nodes[rank] = node_id
        if len(self._nodes) == self._plan.num_actors:
            self._divide([node for _, node in sorted(self._nodes.items())])
            for each in list(self._actors):
                self._load(each, None)

    def _divide(self, nodes: Sequence[str] | None) -> None:
        number = self._plan.num_actors
        shards = [matrix.shards(number, nodes) for matrix in self._matrices]
        self._shards = [[each[rank] for each in shards] for rank in range(number)]

    def _load(self, rank: int, cuts: Cuts | None) -> None:
        assert self._shards is not None
        self._call(rank, self._actors[rank].load.remote(self._spec, cuts, self._shards[rank]))

    def end(self, rank: int) -> None:
        """End the actor of a rank, if there is one, at once."""
        actor = self._actors.pop(rank, None)
        self.loaded.pop(rank, None)
        self._nodes.pop(rank, None)
        self._pending = {ref: other for ref, other in self._pending.items() if other != rank}
        if actor is not None:
            skate.kill(actor)

    def end_all(self) -> None:
        """End all actors at once."""
        for rank in list(self._actors):
            self.end(rank)

    # ---------------------------------------------------------------- what happens to them

    def event(self, timeout: float | None) -> Event | None:
        """Wait for what happens next and return it; None after so many seconds."""
        while self._pending:
            ready, _ = skate.wait(list(self._pending), num_returns=1, timeout=timeout)
            if not ready:
                return None
            rank = self._pending.pop(ready[0])
            happened = self._outcome(ready[0])
            if happened is None:
                continue
            if isinstance(happened, str):
                self._placed(rank, happened)
                continue
            if isinstance(happened, Died):
                self.end(rank)
            elif isinstance(happened, Loaded):
                self.loaded[rank] = happened
            return rank, happened
        raise AssertionError("there is nothing to wait for")

    def _outcome(self, ref: Any) -> Any:
        # Tracebacks have the frames of our callers, who hold what is returned; see
        # ``Raised.reraise``.  What has happened in the actor is part of the message.
        try:
            return skate.get(ref)
        except ActorError as error:
            if isinstance(error.__cause__, TaskError):
                # Its constructor raised: it would raise again.
                return Raised(error.__cause__)
            return Died(error.with_traceback(None))
        except Exception as error:
            return Raised(error.with_traceback(None))

    def _call(self, rank: int, ref: Any) -> None:
        self._pending[ref] = rank

    # ---------------------------------------------------------------- what they are told

    def begin(
        self, number: int, members: Sequence[int], checkpoint: Any, *, pausable: bool, rebuild: bool
    ) -> None:
        """Make a world of some ranks, and start to train; ``checkpoint`` may be a ref.

        Raises:
            ActorError: the first of them is dead.
        """
        self._world = number
        first = self._actors[members[0]]
        tracker = None
        if len(members) > 1:
            tracker = skate.get(first.track.remote(len(members), self._host(members)))
        for index, rank in enumerate(members):
            world = World(number, index, len(members), tracker, pausable, rebuild)
            actor = self._actors[rank]
            self._call(rank, actor.begin.remote(world, self._spec, checkpoint))
            self.listen(rank)

    def listen(self, rank: int) -> None:
        """Ask for the next news of a rank."""
        self._call(rank, self._actors[rank].progress.remote(self._world))

    def pause(self, rank: int) -> None:
        """Make the world stop whose first member that is."""
        self._call(rank, self._actors[rank].pause.remote())

    def leave(self, ranks: Sequence[int], seconds: float) -> None:
        """Make some ranks leave their world by force; each is told as ``Left``."""
        for rank in ranks:
            self._call(rank, self._actors[rank].leave.remote(self._world, seconds))

    def forget(self, rank: int) -> None:
        """Stop to listen to a rank."""
        self._pending = {ref: other for ref, other in self._pending.items() if other != rank}

    def cuts(self, rank: int) -> Cuts | None:
        """Return the bins that a rank uses.

        Raises:
            ActorError: it is dead.
        """
        found: Cuts | None = skate.get(self._actors[rank].cuts.remote())
        return found

    def _host(self, members: Sequence[int]) -> str:
        """Return the address at which the members reach the first of them."""
        nodes = {self.loaded[rank].node_id for rank in members}
        if len(nodes) == 1:
            return LOOPBACK
        return node_address(self.loaded[members[0]].node_id)

    # ---------------------------------------------------------------- what they have

    def check_processes(self) -> None:
        """Refuse an engine whose actors have no processes of their own.

        Raises:
            NotSupportedError: it does.
        """
        if len({answer.pid for answer in self.loaded.values()}) < len(self.loaded):
            raise NotSupportedError(
                f"{self._plan.num_actors} training actors need a process each, and this engine runs"
                ' all actors in one: use RayParams(num_actors=1), or skate.init(engine="native")'
            )

    def share_gpus(self, ranks: Sequence[int]) -> None:
        """Tell some ranks which GPUs of the trial they use, if they do not have their own.

        Raises:
            ValueError: a trial lends fewer GPUs than the actors need.
            ActorError: an actor is dead.
        """
        each = self._plan.gpus
        if not each or any(answer.gpu_ids for answer in self.loaded.values()):
            return
        gpu_ids = skate.get_gpu_ids()
        if len(gpu_ids) < math.ceil(each * self._plan.num_actors):
            raise ValueError(
                f"{self._plan.num_actors} training actors need {each:g} GPUs each, but there are"
                f" only {len(gpu_ids)} for them"
            )
        skate.get(
            [
                self._actors[rank].use_gpus.remote(
                    [gpu_ids[int(rank * each) + nth] for nth in range(max(1, int(each)))]
                )
                for rank in ranks
            ]
        )
