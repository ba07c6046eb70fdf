"""Trials get more resources, or fewer, while they run."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from skate.tune.resources import PlacementGroupFactory, Resources, as_factory, normalize
from skate.tune.schedulers.trial_scheduler import (
    Controller,
    FIFOScheduler,
    Gate,
    Lines,
    Resize,
    TrialScheduler,
    Verdict,
)
from skate.tune.trial import Trial

#: Sums of fractions are off by less than that.
TOLERANCE = 1e-6
#: So many reports in a row a trial has to wait for a verdict, until it is clear that it does not
#: save checkpoints.
PATIENCE = 3


class Distribution(ABC):
    """Says what a trial should have, in steps of the same size above what trials start with.

    Args:
        add_bundles: whether each step is a bundle of its own (for trainables that start as many
            workers as there are bundles).  If not, the first bundle grows.
        increase_by: one step; by default what trials start with.
        increase_by_times: at most so many steps; -1 for no limit.
        reserve_resources: what is not to be given away.

    Raises:
        ValueError: ``increase_by`` is empty.
    """

    def __init__(
        self,
        add_bundles: bool = False,
        increase_by: Mapping[str, float] | None = None,
        increase_by_times: int = -1,
        reserve_resources: Mapping[str, float] | None = None,
    ) -> None:
        self.add_bundles = add_bundles
        self.increase_by = None if increase_by is None else _positive(normalize(increase_by))
        if self.increase_by is not None and not self.increase_by:
            raise ValueError(f"increase_by adds nothing: {increase_by!r}")
        self.increase_by_times = increase_by_times
        self.reserve_resources = normalize(reserve_resources or {})

    def __call__(
        self,
        controller: Controller,
        trial: Trial,
        result: Mapping[str, object],
        scheduler: ResourceChangingScheduler,
    ) -> PlacementGroupFactory | None:
        """Return what ``trial`` should have, None for what it has."""
        total = controller.total_resources
        if total is None:
            return None
        base = scheduler.base_of(trial)
        step = self.increase_by or _positive(base.head)
        if not step:
            return None
        there = {
            name: total.get(name, 0.0) - self.reserve_resources.get(name, 0.0) for name in step
        }
        return self._grown(base, step, self.steps(controller, trial, scheduler, there, step))

    @abstractmethod
    def steps(
        self,
        controller: Controller,
        trial: Trial,
        scheduler: ResourceChangingScheduler,
        there: Mapping[str, float],
        step: Mapping[str, float],
    ) -> int:
        """Return how many steps above the start a trial should be.

        Args:
            there: what can be given away, by name.
            step: how much one step takes of it.
        """

    def _grown(
        self, base: PlacementGroupFactory, step: Mapping[str, float], times: int
    ) -> PlacementGroupFactory:
        if self.increase_by_times >= 0:
            times = min(times, self.increase_by_times)
        if times <= 0:
            return base
        if self.add_bundles:
            bundles = [*base.bundles, *[step] * times]
        else:
            head = dict(base.head)
            for name, amount in step.items():
                head[name] = head.get(name, 0.0) + amount * times
            bundles = [head, *base.bundles[1:]]
        return PlacementGroupFactory(bundles, base.strategy)


class DistributeResources(Distribution):
    """Gives all trials the same share of what there is.

    Trials that have not started count: as long as there are more of them than fit, every trial has
    what it started with.  As trials end, the others grow.
    """

    def steps(
        self,
        controller: Controller,
        trial: Trial,
        scheduler: ResourceChangingScheduler,
        there: Mapping[str, float],
        step: Mapping[str, float],
    ) -> int:
        """As many as fit into an equal share."""
        to_come = _to_come(controller)
        if to_come is None:
            return 0
        base = scheduler.base_of(trial).required_resources
        sharers = len(controller.live_trials) + to_come
        return _fitting({n: there[n] / sharers - base.get(n, 0.0) for n in step}, step)


class DistributeResourcesToTopJob(Distribution):
    """Gives everything that is free to the best trial, by its newest result.

    Args:
        add_bundles, increase_by, increase_by_times, reserve_resources: as for
            ``DistributeResources``.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
    """

    def __init__(
        self,
        add_bundles: bool = False,
        increase_by: Mapping[str, float] | None = None,
        increase_by_times: int = -1,
        reserve_resources: Mapping[str, float] | None = None,
        metric: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(add_bundles, increase_by, increase_by_times, reserve_resources)
        self.metric = metric
        self.mode = mode

    def steps(
        self,
        controller: Controller,
        trial: Trial,
        scheduler: ResourceChangingScheduler,
        there: Mapping[str, float],
        step: Mapping[str, float],
    ) -> int:
        """As many as fit beside the others, for the best one."""
        to_come = _to_come(controller)
        metric, mode = self.metric or scheduler.metric, self.mode or scheduler.mode
        if to_come is None or metric is None or mode is None:
            return 0
        sign = -1.0 if mode == "min" else 1.0

        def score(other: Trial) -> float:
            value = sign * other.metric(metric, mode)
            return -math.inf if math.isnan(value) else value

        others = [other for other in controller.live_trials if other is not trial]
        if any(score(other) > score(trial) for other in others):
            return 0
        mine = scheduler.base_of(trial).required_resources
        others_have = [other.resources.required_resources for other in others]
        others_have += [mine] * to_come
        free = {}
        for name in step:
            used = sum(has.get(name, 0.0) for has in others_have)
            free[name] = there[name] - used - mine.get(name, 0.0)
        return _fitting(free, step)


#: Is called with the orchestrator, a trial, its result and the scheduler; returns what the trial
#: should have, None for what it has.
Allocation: TypeAlias = Callable[
    [Controller, Trial, Mapping[str, object], "ResourceChangingScheduler"],
    Resources | None,
]


class ResourceChangingScheduler(TrialScheduler):
    """Changes the resources of trials while another scheduler judges them.

    A trial whose resources are to change is paused, and goes on from its checkpoint in another
    process with the new ones, which ``tune.get_context().get_trial_resources()`` (or
    ``Trainable.trial_resources``) shows.  A trial without a checkpoint keeps what it has.

    Args:
        base_scheduler: judges; by default all trials run to their end.
        resources_allocation_function: says what a trial should have; ``DistributeResources()`` if
            not given.
    """

    needs_checkpoints = True

    def __init__(
        self,
        base_scheduler: TrialScheduler | None = None,
        resources_allocation_function: Allocation | None = None,
    ) -> None:
        self.base_scheduler = base_scheduler or FIFOScheduler()
        if not isinstance(self.base_scheduler, TrialScheduler):
            raise TypeError(f"base_scheduler wants a TrialScheduler, got {base_scheduler!r}")
        super().__init__(self.base_scheduler.metric, self.base_scheduler.mode)
        self.resources_allocation_function = resources_allocation_function or DistributeResources()
        self.works_with_searchers = self.base_scheduler.works_with_searchers
        self.needs_metric = self.base_scheduler.needs_metric
        self.only_searchers = self.base_scheduler.only_searchers
        self.changes_config = self.base_scheduler.changes_config
        #: What trials start with; None before the first one.
        self.base_trial_resources: PlacementGroupFactory | None = None
        self.resized = 0
        #: Trials to look at soon, because the shares have changed.
        self._to_check: set[str] = set()
        #: How often each trial had to wait at a report for that.
        self._asked: dict[str, int] = {}
        self._bases: dict[str, PlacementGroupFactory] = {}
        self._warned = False

    def base_of(self, trial: Trial) -> PlacementGroupFactory:
        """Return what a trial started with."""
        return self._bases[trial.trial_id]

    # ---------------------------------------------------------------- resources

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        """Let the other scheduler judge; if the trial goes on, see whether it has what it should.

        Raises:
            TypeError: the function returned something else than resources.
        """
        verdict = self.base_scheduler.on_trial_result(controller, trial, result)
        if verdict != self.CONTINUE:
            return verdict
        wanted = self.resources_allocation_function(controller, trial, result, self)
        if wanted is None or (resources := as_factory(wanted)) == trial.resources:
            self._to_check.discard(trial.trial_id)
            return verdict
        if controller.checkpoint_of(trial) is None:
            self._ask_for_checkpoint(trial, resources)
            return verdict
        self._to_check.discard(trial.trial_id)
        self.resized += 1
        return Resize(resources)

    def _ask_for_checkpoint(self, trial: Trial, resources: PlacementGroupFactory) -> None:
        """Have a trial wait at its next report: classes save a checkpoint then."""
        if self._asked.get(trial.trial_id, 0) < PATIENCE:
            self._to_check.add(trial.trial_id)
            return
        self._to_check.discard(trial.trial_id)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{trial.trial_id} keeps {trial.resources}: it has no checkpoint to go on from with"
                f" {resources}; report one with tune.report(metrics, checkpoint=...)",
                stacklevel=2,
            )

    def next_decision(self, trial: Trial) -> Gate:
        """As the other scheduler says, but soon when the shares have changed."""
        if trial.trial_id in self._to_check:
            self._asked[trial.trial_id] = self._asked.get(trial.trial_id, 0) + 1
            return None
        return self.base_scheduler.next_decision(trial)

    def _shares_changed(self, controller: Controller) -> None:
        self._to_check = {trial.trial_id for trial in controller.live_trials}

    # ---------------------------------------------------------------- passed on

    def set_search_properties(self, metric: str, mode: str) -> None:
        """Learn what the run optimizes."""
        super().set_search_properties(metric, mode)
        self.base_scheduler.set_search_properties(metric, mode)

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Pass on."""
        if self.base_trial_resources is None:
            self.base_trial_resources = trial.resources
        self._bases.setdefault(trial.trial_id, trial.resources)
        self.base_scheduler.on_trial_add(controller, trial)
        if controller.exhausted:  # what the last one leaves free can be given away
            self._shares_changed(controller)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        """Pass on; there is something to give away."""
        self.base_scheduler.on_trial_complete(controller, trial, result)
        self._shares_changed(controller)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Pass on; there is something to give away."""
        self.base_scheduler.on_trial_error(controller, trial)
        self._shares_changed(controller)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Pass on; there is something to give away."""
        self.base_scheduler.on_trial_remove(controller, trial)
        self._shares_changed(controller)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Pass on."""
        return self.base_scheduler.choose_trial_to_run(controller)

    def on_idle(self, controller: Controller) -> None:
        """Pass on."""
        self.base_scheduler.on_idle(controller)

    def take_lines(self) -> list[Lines]:
        """Pass on."""
        return self.base_scheduler.take_lines()

    def get_state(self) -> dict[str, Any]:
        """Return the state of both."""
        return {**super().get_state(), "base_scheduler": self.base_scheduler.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` of another process returned."""
        self.base_scheduler.set_state(state["base_scheduler"])
        super().set_state({name: v for name, v in state.items() if name != "base_scheduler"})

    def debug_string(self) -> str:
        """Return how often resources have changed, and what the other scheduler says."""
        return f"resources changed {self.resized} times | {self.base_scheduler.debug_string()}"


def _to_come(controller: Controller) -> int | None:
    """Return how many trials have not been made, None if nobody knows."""
    if controller.exhausted:
        return 0
    return None if controller.total is None else controller.total - len(controller.trials)


def _fitting(free: Mapping[str, float], step: Mapping[str, float]) -> int:
    return min(math.floor((free[name] + TOLERANCE) / amount) for name, amount in step.items())


def _positive(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if amount > 0}
