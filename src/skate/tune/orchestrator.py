"""The orchestrator: which trial runs, goes on, waits or stops.  Events in, actions out, no I/O.

The loop around it (``runner.py``) starts actors, waits for them and reports what happened:

    fill()        -> Start for as many trials as there is room for
    on_reports()  -> Continue, Renew, Pause or Stop, for the trial that reported
    on_paused(), on_finished(), on_failed(), on_released(): there may be room again
    take_ended()  -> trials that ended while they waited
    end()         -> Kill for all trials that run

A *slot* is room for one trial.  A trial holds its slot from ``Start`` until it finished, failed or,
after ``Pause``, ``Stop`` and ``Kill``, was paused or released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skate.tune.actions import Answer, Continue, Kill, Pause, Renew, Start, Stop
from skate.tune.clones import Clones, Held, no_checkpoint
from skate.tune.error import TuneError
from skate.tune.limits import Limits
from skate.tune.objective import Objective, require
from skate.tune.resources import PlacementGroupFactory, Room
from skate.tune.schedulers.trial_scheduler import Exploit, Gate, Resize, TrialScheduler
from skate.tune.search.searcher import Searcher
from skate.tune.stopper import Stopper, merge
from skate.tune.trial import Trial, TrialCheckpoint, flat_result
from skate.tune.trial_source import TrialSource


@dataclass(slots=True)
class Orchestrator:
    """Decides about all trials of one run.

    Attributes:
        space: the search space, for naming the parameters that vary.
        id_prefix: what the trial ids of this run begin with.
        resources_of: what the trial with a configuration needs; one CPU if None.
    """

    searcher: Searcher
    scheduler: TrialScheduler
    stopper: Stopper
    objective: Objective
    limits: Limits
    space: Mapping[str, Any] = field(default_factory=dict)
    id_prefix: str = "trial"
    resources_of: Callable[[dict[str, Any]], PlacementGroupFactory] | None = None
    #: Gives new trials their names.
    christen: Callable[[Trial], None] | None = None

    trials: list[Trial] = field(default_factory=list)
    #: Why the run ends before all trials were made; empty as long as it does not.
    end_reason: str = ""
    #: Trials that have not ended, in the order of their creation.
    _live: dict[str, Trial] = field(default_factory=dict)
    #: Those of them without a slot: PENDING or PAUSED.
    _waiting: dict[str, Trial] = field(default_factory=dict)
    _holding: dict[str, Trial] = field(default_factory=dict)
    _room: Room = field(init=False)
    _source: TrialSource = field(init=False)
    _clones: Clones = field(init=False)
    _ended: list[Trial] = field(default_factory=list)
    _informed: bool = False

    def __post_init__(self) -> None:
        self._room = Room(self.limits.resources)
        self._clones = Clones(self.space)
        self._source = TrialSource(
            self.searcher,
            self.limits.num_samples,
            self.space,
            self.id_prefix,
            self.resources_of,
            self.christen,
        )

    # ---------------------------------------------------------------- state

    @property
    def running(self) -> Sequence[Trial]:
        """Trials that run."""
        return [trial for trial in self._holding.values() if trial.status == Trial.RUNNING]

    @property
    def live_trials(self) -> Sequence[Trial]:
        """Trials that have not ended, in the order of their creation."""
        return list(self._live.values())

    @property
    def total(self) -> int | None:
        """How many trials there will be; None if that is not known."""
        return len(self.trials) if self._source.exhausted else self._source.total

    @property
    def total_resources(self) -> Mapping[str, float] | None:
        """What all trials together may hold; None for no limit."""
        return self.limits.resources

    @property
    def exhausted(self) -> bool:
        """Whether all trials have been made."""
        return self._source.exhausted or bool(self.end_reason)

    @property
    def informed(self) -> bool:
        """Whether searcher and scheduler know what the run optimizes."""
        return self._informed

    @property
    def exploits(self) -> Mapping[str, Held]:
        """What paused trials start with when they run next, by trial id."""
        return self._clones.waiting

    @property
    def needs_no_more_actors(self) -> bool:
        """Whether free processes are of no use, because nothing waits to run."""
        return self.exhausted and not self._waiting

    @property
    def wants_end(self) -> bool:
        """Whether the stopper has seen enough of the run."""
        return not self.end_reason and self.stopper.stop_all()

    def checkpoint_of(self, trial: Trial) -> TrialCheckpoint | None:
        """Return the newest checkpoint of a trial, None if there is none."""
        return trial.checkpoint

    # ---------------------------------------------------------------- resuming

    def resume(self, trials: Sequence[Trial], exploits: Mapping[str, Held], informed: bool) -> None:
        """Take over the trials of a run that was cut short; those that ran start again.

        Searcher, scheduler and stopper have their states by now.
        """
        self.trials = list(trials)
        self._clones.waiting = dict(exploits)
        self._informed = informed
        for trial in (each for each in trials if not each.is_finished):
            has_start = trial.checkpoint is not None or trial.trial_id in exploits
            if trial.status == Trial.PAUSED and has_start:
                self._live[trial.trial_id] = self._waiting[trial.trial_id] = trial
            else:
                self._begin_again(trial)

    def revive(self, trial: Trial) -> None:
        """Have a trial that has ended run again, from its checkpoint if it has one."""
        trial.error, trial.failures, trial.stop_reason = None, 0, ""
        trial.last_result = {**trial.last_result, "done": False, "early_stopped": False}
        self._begin_again(trial)
        self.scheduler.on_trial_add(self, trial)

    def abandon(self, trial: Trial) -> None:
        """End a trial that was cut short and is not to go on."""
        self._remove(trial, "interrupted")

    # ---------------------------------------------------------------- starting trials

    def fill(self) -> list[Start]:
        """Return trials to start, as many as there is room for.

        Raises:
            TuneError: nothing runs, and neither searcher nor scheduler has anything to run.
        """
        starts: list[Start] = []
        while not self.end_reason and len(self._holding) < self.limits.slots:
            trial = self._choose()
            # One that is still being paused is started when that is done.
            if trial is None or trial.trial_id in self._holding:
                break
            required = trial.resources.required_resources
            if not self._room.fits(required):
                if self._holding:
                    break
                self._give_up(trial, TuneError(self._room.refusal(required)))
                self._ended.append(trial)
                continue
            if self._prepare(trial):
                trial.status = Trial.RUNNING
                self._room.take(trial.trial_id, required)
                self._holding[trial.trial_id] = trial
                starts.append(Start(trial, self._gate(trial)))
        return starts

    def _prepare(self, trial: Trial) -> bool:
        """Have a waiting trial go on from its checkpoint; say whether it can."""
        held = self._clones.take(trial)
        if held is not None:
            if not self._adopt(trial, *held):
                self._ended.append(trial)
                return False
        elif trial.status == Trial.PAUSED:
            self._rewind(trial)
        if trial.status == Trial.PAUSED:
            self._source.unpaused(trial)
        del self._waiting[trial.trial_id]
        return True

    def _choose(self) -> Trial | None:
        """Return the trial to start next, None if none is to start now."""
        while True:
            self._make_trial()
            trial = self.scheduler.choose_trial_to_run(self)
            if trial is not None or self._holding or not self._waiting:
                return trial
            # Nothing runs that could change the scheduler's mind.
            before = len(self._waiting)
            self.scheduler.on_idle(self)
            trial = self.scheduler.choose_trial_to_run(self)
            if trial is not None:
                return trial
            if len(self._waiting) == before:
                raise TuneError(
                    f"{type(self.scheduler).__name__} starts none of the {before} trials that wait"
                    " although no trial is running"
                )

    def _make_trial(self) -> None:
        """Make a trial if it could start now: made earlier, it would know less."""
        if any(trial.status == Trial.PENDING for trial in self._waiting.values()):
            return
        # What it will need is known afterwards; most likely it is what the last one needs.
        last = self.trials[-1:] if self._holding else []
        if not all(self._room.fits(trial.resources.required_resources) for trial in last):
            return
        trial = self._source.make(self.trials, idle=not self._holding and not self._waiting)
        if trial is not None:
            self.trials.append(trial)
            self._live[trial.trial_id] = self._waiting[trial.trial_id] = trial
            self.scheduler.on_trial_add(self, trial)

    # ---------------------------------------------------------------- events

    def on_reports(
        self,
        trial: Trial,
        results: Sequence[dict[str, Any]],
        checkpoint: TrialCheckpoint | None = None,
    ) -> Answer | None:
        """Take reports of a trial, in their order.

        Reports after the one that ended or paused the trial are dropped.

        Args:
            trial: who reported.
            results: what.
            checkpoint: what came with the last of them, to be filled in if that one counts.

        Returns:
            What to do with the trial; None if it was already ended.

        Raises:
            MetricError: reports lack what the run is about.
        """
        for position, result in enumerate(results, 1):
            if trial.status != Trial.RUNNING:
                return None
            trial.record(result)
            if checkpoint is not None and position == len(results):
                trial.take_checkpoint(checkpoint)
            answer = self._judge(trial, result)
            if answer is not None:
                return answer
        return Continue(trial, self._gate(trial)) if trial.status == Trial.RUNNING else None

    def on_paused(
        self,
        trial: Trial,
        checkpoint: TrialCheckpoint | None = None,
        results: Sequence[dict[str, Any]] = (),
    ) -> None:
        """The process of a paused trial is free.

        Args:
            trial: which.
            checkpoint: what was taken, with no more than its ref, if anything was.
            results: what the trial did between verdict and checkpoint; nobody judges that.
        """
        self.on_released(trial)
        if trial.status != Trial.PAUSED:
            return
        for result in results:
            trial.record(result)
        if trial.last_result.get("done"):
            self._terminate(trial, "completed")
            self._ended.append(trial)
            return
        if checkpoint is not None:
            trial.take_checkpoint(checkpoint)
        if trial.checkpoint is None and trial.trial_id not in self._clones.waiting:
            self._give_up(trial, no_checkpoint(self.scheduler, trial, "pauses"))
            self._ended.append(trial)
            return
        self._waiting[trial.trial_id] = trial

    def on_finished(self, trial: Trial, results: Sequence[dict[str, Any]] = ()) -> None:
        """The trial's function returned.

        Args:
            trial: which.
            results: what it did after it was to be paused, which came too late.

        Raises:
            MetricError: the user named a metric, and the first trial ended without any report.
        """
        self.on_released(trial)
        if trial.is_finished:
            return
        for result in results:
            trial.record(result)
        self._terminate(trial, "completed")
        if not self._informed and self.objective.metric is not None:
            require(self.objective.metric, {})

    def on_failed(self, trial: Trial, error: BaseException) -> None:
        """The trial's function raised, or its process died."""
        self.on_released(trial)
        if trial.is_finished:
            return
        trial.failures += 1
        trial.error = error
        allowed = self.limits.max_failures
        if not self.limits.fail_fast and (allowed < 0 or trial.failures <= allowed):
            self._begin_again(trial)
            return
        self._give_up(trial, error)
        if self.limits.fail_fast:
            self.end_reason = "fail_fast"

    def on_checkpoint_lost(self, trial: Trial, older: TrialCheckpoint | None) -> None:
        """The trial could not start: the node that had its checkpoint is gone.

        That is no failure of the trial; it goes on from ``older``.
        """
        self.on_released(trial)
        if trial.is_finished:
            return
        trial.checkpoint = older
        self._begin_again(trial)

    def on_released(self, trial: Trial) -> None:
        """The process of a stopped or killed trial is free or gone."""
        if self._holding.pop(trial.trial_id, None) is not None:
            self._room.give(trial.trial_id)

    def stop_trial(self, trial: Trial) -> None:
        """End a trial that is paused or has not started.

        Raises:
            ValueError: it runs, or has ended.
        """
        if trial.status not in (Trial.PENDING, Trial.PAUSED):
            raise ValueError(
                f"stop_trial is for trials that are pending or paused; {trial.trial_id} is"
                f" {trial.status}, the verdict after its next report can end it"
            )
        self._remove(trial, "scheduler")

    def exploit_paused(self, trial: Trial, exploit: Exploit) -> None:
        """Have a paused trial, or the one being judged, start with ``exploit`` when it runs next.

        The checkpoint is the newest that its source has now; see ``Clones.hold``.
        """
        self._clones.hold(trial, exploit)

    def take_ended(self) -> list[Trial]:
        """Return the trials that ended while they waited, each once."""
        ended, self._ended = self._ended, []
        return ended

    def end(self, reason: str) -> list[Kill]:
        """End the run: no further trial starts, those that run are killed.

        Args:
            reason: "time budget", "interrupted", "fail_fast" or "stopper".
        """
        self.end_reason = reason
        shown = "interrupted" if reason == "fail_fast" else reason
        kills = [Kill(trial) for trial in self._holding.values() if not trial.is_finished]
        for kill in kills:
            self._terminate(kill.trial, shown)
        for trial in list(self._waiting.values()):
            if trial.failures and trial.status == Trial.PENDING:
                trial.status = Trial.ERROR
                self._forget(trial)
            else:
                self._remove(trial, shown)
        return kills

    # ---------------------------------------------------------------- inside

    def _gate(self, trial: Trial) -> Gate:
        return merge(self.scheduler.next_decision(trial), self.stopper.gate())

    def _judge(self, trial: Trial, result: dict[str, Any]) -> Answer | None:
        """Return what becomes of a trial after a result, None if it goes on."""
        flat = flat_result(result)
        if not self._informed:
            self._inform(flat)
        self._source.reported(trial, flat)
        if flat.get("done"):
            # There is nothing left to decide.
            return self._stop(trial, "completed")
        enough = self.stopper(trial.trial_id, flat)
        if enough and self.scheduler.changes_config:
            # Nobody is given another configuration at the end.
            return self._stop(trial, "criterion")
        verdict = self.scheduler.on_trial_result(self, trial, flat)
        if enough:
            return self._stop(trial, "criterion")
        if verdict == TrialScheduler.CONTINUE:
            return None
        if verdict == TrialScheduler.STOP:
            return self._stop(trial, "scheduler")
        if verdict == TrialScheduler.COMPLETE:
            return self._stop(trial, "completed")
        if isinstance(verdict, Exploit):
            return Renew(trial, self._gate(trial)) if self._adopt(trial, verdict) else Stop(trial)
        if isinstance(verdict, Resize):
            trial.resources = verdict.resources
        elif verdict != TrialScheduler.PAUSE:
            raise TuneError(f"{type(self.scheduler).__name__} returned the verdict {verdict!r}")
        trial.status = Trial.PAUSED
        self._source.paused(trial)
        newest = trial.checkpoint
        return Pause(trial, save=newest is None or newest.reports < trial.iterations)

    def _inform(self, flat: Mapping[str, Any]) -> None:
        """Tell searcher and scheduler what the run optimizes, once a result has shown it."""
        needed = self.scheduler.needs_metric or self.searcher.needs_metric
        if not self.objective.learn(flat, needed):
            return  # trials that report no numbers: there is nothing to go by, and nobody does
        metric, mode = self.objective.metric, self.objective.mode
        assert metric is not None
        assert mode is not None
        self.searcher.set_search_properties(metric, mode, {})
        self.scheduler.set_search_properties(metric, mode)
        self._informed = True

    def _begin_again(self, trial: Trial) -> None:
        """Have a trial wait to start from its checkpoint, or anew if it has none."""
        if trial.status == Trial.PAUSED:
            self._source.unpaused(trial)
        trial.status = Trial.PENDING
        self._rewind(trial)
        self._live[trial.trial_id] = self._waiting[trial.trial_id] = trial

    def _rewind(self, trial: Trial) -> None:
        """Forget what a trial reported after its checkpoint: it will report that again."""
        if trial.rewind():
            self.stopper.on_trial_restore(trial.trial_id, trial.iterations)

    def _adopt(self, trial: Trial, exploit: Exploit, held: TrialCheckpoint | None = None) -> bool:
        """Give a trial another configuration and checkpoint; say whether there is one."""
        if self._clones.adopt(trial, exploit, held):
            return True
        self._give_up(trial, no_checkpoint(self.scheduler, exploit.source, "clones"))
        return False

    # ---------------------------------------------------------------- ends of trials

    def _stop(self, trial: Trial, reason: str) -> Stop:
        self._terminate(trial, reason)
        return Stop(trial)

    def _terminate(self, trial: Trial, reason: str) -> None:
        self.scheduler.on_trial_complete(self, trial, self._close(trial, reason))

    def _remove(self, trial: Trial, reason: str) -> None:
        """End a trial that waits, or is about to."""
        self._close(trial, reason)
        self.scheduler.on_trial_remove(self, trial)
        self._ended.append(trial)

    def _close(self, trial: Trial, reason: str) -> dict[str, Any]:
        trial.status = Trial.TERMINATED
        trial.stop_reason = reason
        trial.error = None
        self._forget(trial)
        result = trial.last_result
        result["done"] = True
        result["early_stopped"] = trial.early_stopped
        flat = flat_result(result)
        self._source.ended(trial, flat if trial.iterations else None)
        return flat

    def _give_up(self, trial: Trial, error: BaseException) -> None:
        trial.status = Trial.ERROR
        trial.error = error
        self._forget(trial)
        self.scheduler.on_trial_error(self, trial)
        self._source.ended(trial, None, error=True)

    def _forget(self, trial: Trial) -> None:
        self._live.pop(trial.trial_id, None)
        self._waiting.pop(trial.trial_id, None)
        self._clones.take(trial)
