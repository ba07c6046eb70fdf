"""The orchestrator: which trial runs, goes on or stops.  Events in, actions out, no I/O.

The loop around it (``runner.py``) starts actors, waits for them and reports what happened:

    fill()       -> Start for as many trials as there is room for
    on_reports() -> Continue or Stop, for the trial that reported
    on_finished(), on_failed(), on_released(): something ended, and there may be room again
    end()        -> Kill for all trials that run

A *slot* is room for one trial.  A trial holds its slot from ``Start`` until it finished, failed or,
after ``Stop`` and ``Kill``, was released.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from skate.tune.error import TuneError
from skate.tune.objective import Objective, require
from skate.tune.schedulers.trial_scheduler import Gate, TrialScheduler
from skate.tune.search.searcher import FINISHED, Searcher
from skate.tune.search.space import has_variables, merged, varying
from skate.tune.stopper import Stopper, merge
from skate.tune.trial import Trial, flat_result


@dataclass(frozen=True, slots=True)
class Start:
    """Run the trial's function, and have it wait where ``gate`` says."""

    trial: Trial
    gate: Gate


@dataclass(frozen=True, slots=True)
class Continue:
    """Bring further reports; a trial that waits at a gate goes on, up to the next one."""

    trial: Trial
    gate: Gate


@dataclass(frozen=True, slots=True)
class Stop:
    """End the trial's function at its current or next report, then call ``on_released``."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class Kill:
    """End the trial's process at once, then call ``on_released``."""

    trial: Trial


Action: TypeAlias = Start | Continue | Stop | Kill


@dataclass(slots=True)
class Limits:
    """How much a run may do."""

    #: How many trials run at a time.
    slots: int = 1
    #: Passes over the grid, or trials of other searchers; -1 for no limit.
    num_samples: int = 1
    #: How often a failed trial is started again; -1 for always.
    max_failures: int = 0
    #: Whether the first failure ends the run.
    fail_fast: bool = False


