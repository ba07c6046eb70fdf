"""The median stopping rule."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Mapping

from skate.tune.schedulers.trial_scheduler import Controller, Gate, TrialScheduler, Verdict
from skate.tune.trial import Trial


class _Curve:
    """The scores of one trial, with the mean of all up to each time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.best = -math.inf
        #: Sum of the scores since the grace period, up to and with each time.
        self._sums: list[float] = []
        self._counts: list[int] = []

    def add(self, time: float, score: float, counts: bool) -> None:
        """Take a report; it is part of the mean if it ``counts``."""
        # A trial that started again from a checkpoint repeats what it has reported already.
        known = bisect.bisect_left(self.times, time)
        del self.times[known:], self._sums[known:], self._counts[known:]
        self.times.append(time)
        self._sums.append((self._sums[-1] if self._sums else 0.0) + (score if counts else 0.0))
        self._counts.append((self._counts[-1] if self._counts else 0) + counts)
        self.best = max(self.best, score)

    def mean(self, time: float) -> float | None:
        """Return the mean of the scores up to ``time``, None if none of them counts."""
        position = bisect.bisect_right(self.times, time) - 1
        if position < 0 or not self._counts[position]:
            return None
        return self._sums[position] / self._counts[position]


class MedianStoppingRule(TrialScheduler):
    """Stops trials that are worse than the median of the others.

    A trial stops at time t if its best result so far is strictly worse than the median, over all
    other trials that have come to t, of the mean of their results up to t.

    Source: Golovin et al., "Google Vizier: a service for black-box optimization", KDD 2017, section
    3.2.2.

    Args:
        time_attr: the field of a result that measures how far a trial is; it has to grow.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        grace_period: no trial is stopped before this time, and results before it are not part of
            the means.
        min_samples_required: with how many other trials a trial is compared at least.
        min_time_slice: a trial that cannot be judged for lack of others makes room for trials that
            wait, but not before it has run for so long.  Only trials that have saved a checkpoint
            do so.
        hard_stop: whether trials stop for good.  If not, they are paused, and go on when there is
            nothing else to run; the trainable then has to save checkpoints.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        grace_period: float = 60.0,
        min_samples_required: int = 3,
        min_time_slice: float = 0,
        hard_stop: bool = True,
    ) -> None:
        super().__init__(metric, mode)
        if min_samples_required < 1:
            raise ValueError(
                f"min_samples_required has to be at least 1, got {min_samples_required}"
            )
        self.time_attr = time_attr
        self.grace_period = grace_period
        self.min_samples_required = min_samples_required
        self.min_time_slice = min_time_slice
        self.hard_stop = hard_stop
        self._curves: dict[str, _Curve] = {}
        self._last_pause: dict[str, float] = {}
        #: Trials found to be bad; with ``hard_stop=False`` they may run again.
        self._bad: set[str] = set()

    def next_decision(self, trial: Trial) -> Gate:
        """Each report after the grace period."""
        if trial.trial_id in self._bad:
            return {}
        curve = self._curves.get(trial.trial_id)
        if curve is None or curve.times[-1] < self.grace_period:
            return {self.time_attr: self.grace_period}
        return None

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        """Compare the best result of the trial with the median of the others."""
        name, time, score = trial.trial_id, result.get(self.time_attr), self.score(result)
        if not isinstance(time, (int, float)) or score is None or name in self._bad:
            return self.CONTINUE
        curve = self._curves.setdefault(name, _Curve())
        curve.add(time, score, counts=time >= self.grace_period)
        if time < self.grace_period:
            return self.CONTINUE
        means = [
            mean
            for other, known in self._curves.items()
            if other != name and known.times[-1] >= time and (mean := known.mean(time)) is not None
        ]
        if len(means) < self.min_samples_required:
            return self._yield(controller, trial, time)
        if curve.best >= statistics.median(means):
            return self.CONTINUE
        self._bad.add(name)
        return self.STOP if self.hard_stop else self.PAUSE

    def _yield(self, controller: Controller, trial: Trial, time: float) -> str:
        """Make room for trials that have not run yet, or for less long."""
        if time - self._last_pause.get(trial.trial_id, -math.inf) <= self.min_time_slice:
            return self.CONTINUE
        waiting = any(
            other.status in (Trial.PENDING, Trial.PAUSED) and other.trial_id not in self._bad
            for other in controller.live_trials
        )
        if not waiting or controller.checkpoint_of(trial) is None:
            return self.CONTINUE
        self._last_pause[trial.trial_id] = time
        return self.PAUSE

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Return the one that has run least; found to be bad, only when there is nothing else."""
        waiting = [t for t in controller.live_trials if t.status in (Trial.PENDING, Trial.PAUSED)]
        return min(waiting, key=lambda t: (t.trial_id in self._bad, self._time(t)), default=None)

    def _time(self, trial: Trial) -> float:
        curve = self._curves.get(trial.trial_id)
        return -math.inf if curve is None else curve.times[-1]

    def debug_string(self) -> str:
        """Return how many trials were found to be bad."""
        return f"median stopping rule: {len(self._bad)} trials stopped"
