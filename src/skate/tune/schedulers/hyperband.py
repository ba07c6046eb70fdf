"""HyperBand: brackets of synchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Mapping

from skate.tune.schedulers.trial_scheduler import (
    Controller,
    Gate,
    TrialScheduler,
    Verdict,
    progress,
)
from skate.tune.trial import Trial


class HyperBandBracket:
    """Trials that are compared with each other at common milestones.

    All of them run up to the first milestone and wait there for the others.  Then the best
    ``1 / reduction_factor`` go on to the next one, and so on.

    Attributes:
        size: how many trials the bracket is for.
        milestones: where trials are compared; they end at the last one.
        rung: position of the milestone that the trials are on their way to.
        members: how many trials have entered.
    """

    def __init__(self, size: int, milestones: list[float], reduction_factor: float) -> None:
        self.size = size
        self.milestones = milestones
        self.reduction_factor = reduction_factor
        self.rung = 0
        self.members = 0
        self._closed = False
        #: How far each live trial is, in the order of their arrival.
        self._times: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._spent = 0.0

    @property
    def milestone(self) -> float:
        """How far trials run before they are compared, or end."""
        return self.milestones[self.rung]

    @property
    def is_last_rung(self) -> bool:
        """Whether the trials left run to their end."""
        return self.rung == len(self.milestones) - 1

    @property
    def filled(self) -> bool:
        """Whether no trial can be added any more."""
        return self._closed or self.members >= self.size

    @property
    def live(self) -> list[str]:
        """Trials that have not ended, in the order in which they were added."""
        return list(self._times)

    def survivors(self, rung: int) -> int:
        """Return how many trials run up to the milestone at position ``rung``."""
        count = self.size if not self._closed else self.members
        return max(1, math.floor(count * self.reduction_factor**-rung + 1e-9))

    @property
    def budget(self) -> float:
        """What all trials together use, if none is run twice and none fails."""
        total, before = 0.0, 0.0
        for rung, milestone in enumerate(self.milestones):
            total += self.survivors(rung) * (milestone - before)
            before = milestone
        return total

    @property
    def progress(self) -> float:
        """The part of the budget that is used up."""
        return min(self._spent / self.budget, 1.0)

    def close(self) -> None:
        """Take no more trials: the bracket makes do with those it has."""
        self._closed = True

    def add(self, trial_id: str) -> None:
        """Take one more trial."""
        assert not self.filled
        self.members += 1
        self._times[trial_id] = 0.0

    def drop(self, trial_id: str) -> None:
        """Forget a trial that ended."""
        self._times.pop(trial_id, None)
        self._scores.pop(trial_id, None)

    def observe(self, trial_id: str, time: float, score: float) -> None:
        """Take a report of a trial; a larger score is better."""
        self._spent += max(0.0, time - self._times[trial_id])
        self._times[trial_id] = time
        self._scores[trial_id] = score

    def arrived(self, trial_id: str) -> bool:
        """Say whether the trial has come to the milestone."""
        return self._times[trial_id] >= self.milestone

    def may_run(self, trial_id: str) -> bool:
        """Say whether the trial has to wait for nobody."""
        return self.is_last_rung or not self.arrived(trial_id)

    @property
    def waits(self) -> bool:
        """Whether no live trial may run: they can be compared."""
        return bool(self._times) and not any(map(self.may_run, self._times))

    def halve(self) -> list[str]:
        """Move the best trials on to the next milestone; return the others.

        Equal trials stay in the order in which they were added.
        """
        self.rung += 1
        keep = self.survivors(self.rung)
        bad = sorted(self._times, key=lambda name: -self._scores[name])[keep:]
        for name in bad:
            self.drop(name)
        return bad

    def __str__(self) -> str:
        return (
            f"Bracket({len(self._times)} live of {self.members}, milestone={self.milestone:g},"
            f" completed={self.progress:.0%})"
        )


class HyperBandScheduler(TrialScheduler):
    """Ends trials early, in brackets that differ in how early.

    A *band* has a bracket for each s = 0, 1, ... s_max, where s_max is the largest power of
    ``reduction_factor`` (eta) in ``max_t`` (R).  Bracket s begins with
    ``ceil((s_max + 1) / (s + 1) * eta**s)`` trials, compares them at ``R * eta**-s`` and each time
    lets the best 1/eta of them go on eta times as far, so that each bracket uses about the same
    budget.  Trials fill the brackets of a band from s = 0 on, then those of the next band.

    Trials wait for each other (they are paused meanwhile), so the trainable has to save
    checkpoints.  ``ASHAScheduler`` does without both.

    Source: Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization",
    JMLR 18 (2018), algorithm 1, except that trials go on where they were instead of beginning
    again.

    Args:
        time_attr: the field of a result that measures how far a trial is; it has to grow.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        max_t: trials end here, in units of ``time_attr``.  Milestones are whole numbers if this is
            one.
        reduction_factor: one of so many trials goes on at a milestone.
        stop_last_trials: whether ``max_t`` ends the trials that get there.
    """

    needs_checkpoints = True

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 81,
        reduction_factor: float = 3,
        stop_last_trials: bool = True,
    ) -> None:
        super().__init__(metric, mode)
        if max_t <= 0:
            raise ValueError(f"max_t has to be above 0, got {max_t}")
        if reduction_factor <= 1:
            raise ValueError(f"reduction_factor has to be above 1, got {reduction_factor}")
        self.time_attr = time_attr
        self.max_t = max_t
        self.reduction_factor = reduction_factor
        self.stop_last_trials = stop_last_trials
        self.s_max = max(0, math.floor(math.log(max_t, reduction_factor) + 1e-9))
        self.bands: list[list[HyperBandBracket]] = []
        self.stopped = 0
        self._bracket_of: dict[str, HyperBandBracket] = {}

    # ---------------------------------------------------------------- brackets

    def make_bracket(self, s: int) -> HyperBandBracket:
        """Return an empty bracket with ``s`` halvings."""
        eta = self.reduction_factor
        milestones = [self.max_t * eta ** (rung - s) for rung in range(s + 1)]
        if float(self.max_t).is_integer():
            milestones = [max(1.0, math.floor(milestone + 1e-9)) for milestone in milestones]
        size = math.ceil((self.s_max + 1) / (s + 1) * eta**s - 1e-9)
        return HyperBandBracket(size, milestones, eta)

    def halvings(self, position: int) -> int:
        """Return how often the bracket at ``position`` of a band halves."""
        return position

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Put the trial into the bracket that is being filled."""
        if not self.bands:
            self.bands.append([])
        band = self.bands[-1]
        if not band or band[-1].filled:
            if len(band) > self.s_max:
                band = []
                self.bands.append(band)
            band.append(self.make_bracket(self.halvings(len(band))))
        band[-1].add(trial.trial_id)
        self._bracket_of[trial.trial_id] = band[-1]

    # ---------------------------------------------------------------- verdicts

    def next_decision(self, trial: Trial) -> Gate:
        """The milestone."""
        bracket = self._bracket_of[trial.trial_id]
        if bracket.is_last_rung and not self.stop_last_trials:
            return {}
        return {self.time_attr: bracket.milestone}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        """Have the trial wait at the milestone until the others are there, then compare."""
        time = progress(result, self.time_attr)
        if self.stop_last_trials and time >= self.max_t:
            return self.COMPLETE
        score = self.score(result)
        if score is None:
            return self.CONTINUE
        bracket, name = self._bracket_of[trial.trial_id], trial.trial_id
        if name not in bracket.live:  # compared with the others while it started again
            return self.STOP
        bracket.observe(name, time, score)
        if bracket.may_run(name):
            return self.CONTINUE
        self.on_arrival(bracket, trial)
        self._compare(controller, bracket)
        if name not in bracket.live:
            return self.STOP
        return self.CONTINUE if bracket.may_run(name) else self.PAUSE

    def on_arrival(self, bracket: HyperBandBracket, trial: Trial) -> None:
        """A trial has come to a milestone; for schedulers that tell the searcher so."""

    def _compare(self, controller: Controller, bracket: HyperBandBracket) -> None:
        """Halve the bracket if no trial of it is still under way or to come."""
        if not bracket.filled and controller.exhausted:
            bracket.close()
        while bracket.filled and bracket.waits:
            bad = set(bracket.halve())
            self.stopped += len(bad)
            for trial in _named(controller, bad):
                # The one that is being judged runs, and ends by the verdict.
                if trial.status in (Trial.PAUSED, Trial.PENDING):
                    controller.stop_trial(trial)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        """Wait for the trial no longer."""
        self._remove(controller, trial)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Wait for the trial no longer."""
        self._remove(controller, trial)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Wait for the trial no longer."""
        self._remove(controller, trial)

    def _remove(self, controller: Controller, trial: Trial) -> None:
        bracket = self._bracket_of[trial.trial_id]
        if trial.trial_id in bracket.live:
            bracket.drop(trial.trial_id)
            self._compare(controller, bracket)

    # ---------------------------------------------------------------- who runs next

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Return a trial of the bracket that is furthest behind, in the oldest band that has one.

        Trials that wait for others are not chosen.
        """
        waiting = {
            trial.trial_id: trial
            for trial in controller.live_trials
            if trial.status in (Trial.PENDING, Trial.PAUSED)
        }
        if not waiting:
            return None
        for bracket in self._brackets():
            for name in bracket.live:
                if name in waiting and bracket.may_run(name):
                    return waiting[name]
        return None

    def on_idle(self, controller: Controller) -> None:
        """Let the brackets make do with the trials they have: no further ones come."""
        for bracket in self._brackets():
            if bracket.waits:
                bracket.close()
                self._compare(controller, bracket)

    def _brackets(self) -> list[HyperBandBracket]:
        return [
            bracket
            for band in self.bands
            for bracket in sorted(band, key=lambda bracket: bracket.progress)
            if bracket.live
        ]

    def debug_string(self) -> str:
        """Return the state of each bracket that still has trials."""
        brackets = ", ".join(str(bracket) for bracket in self._brackets())
        return f"HyperBand: {self.stopped} stopped early; {brackets or 'no trials'}"


def _named(controller: Controller, names: set[str]) -> list[Trial]:
    return [trial for trial in controller.live_trials if trial.trial_id in names]