@dataclass(slots=True)
class Orchestrator:
    """Decides about all trials of one run.

    Attributes:
        space: the search space, for naming the parameters that vary.
        id_prefix: what the trial ids of this run begin with.
    """

    searcher: Searcher
    scheduler: TrialScheduler
    stopper: Stopper
    objective: Objective
    limits: Limits
    space: Mapping[str, Any] = field(default_factory=dict)
    id_prefix: str = "trial"

    trials: list[Trial] = field(default_factory=list)
    #: Why the run ends before all trials were made; empty as long as it does not.
    end_reason: str = ""
    _holding: dict[str, Trial] = field(default_factory=dict)
    _retries: deque[Trial] = field(default_factory=deque)
    _exhausted: bool = False
    _total: int | None = None
    _informed: bool = False

    def __post_init__(self) -> None:
        self._total = self.searcher.total(self.limits.num_samples)

    # ---------------------------------------------------------------- state

    @property
    def running(self) -> Sequence[Trial]:
        """Trials that run."""
        return [trial for trial in self._holding.values() if trial.status == Trial.RUNNING]

    @property
    def total(self) -> int | None:
        """How many trials there will be; None if that is not known."""
        return len(self.trials) if self._exhausted else self._total

    @property
    def exhausted(self) -> bool:
        """Whether all trials have been made, so that free processes are of no use."""
        return self._exhausted or bool(self.end_reason)

    @property
    def wants_end(self) -> bool:
        """Whether the stopper has seen enough of the run."""
        return not self.end_reason and self.stopper.stop_all()

    # ---------------------------------------------------------------- making trials

    def fill(self) -> list[Start]:
        """Return trials to start, as many as there are slots free.

        Raises:
            TuneError: the searcher has nothing to suggest although no trial runs.
        """
        starts: list[Start] = []
        while not self.end_reason and len(self._holding) < self.limits.slots:
            trial = self._retries.popleft() if self._retries else self._next_trial()
            if trial is None:
                break
            trial.status = Trial.RUNNING
            self._holding[trial.trial_id] = trial
            starts.append(Start(trial, self._gate(trial)))
        return starts

    def _next_trial(self) -> Trial | None:
        if self._exhausted:
            return None
        if self._total is not None and len(self.trials) >= self._total:
            self._exhausted = True
            return None
        trial_id = f"{self.id_prefix}_{len(self.trials):05d}"
        suggestion = self.searcher.suggest(trial_id)
        if suggestion is None:
            if not self._holding:
                raise TuneError(
                    f"{type(self.searcher).__name__} suggests nothing although no trial is running"
                )
            return None
        if suggestion == FINISHED:
            self._exhausted = True
            return None
        if not isinstance(suggestion, dict):
            raise TuneError(
                f"{type(self.searcher).__name__}.suggest returned {suggestion!r} instead of a dict"
            )
        if not has_variables(self.space):
            # The searcher has a space of its own; what the run says beside it are constants.
            suggestion = merged(self.space, suggestion)
        trial = Trial(trial_id, suggestion, varying(self.space, suggestion))
        self.trials.append(trial)
        self._exhausted = len(self.trials) == self._total
        self.scheduler.on_trial_add(self, trial)
        return trial

    # ---------------------------------------------------------------- events

    def on_reports(self, trial: Trial, results: Sequence[dict[str, Any]]) -> Continue | Stop | None:
        """Take reports of a trial, in their order.

        Reports after the one that ended the trial are dropped.

        Returns:
            What to do with the trial; None if it was already ended.

        Raises:
            MetricError: reports lack what the run is about.
        """
        for result in results:
            if trial.status != Trial.RUNNING:
                return None
            reason = self._judge(trial, result)
            if reason:
                self._terminate(trial, reason)
                return Stop(trial)
        return Continue(trial, self._gate(trial)) if trial.status == Trial.RUNNING else None

    def on_finished(self, trial: Trial) -> None:
        """The trial's function returned.

        Raises:
            MetricError: the user named a metric, and the first trial ended without any report.
        """
        self._holding.pop(trial.trial_id, None)
        if trial.status != Trial.RUNNING:
            return
        self._terminate(trial, "completed")
        if not self._informed and self.objective.metric is not None:
            require(self.objective.metric, {})

    def on_failed(self, trial: Trial, error: BaseException) -> None:
        """The trial's function raised, or its process died."""
        self._holding.pop(trial.trial_id, None)
        if trial.status != Trial.RUNNING:
            return
        trial.failures += 1
        trial.error = error
        allowed = self.limits.max_failures
        if not self.limits.fail_fast and (allowed < 0 or trial.failures <= allowed):
            trial.restart()
            self.stopper.on_trial_restore(trial.trial_id, trial.iterations)
            self._retries.append(trial)
            return
        trial.status = Trial.ERROR
        self.scheduler.on_trial_error(self, trial)
        self.searcher.on_trial_complete(trial.trial_id, None, error=True)
        if self.limits.fail_fast:
            self.end_reason = "fail_fast"

    def on_released(self, trial: Trial) -> None:
        """The process of a stopped or killed trial is free or gone."""
        self._holding.pop(trial.trial_id, None)

    def end(self, reason: str) -> list[Kill]:
        """End the run: no further trial starts, those that run are killed.

        Args:
            reason: "time budget", "interrupted", "fail_fast" or "stopper".
        """
        self.end_reason = reason
        kills = [Kill(trial) for trial in self.running]
        for kill in kills:
            trial = kill.trial
            self._terminate(trial, "interrupted" if reason == "fail_fast" else reason)
        for trial in self._retries:
            trial.status = Trial.ERROR
        self._retries.clear()
        return kills

    # ---------------------------------------------------------------- inside

    def _gate(self, trial: Trial) -> Gate:
        return merge(self.scheduler.next_decision(trial), self.stopper.gate())

    def _judge(self, trial: Trial, result: dict[str, Any]) -> str:
        """Record a result; return why the trial ends, "" if it goes on."""
        trial.record(result)
        flat = flat_result(result)
        if not self._informed:
            self._inform(flat)
        self.searcher.on_trial_result(trial.trial_id, flat)
        verdict = self.scheduler.on_trial_result(self, trial, flat)
        if self.stopper(trial.trial_id, flat):
            return "criterion"
        if verdict == TrialScheduler.COMPLETE:
            return "completed"
        return "scheduler" if verdict == TrialScheduler.STOP else ""

    def _inform(self, flat: Mapping[str, Any]) -> None:
        """Tell searcher and scheduler what the run optimizes, now that a result has shown it."""
        self.objective.learn(flat)
        metric, mode = self.objective.metric, self.objective.mode
        assert metric is not None
        assert mode is not None
        self.searcher.set_search_properties(metric, mode, {})
        self.scheduler.set_search_properties(metric, mode)
        self._informed = True

    def _terminate(self, trial: Trial, reason: str) -> None:
        trial.status = Trial.TERMINATED
        trial.stop_reason = reason
        trial.error = None
        result = trial.last_result
        result["done"] = True
        result["early_stopped"] = trial.early_stopped
        flat = flat_result(result)
        self.scheduler.on_trial_complete(self, trial, flat)
        self.searcher.on_trial_complete(trial.trial_id, flat if trial.iterations else None)
