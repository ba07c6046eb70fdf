"""All schedulers with the real orchestrator: no trial is forgotten, whatever happens to it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from skate import tune
from skate.tune.actions import Continue, Pause, Renew, Stop
from skate.tune.limits import Limits
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
from skate.tune.schedulers import (
    PB2,
    ASHAScheduler,
    DistributeResourcesToTopJob,
    HyperBandForBOHB,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    ResourceChangingScheduler,
    TrialScheduler,
)
from skate.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from skate.tune.stopper import ThresholdStopper
from skate.tune.trial import Trial, TrialCheckpoint

SPACE: dict[str, Any] = {"x": tune.uniform(0, 1)}
TIME = "training_iteration"
#: Trials end here at the latest, and all of them after so many reports of each that runs.
LAST = 9
MOST_TURNS = 500

MAKERS: dict[str, Callable[[], TrialScheduler]] = {
    "asha": lambda: ASHAScheduler(max_t=LAST, reduction_factor=3),
    "median": lambda: MedianStoppingRule(TIME, grace_period=2, min_samples_required=2),
    "median, soft": lambda: MedianStoppingRule(
        TIME, grace_period=1, min_samples_required=1, hard_stop=False
    ),
    "hyperband": lambda: HyperBandScheduler(max_t=LAST),
    "hyperband, open": lambda: HyperBandScheduler(max_t=LAST, stop_last_trials=False),
    "bohb": lambda: HyperBandForBOHB(max_t=4, reduction_factor=2),
    "pbt": lambda: population(PopulationBasedTraining),
    "pbt, together": lambda: population(PopulationBasedTraining, synch=True),
    "resources": lambda: ResourceChangingScheduler(),
    "resources, hyperband": lambda: ResourceChangingScheduler(HyperBandScheduler(max_t=LAST)),
    "resources, pbt": lambda: ResourceChangingScheduler(
        population(PopulationBasedTraining), DistributeResourcesToTopJob()
    ),
    "pb2": lambda: bandit(),
    "pb2, together": lambda: bandit(synch=True),
}


def bandit(**more: Any) -> TrialScheduler:
    return PB2(time_attr=TIME, perturbation_interval=2, hyperparam_bounds={"x": [0.0, 1.0]}, **more)


def population(kind: Callable[..., TrialScheduler], **more: Any) -> TrialScheduler:
    options = {"perturbation_interval": 2, "hyperparam_mutations": SPACE, **more}
    return kind(time_attr=TIME, **options)


class SchedulerLife(RuleBasedStateMachine):
    """Trials report, fail, end and are ended, on fewer slots than there are trials."""

    def __init__(self) -> None:
        super().__init__()
        self.live: list[Trial] = []
        self.pausing: list[Pause] = []
        self.stopping: list[Trial] = []
        #: How far each trial is: what the session counts.
        self.steps: dict[str, int] = {}

    @initialize(
        name=st.sampled_from(sorted(MAKERS)), slots=st.integers(1, 4), limited=st.booleans()
    )
    def begin(self, name: str, slots: int, limited: bool) -> None:
        self.make = MAKERS[name]
        searcher: Any = BasicVariantGenerator(random_state=0)
        if limited:
            searcher = ConcurrencyLimiter(searcher, 3)
        searcher.set_search_properties("score", "max", SPACE)
        self.run = Orchestrator(
            searcher,
            self.make(),
            ThresholdStopper({TIME: LAST}),
            Objective("score", "max"),
            Limits(slots=slots, num_samples=8, max_failures=1, resources={"CPU": 4}),
            SPACE,
        )

    @rule()
    def start(self) -> None:
        for start in self.run.fill():
            assert start.trial.status == Trial.RUNNING
            self.live.append(start.trial)
            self.begin_at_checkpoint(start.trial)
        self.run.take_ended()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), score=st.floats(allow_infinity=False), saves=st.booleans())
    def report(self, data: st.DataObject, score: float, saves: bool) -> None:
        self.say(data.draw(st.sampled_from(self.live)), score, saves)

    def begin_at_checkpoint(self, trial: Trial) -> None:
        done = 0 if trial.checkpoint is None else trial.checkpoint.iteration
        self.steps[trial.trial_id] = done

    def say(self, trial: Trial, score: float, saves: bool) -> None:
        self.steps[trial.trial_id] += 1
        result: dict[str, Any] = {TIME: self.steps[trial.trial_id], "score": score}
        # A source without any is an error of the user after a while.
        saves = saves or trial.checkpoint is None
        checkpoint = TrialCheckpoint("ref") if saves else None
        answer = self.run.on_reports(trial, [result], checkpoint)
        match answer:
            case Continue():
                pass
            case Renew():
                self.begin_at_checkpoint(trial)
            case Pause():
                self.live.remove(trial)
                self.pausing.append(answer)
            case Stop():
                self.live.remove(trial)
                self.stopping.append(trial)
        self.run.take_ended()

    @precondition(lambda self: self.pausing)
    @rule()
    def paused(self) -> None:
        pause = self.pausing.pop()
        self.run.on_paused(pause.trial, TrialCheckpoint("ref") if pause.save else None)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), fails=st.booleans())
    def leave(self, data: st.DataObject, fails: bool) -> None:
        trial = data.draw(st.sampled_from(self.live))
        self.live.remove(trial)
        if fails:
            self.run.on_failed(trial, RuntimeError())
        elif trial.iterations:
            self.run.on_finished(trial)
        else:
            self.run.on_failed(trial, RuntimeError())
        self.run.take_ended()

    @precondition(lambda self: self.stopping)
    @rule()
    def release(self) -> None:
        self.run.on_released(self.stopping.pop())

    def waiting(self) -> list[Trial]:
        states = (Trial.PENDING, Trial.PAUSED)
        return [trial for trial in self.run.live_trials if trial.status in states]

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def end_one_that_waits(self, data: st.DataObject) -> None:
        self.run.stop_trial(data.draw(st.sampled_from(self.waiting())))
        self.run.take_ended()

    def failed(self) -> list[Trial]:
        return [trial for trial in self.run.trials if trial.status == Trial.ERROR]

    @precondition(lambda self: self.failed())
    @rule(data=st.data())
    def run_a_failed_one_again(self, data: st.DataObject) -> None:
        self.run.revive(data.draw(st.sampled_from(self.failed())))

    @rule()
    def resume_in_another_process(self) -> None:
        """Nothing that matters is anywhere but in the state."""
        state = pickle.loads(pickle.dumps(self.run.scheduler.get_state()))
        self.run.scheduler = self.make()
        self.run.scheduler.set_state(state)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if not hasattr(self, "run"):
            return
        assert set(self.run.running) == set(self.live)
        for trial in self.run.trials:
            assert trial.is_finished or trial in self.live or trial in self.waiting()

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        for turn in range(MOST_TURNS):
            while self.pausing:
                self.paused()
            while self.stopping:
                self.release()
            self.start()
            if not self.live:
                break
            for trial in list(self.live):
                self.say(trial, float(turn % 7), True)
        assert len(self.run.trials) == 8
        assert all(trial.is_finished for trial in self.run.trials)


TestSchedulerLife = SchedulerLife.TestCase
TestSchedulerLife.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
