"""How far a run is: counts, the best trials, and an estimate of the rest.

What is shown is asked for several times per second, also in runs of many thousand trials.  So a
trial is looked at once when it is over, and then only as a number: an answer costs as much as there
are trials that have not ended, not as there are trials.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from skate.tune.orchestrator import Orchestrator
from skate.tune.trial import Trial, flat_result

#: So many of the trials that ended are remembered to be shown.
LEADERS = 50


@dataclass(slots=True)
class Progress:
    """What there is to count in a run.  ``update`` looks at what has changed."""

    orchestrator: Orchestrator
    #: Trials that have not ended, in the order of their creation.
    live: list[Trial] = field(default_factory=list)
    #: How many trials ended, by their status, and how many of them early.
    ended: Counter[str] = field(default_factory=Counter)
    stopped_early: int = 0
    #: How many trials have been looked at for the first time.
    _seen: int = 0
    #: Seconds that the trials which ended have run, all together.
    _spent: float = 0.0
    #: (badness, number, trial) of the best trials that ended, best first.
    _leaders: list[tuple[float, int, Trial]] = field(default_factory=list)

    @property
    def objective(self) -> tuple[str, str] | None:
        """Metric and mode, once they are known."""
        objective = self.orchestrator.objective
        if objective.metric is None or objective.mode is None:
            return None
        return objective.metric, objective.mode

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return self.ended.total()

    def update(self) -> None:
        """Take note of trials that were made, and of those that ended."""
        trials = self.orchestrator.trials
        live = [*self.live, *trials[self._seen :]]
        self._seen = len(trials)
        self.live = []
        for trial in live:
            if trial.is_finished:
                self._note_end(trial)
            else:
                self.live.append(trial)

    def running(self) -> list[Trial]:
        """Return the trials that run."""
        return [trial for trial in self.live if trial.status == Trial.RUNNING]

    def best(self) -> Trial | None:
        """Return the trial with the best last report; None if there is no finite number yet."""
        candidates = [(self._badness(trial), trial) for trial in self.live]
        candidates += [(badness, trial) for badness, _, trial in self._leaders[:1]]
        badness, best = min(candidates, key=lambda pair: pair[0], default=(math.inf, None))
        return None if math.isinf(badness) else best

    def leaders(self) -> list[Trial]:
        """Return the best of the trials that ended, best first, those without a number last."""
        return [trial for _, _, trial in self._leaders]

    def resources(self) -> dict[str, tuple[float, float | None]]:
        """Return what trials that run hold, and what there is of it, None if that is not known."""
        total = self.orchestrator.limits.resources
        held: Counter[str] = Counter()
        for trial in self.running():
            held.update(trial.resources.required_resources)
        return {
            name: (amount, None if total is None else total.get(name))
            for name, amount in sorted(held.items())
            if amount
        }

    def rest(self, elapsed: float) -> float | None:
        """Return how long the run will go on, in seconds, at the pace so far; None if unknown.

        Trials that run count in part: as far as they are on their way to where trials end, or, if
        that is not known, by their time compared with that of the trials before them.
        """
        total = self.orchestrator.total
        if total is None or elapsed <= 0:
            return None
        ends = self._ends()
        mean = self._spent / self.done if self.done else 0.0
        begun = sum(self._fraction(trial, ends, mean) for trial in self.live if trial.iterations)
        equivalent = self.done + begun
        if equivalent < 0.02 * total and self.done < 3:
            return None  # a guess from so little would only jump about
        return max(0.0, elapsed / equivalent * (total - equivalent))

    # ---------------------------------------------------------------- inside

    def _note_end(self, trial: Trial) -> None:
        self.ended[trial.status] += 1
        self.stopped_early += trial.early_stopped
        spent = trial.last_result.get("time_total_s", 0.0)
        self._spent += spent if isinstance(spent, (int, float)) else 0.0
        bisect.insort(self._leaders, (self._badness(trial), self.done, trial), key=lambda e: e[:2])
        del self._leaders[LEADERS:]

    def _badness(self, trial: Trial) -> float:
        """Return the metric so that less is better, infinity if there is no finite one."""
        if self.objective is None or not trial.iterations:
            return math.inf
        metric, mode = self.objective
        value = trial.metric(metric, mode)
        if not math.isfinite(value):
            return math.inf
        return value if mode == "min" else -value

    def _ends(self) -> dict[str, float]:
        """Return where trials end, by fields of their results that only grow."""
        ends: dict[str, float] = dict(self.orchestrator.stopper.gate() or {})
        scheduler = self.orchestrator.scheduler
        field_, most = getattr(scheduler, "time_attr", None), getattr(scheduler, "max_t", None)
        if isinstance(field_, str) and isinstance(most, (int, float)):
            ends[field_] = min(most, ends.get(field_, math.inf))
        growing = ("training_iteration", "time_total_s", field_)
        return {name: end for name, end in ends.items() if end > 0 and name in growing}

    def _fraction(self, trial: Trial, ends: Mapping[str, float], mean: float) -> float:
        if ends:
            result = flat_result(trial.last_result)
            parts = [
                value / end
                for name, end in ends.items()
                if isinstance(value := result.get(name), (int, float))
            ]
        else:
            spent = trial.last_result.get("time_total_s", 0.0)
            parts = [spent / mean] if mean > 0 and isinstance(spent, (int, float)) else []
        # Not the whole trial before it has ended.
        return min(0.95, max(parts, default=0.0))
