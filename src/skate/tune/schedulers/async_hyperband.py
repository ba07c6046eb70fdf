"""ASHA: asynchronous successive halving."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from skate.tune.schedulers.trial_scheduler import Controller, Gate, TrialScheduler, progress
from skate.tune.trial import Trial

#: Who lacks so little to a cutoff, as a part of the distance between the scores around it, has
#: reached it.  Accuracies are counts, so a score often is the cutoff, but for rounding.
ROUNDING = 1e-9


@dataclass(slots=True)
class Rung:
    """The scores, larger is better, of all trials that have come as far as ``milestone``."""

    milestone: float
    #: Ascending.
    scores: list[float] = field(default_factory=list)

    def enter(self, score: float, reduction_factor: float) -> bool:
        """Record a trial; say whether it may go on.

        It may if it reaches the quantile ``1 - 1/reduction_factor`` of those before it, which lies
        between two of them (linear interpolation).  Ranks, rounded down as in the paper, let too
        few pass where few have arrived: the paper promotes later whom its rungs keep back too
        early, here who is stopped is gone.
        """
        before = self.scores
        good = not before or _reaches(before, score, (len(before) - 1) / reduction_factor)
        bisect.insort(before, score)
        return good


def _reaches(scores: list[float], score: float, from_best: float) -> bool:
    """Say whether a score is at least the one at a position, counted from the end of ``scores``.

    Args:
        scores: ascending, at least one.
        score: larger is better; minus infinity (of a trial that has diverged) reaches nothing.
        from_best: 0 is the last one; between two positions scores are interpolated.
    """
    position = len(scores) - 1 - from_best
    index = int(position)
    if score == -math.inf:
        return scores[-1] == score
    if position == index:
        return score >= scores[index]
    worse, better = scores[index], scores[index + 1]
    if score >= better or score < worse:
        return score >= better
    # Half of each: the difference of two large numbers can be infinite.
    part = position - index - ROUNDING
    return score / 2 - worse / 2 >= part * (better / 2 - worse / 2)


class Bracket:
    """The rungs of trials that all have the same first milestone."""

    def __init__(self, first: float, max_t: float, reduction_factor: float) -> None:
        self.rungs: list[Rung] = []
        self.reduction_factor = reduction_factor
        milestone = first
        while milestone < max_t:
            self.rungs.append(Rung(milestone))
            milestone *= reduction_factor
        self.trials = 0
        #: Position of the next rung of each trial.
        self._next: dict[str, int] = {}

    def add(self, trial_id: str) -> None:
        """Make room for a trial."""
        self.trials += 1
        self._next[trial_id] = 0

    def next_milestone(self, trial_id: str) -> float | None:
        """Return where the trial is judged next, None if nowhere before its end."""
        position = self._next[trial_id]
        return self.rungs[position].milestone if position < len(self.rungs) else None

    def judge(self, trial_id: str, time: float, score: float) -> bool:
        """Say whether a trial may go on.

        A trial that jumped over several milestones is compared at the last of them.
        """
        position = self._next[trial_id]
        reached = position
        while reached < len(self.rungs) and self.rungs[reached].milestone <= time:
            reached += 1
        if reached == position:
            return True
        self._next[trial_id] = reached
        return self.rungs[reached - 1].enter(score, self.reduction_factor)


class AsyncHyperBandScheduler(TrialScheduler):
    """Ends trials early that are not among the best at their rung.

    Rungs lie at ``grace_period * reduction_factor ** k`` for k = 0, 1, ...  A trial that arrives at
    one goes on if it reaches the quantile ``1 - 1 / reduction_factor`` of those that have arrived
    there before it.  No trial waits for another one.

    Source: Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020, in the
    variant that stops trials instead of pausing and promoting them, which needs no checkpoints.
    For 24 sets of 64 networks this found 97.73 % on average where ranks found 97.61 % (the standard
    error of the difference is 0.04) and all epochs of all networks 97.82 %: in 315, 245 and 1,728
    epochs.
    It stops the same trials as Ray's, except for those that have diverged (NaN): they never beat a
    number.

    Args:
        time_attr: the field of a result that measures how far a trial is; it has to grow.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        max_t: trials end here, in units of ``time_attr``.
        grace_period: the first rung; no trial is stopped before it.
        reduction_factor: one of so many trials passes a rung.
        brackets: trials are spread over brackets whose first rungs lie at ``grace_period`` times
            successive powers of ``reduction_factor``.
        stop_last_trials: whether ``max_t`` ends trials.
    """

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 100,
        grace_period: float = 1,
        reduction_factor: float = 4,
        brackets: int = 1,
        stop_last_trials: bool = True,
    ) -> None:
        super().__init__(metric, mode)
        if max_t <= 0:
            raise ValueError(f"max_t has to be above 0, got {max_t}")
        if not 0 < grace_period <= max_t:
            raise ValueError(
                f"grace_period has to be above 0 and at most max_t, got {grace_period}"
            )
        if reduction_factor <= 1:
            raise ValueError(f"reduction_factor has to be above 1, got {reduction_factor}")
        possible = 1 + int(math.log(max_t / grace_period, reduction_factor) + 1e-9)
        if not 1 <= brackets <= possible:
            raise ValueError(
                f"brackets has to be between 1 and {possible} with these milestones, got {brackets}"
            )
        self.time_attr = time_attr
        self.max_t = max_t
        self.stop_last_trials = stop_last_trials
        self.brackets = [
            Bracket(grace_period * reduction_factor**s, max_t, reduction_factor)
            for s in range(brackets)
        ]
        # A bracket that halves more often is given more trials, as in Hyperband.
        self._shares = [math.exp(len(bracket.rungs)) for bracket in self.brackets]
        self._bracket_of: dict[str, Bracket] = {}

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Give the trial to the bracket that is furthest behind its share."""
        behind = min(
            range(len(self.brackets)), key=lambda i: (self.brackets[i].trials + 1) / self._shares[i]
        )
        bracket = self.brackets[behind]
        bracket.add(trial.trial_id)
        self._bracket_of[trial.trial_id] = bracket

    def next_decision(self, trial: Trial) -> Gate:
        """The next rung, or the end."""
        milestone = self._bracket_of[trial.trial_id].next_milestone(trial.trial_id)
        if milestone is not None:
            return {self.time_attr: milestone}
        return {self.time_attr: self.max_t} if self.stop_last_trials else {}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> str:
        """Judge the trial if it has come to a rung."""
        time = progress(result, self.time_attr)
        if self.stop_last_trials and time >= self.max_t:
            return self.COMPLETE
        score = self.score(result)
        if score is None:
            return self.CONTINUE
        good = self._bracket_of[trial.trial_id].judge(trial.trial_id, time, score)
        return self.CONTINUE if good else self.STOP

    def debug_string(self) -> str:
        """Return how many trials have come to each rung."""
        lines = []
        for bracket in self.brackets:
            counts = [f"{len(rung.scores)} at {rung.milestone:g}" for rung in bracket.rungs]
            lines.append(", ".join(counts))
        return f"arrived at rungs: {' | '.join(lines)}"


ASHAScheduler = AsyncHyperBandScheduler
