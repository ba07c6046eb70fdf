"""The attempts that a training takes: worlds of actors, until one of them has the model."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import skate
from skate.exceptions import ActorError
from skate.xgboost import loading
from skate.xgboost.cuts import Cuts
from skate.xgboost.group import ActorGroup, Died, Raised
from skate.xgboost.library import xgboost
from skate.xgboost.messages import Left, Loaded, Progress, TrainingSpec
from skate.xgboost.params import ActorPlan
from skate.xgboost.progress import PERIOD_S, ProgressLines
from skate.xgboost.restarts import RestartPolicy
from skate.xgboost.scores import ScoreLog

#: When XGBoost fails in one actor that may be because another one has died, of which we learn a
#: moment later.  So many seconds are given to that moment.
VERDICT_S = 5.0
#: Seconds in which an actor has to leave a world that has lost a member.  One that computes
#: something that takes longer is replaced.
LEAVE_S = 30.0
#: Seconds after which a training that still waits for its actors says so.
PATIENCE_S = 15.0

logger = logging.getLogger(__name__)


def is_reusable(spec: TrainingSpec) -> bool:
    """Say whether matrices that are there can be used with those that others make later.

    Matrices without bins find them in their first round, together; so do those on GPUs.
    """
    binned = loading.is_binned(spec.params, continues=spec.initial_model is not None)
    return binned and not loading.is_on_gpu(spec.params)


class Attempts:
    """One training.

    A world cannot be mended: when a member dies the others leave it and the next one begins, with
    all actors or (elastic) with those that are there.  What actors have loaded outlives worlds.

    Args:
        plan: how many actors, and what they need.
        group: the actors.
        policy: what to do when some die.
        log: where the scores go.
        lines: where the progress is shown.
        binned: whether matrices can be used in another world.
    """

    def __init__(
        self,
        plan: ActorPlan,
        group: ActorGroup,
        policy: RestartPolicy,
        log: ScoreLog,
        lines: ProgressLines,
        *,
        binned: bool,
    ) -> None:
        self._plan = plan
        self._group = group
        self._policy = policy
        self._log = log
        self._lines = lines
        self._binned = binned
        #: Ranks that have matrices with the bins of this training.
        self._built: set[int] = set()
        self._known_cuts: Cuts | None = None
        self._number = 0
        #: Seconds in the boosting loop, of all worlds.
        self.training_seconds = 0.0
        #: By rank: what user code has put into the queue.
        self.returned: dict[int, list[Any]] = {}

    def run(self) -> bytes:
        """Return the serialized model.

        Raises:
            TrainingFailedError: actors died too often.
            Exception: what the training raised in an actor.
        """
        try:
            # While the actors import it in their constructors, and load.
            self._group.start_all()
            xgboost()
            while True:
                members = self._assemble()
                began = time.perf_counter()
                model = self._train(members)
                self.training_seconds += time.perf_counter() - began
                if model is not None:
                    return model
        finally:
            self._group.end_all()

    # ---------------------------------------------------------------- before a world

    def _assemble(self) -> list[int]:
        """Wait for those that the next world needs, and return their ranks."""
        group, number = self._group, self._plan.num_actors
        patient_until = time.monotonic() + PATIENCE_S
        while missing := number - len(group.loaded):
            if self._policy.goes_on_without(missing, started=self._number > 0):
                break
            self._lines.loading(len(group.loaded))
            happened = group.event(min(PERIOD_S, max(0.0, patient_until - time.monotonic())))
            if happened is None and time.monotonic() >= patient_until:
                self._say_what_is_missing()
                patient_until = math.inf
            elif happened is not None:
                self._while_loading(*happened)
        group.check_processes()
        return sorted(group.loaded)

    def _while_loading(self, rank: int, what: object) -> None:
        """Take notice of an actor that does not train."""
        if isinstance(what, Died):
            self._built.discard(rank)
            failure = self._policy.on_death(rank, self._log.rounds, str(what.error))
            logger.warning("%s. It is replaced.", failure)
            self._group.replace(rank, self._known_cuts)
        elif isinstance(what, Raised):
            what.reraise()
        elif isinstance(what, Loaded) and what.built:
            self._built.add(rank)

    def _say_what_is_missing(self) -> None:
        total = self._plan.total()
        free = skate.available_resources()
        logger.warning(
            "the training has waited %g s for its actors, of which %d of %d have loaded. Together"
            " they need %s; free are %s. It goes on when all are there.",
            PATIENCE_S,
            len(self._group.loaded),
            self._plan.num_actors,
            total,
            {name: free.get(name, 0) for name in total},
        )

    # ---------------------------------------------------------------- a world

    def _train(self, members: Sequence[int]) -> bytes | None:
        """Train until the end, a pause or a death; return the model if it is there."""
        self._number += 1
        checkpoint = self._policy.checkpoint
        try:
            self._group.share_gpus(members)
            self._group.begin(
                self._number,
                members,
                None if checkpoint is None else skate.put(checkpoint),
                pausable=len(members) < self._plan.num_actors,
                rebuild=not self._binned or not self._built.issuperset(members),
            )
        except ActorError as error:
            self._group.end(members[0])
            self._disband(members[1:], [(members[0], error)])
            return None
        return self._follow(members)

    def _follow(self, members: Sequence[int]) -> bytes | None:
        model: bytes | None = None
        training = set(members)
        # The first error that may be a consequence of a death.
        suspicion: Raised | None = None
        verdict_at = math.inf
        while training:
            happened = self._group.event(min(PERIOD_S, max(0.0, verdict_at - time.monotonic())))
            self._lines.training(self._log.rounds, len(members))
            if happened is None:
                if suspicion is not None and time.monotonic() >= verdict_at:
                    suspicion.reraise()
                continue
            rank, what = happened
            if rank not in members:
                self._while_loading(rank, what)
                if isinstance(what, Loaded):
                    self._group.pause(members[0])
            elif isinstance(what, Progress):
                self._take(rank, what)
                model = what.model if model is None else model
                if what.done:
                    training.discard(rank)
                else:
                    self._group.listen(rank)
            elif isinstance(what, Died):
                if model is not None:
                    # It is complete when the first has it; the others are only waited for so that
                    # their callbacks can finish.
                    return model
                self._disband([other for other in members if other != rank], [(rank, what.error)])
                return None
            elif isinstance(what, Raised):
                if not isinstance(what.error, xgboost().core.XGBoostError):
                    what.reraise()
                training.discard(rank)
                if suspicion is None:
                    suspicion, verdict_at = what, time.monotonic() + VERDICT_S
        if suspicion is not None:
            suspicion.reraise()
        self._built.update(members)
        return model

    def _take(self, rank: int, news: Progress) -> None:
        if news.checkpoint is not None:
            self._policy.checkpoint = news.checkpoint
        for index, scores in news.rounds:
            kept = news.checkpoint
            self._log.add(index, scores, kept if kept and kept.rounds_done == index + 1 else None)
        for item in news.queue:
            if callable(item):
                item()
            else:
                self.returned.setdefault(rank, []).append(item)

    def _disband(self, survivors: Sequence[int], dead: list[tuple[int, ActorError]]) -> None:
        """End a world that has lost members, and have these replaced."""
        group = self._group
        # Those that have not answered yet, and those that have to be replaced as well.
        waiting, stuck, built = set(survivors), set(survivors), set[int]()
        group.leave(survivors, LEAVE_S)
        deadline = time.monotonic() + LEAVE_S + VERDICT_S
        while waiting:
            happened = group.event(max(0.0, deadline - time.monotonic()))
            if happened is None:
                break
            rank, what = happened
            if isinstance(what, Died):
                dead.append((rank, what.error))
                waiting.discard(rank)
                stuck.discard(rank)
            elif isinstance(what, Left):
                # What it still has to say of this world is that it has failed.
                group.forget(rank)
                waiting.discard(rank)
                if what.out:
                    stuck.discard(rank)
                if what.built:
                    built.add(rank)
            elif isinstance(what, Progress):
                self._take(rank, what)
            elif rank not in survivors:
                self._while_loading(rank, what)
        built -= stuck
        self._built = built | (self._built & group.loaded.keys() - set(survivors))
        for index, (rank, error) in enumerate(dead):
            failure = self._policy.on_death(rank, self._log.rounds, str(error), together=index > 0)
            logger.warning("%s. It is replaced.", failure)
        self._log.rewind(self._policy.resumed_from)
        self._known_cuts = self._cuts()
        for rank in [*stuck, *(rank for rank, _ in dead)]:
            group.replace(rank, self._known_cuts)

    def _cuts(self) -> Cuts | None:
        """Return the bins that those use who have matrices; None if there are none."""
        for rank in self._built:
            # If it has died meanwhile, that is noticed in the next world.
            with contextlib.suppress(ActorError):
                return self._group.cuts(rank)
        return None
