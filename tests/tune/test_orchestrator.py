"""The orchestrator alone: events in, actions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate import tune
from skate.tune.actions import Continue, Pause, Renew, Start, Stop
from skate.tune.error import MetricError, TuneError
from skate.tune.limits import Limits
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
from skate.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from skate.tune.schedulers.trial_scheduler import Controller, Exploit, Resize, Verdict
from skate.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from skate.tune.stopper import FunctionStopper, NoopStopper, Stopper, ThresholdStopper
from skate.tune.trial import Trial, TrialCheckpoint

SPACE: dict[str, Any] = {"x": tune.uniform(0, 1)}


class Log(BasicVariantGenerator):
    """Random search that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(random_state=0)
        self.suggested: list[str] = []
        self.completed: list[tuple[str, bool]] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.suggested.append(trial_id)
        return super().suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        super().on_trial_complete(trial_id, result, error)
        self.completed.append((trial_id, error))


def make(
    scheduler: TrialScheduler | None = None,
    searcher: Searcher | None = None,
    stopper: Stopper | None = None,
    metric: str | None = "loss",
    **limits: Any,
) -> Orchestrator:
    searcher = searcher or Log()
    searcher.set_search_properties(metric, "min" if metric else None, SPACE)
    return Orchestrator(
        searcher,
        scheduler or FIFOScheduler(),
        stopper or NoopStopper(),
        Objective(metric, "min" if metric else None),
        Limits(**{"slots": 2, "num_samples": 3, **limits}),
        SPACE,
    )


def result(trial: Trial, loss: float, **more: Any) -> dict[str, Any]:
    return {"training_iteration": trial.iterations + 1, "loss": loss, **more}


def test_trials_start_as_slots_are_free() -> None:
    run = make()
    first, second = [start.trial for start in run.fill()]
    assert run.fill() == []
    run.on_reports(first, [result(first, 1.0)])
    run.on_finished(first)
    (third,) = run.fill()
    assert [t.status for t in run.trials] == [Trial.TERMINATED, Trial.RUNNING, Trial.RUNNING]
    run.on_finished(second)
    run.on_finished(third.trial)
    assert run.fill() == []
    assert run.total == 3


def test_reports_are_recorded_and_answered() -> None:
    run = make()
    trial = run.fill()[0].trial
    assert run.on_reports(trial, [result(trial, 3.0)]) == Continue(trial, {})
    run.on_reports(trial, [result(trial, 2.0), result(trial, 1.0)])
    run.on_finished(trial)
    assert trial.history.column("loss") == [3.0, 2.0, 1.0]
    assert trial.last_result["done"] is True
    assert trial.last_result["early_stopped"] is False
    assert trial.stop_reason == "completed"


def test_a_stopped_trial_keeps_its_slot_until_it_is_released() -> None:
    run = make(ASHAScheduler(max_t=10), slots=1)
    first = run.fill()[0].trial
    assert isinstance(run.on_reports(first, [result(first, 1.0)]), Continue)
    run.on_finished(first)
    second = run.fill()[0].trial
    assert run.on_reports(second, [result(second, 2.0), result(second, 0.5)]) == Stop(second)
    assert second.iterations == 1  # what came after the verdict does not count
    assert second.status == Trial.TERMINATED
    assert second.early_stopped
    assert run.fill() == []
    run.on_released(second)
    assert len(run.fill()) == 1


def test_gates_of_scheduler_and_stopper_are_merged() -> None:
    stopper = ThresholdStopper({"training_iteration": 6, "acc": 0.9})
    run = make(ASHAScheduler(max_t=100, grace_period=4), stopper=stopper)
    start = run.fill()[0]
    assert start.gate == {"training_iteration": 4, "acc": 0.9}
    trial = start.trial
    action = run.on_reports(trial, [result(trial, 1.0, acc=0.1, training_iteration=4)])
    assert action == Continue(trial, {"training_iteration": 6, "acc": 0.9})
    every = make(stopper=FunctionStopper(lambda trial_id, result: False))
    assert every.fill()[0].gate is None


def test_thresholds_end_a_trial_as_completed_not_as_bad() -> None:
    run = make(stopper=ThresholdStopper({"training_iteration": 2}))
    trial = run.fill()[0].trial
    assert isinstance(run.on_reports(trial, [result(trial, 1.0)]), Continue)
    assert run.on_reports(trial, [result(trial, 1.0)]) == Stop(trial)
    assert trial.stop_reason == "criterion"
    assert not trial.early_stopped


def test_a_failed_trial_is_an_error_and_the_others_go_on() -> None:
    run = make()
    first, second = [start.trial for start in run.fill()]
    error = ValueError("x")
    run.on_failed(first, error)
    assert (first.status, first.error) == (Trial.ERROR, error)
    assert len(run.fill()) == 1
    assert second.status == Trial.RUNNING


def test_a_failed_trial_starts_again_from_the_beginning() -> None:
    searcher = Log()
    run = make(searcher=searcher, max_failures=1, slots=1)
    trial = run.fill()[0].trial
    run.on_reports(trial, [result(trial, 1.0)])
    run.on_failed(trial, ValueError("x"))
    assert (trial.status, trial.iterations, trial.failures) == (Trial.PENDING, 0, 1)
    assert run.fill() == [Start(trial, {})]
    run.on_failed(trial, ValueError("y"))
    assert trial.status == Trial.ERROR
    assert searcher.completed == [(trial.trial_id, True)]
    assert run.fill()[0].trial is not trial


def test_fail_fast_ends_the_run() -> None:
    run = make(fail_fast=True)
    first, second = [start.trial for start in run.fill()]
    run.on_failed(first, ValueError("x"))
    assert run.end_reason == "fail_fast"
    assert run.fill() == []
    assert [kill.trial for kill in run.end(run.end_reason)] == [second]
    assert second.stop_reason == "interrupted"


def test_the_end_kills_what_runs_and_starts_nothing() -> None:
    run = make()
    trials = [start.trial for start in run.fill()]
    assert [kill.trial for kill in run.end("time budget")] == trials
    assert {trial.stop_reason for trial in trials} == {"time budget"}
    assert run.on_reports(trials[0], [result(trials[0], 1.0)]) is None
    assert run.fill() == []


def test_the_searcher_hears_of_each_trial_once() -> None:
    searcher = Log()
    run = make(ASHAScheduler(max_t=5), searcher=searcher, slots=1)
    for loss in (1.0, 2.0):
        trial = run.fill()[0].trial
        if isinstance(run.on_reports(trial, [result(trial, loss)]), Stop):
            run.on_released(trial)
        else:
            run.on_finished(trial)
    run.on_failed(run.fill()[0].trial, ValueError())
    assert [name for name, _ in searcher.completed] == searcher.suggested[:3]
    assert [error for _, error in searcher.completed] == [False, False, True]


def test_a_searcher_may_ask_for_patience_but_not_for_ever() -> None:
    limited = ConcurrencyLimiter(BasicVariantGenerator(), 1)
    run = make(searcher=limited)
    (start,) = run.fill()
    run.on_reports(start.trial, [result(start.trial, 1.0)])
    run.on_finished(start.trial)
    assert len(run.fill()) == 1

    class Mute(BasicVariantGenerator):
        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            return None

    with pytest.raises(TuneError, match="Mute suggests nothing although no trial is running"):
        make(searcher=Mute()).fill()


def test_a_searcher_that_returns_nonsense() -> None:
    class Odd(BasicVariantGenerator):
        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            return 3  # type: ignore[return-value]  # the mistake under test

    with pytest.raises(TuneError, match=r"Odd.suggest returned 3"):
        make(searcher=Odd()).fill()


def test_the_objective_is_learned_from_the_first_report() -> None:
    scheduler = ASHAScheduler()
    run = make(scheduler, metric=None)
    trial = run.fill()[0].trial
    run.on_reports(trial, [{"training_iteration": 1, "note": "x", "val_acc": 0.5, "loss": 1.0}])
    assert (run.objective.metric, run.objective.mode) == ("val_acc", "max")
    assert run.objective.assumed
    assert (scheduler.metric, scheduler.mode) == ("val_acc", "max")


def test_a_metric_that_nobody_reports() -> None:
    run = make(metric="accuracy")
    trial = run.fill()[0].trial
    with pytest.raises(MetricError, match="'accuracy' is not among what the trials report: loss"):
        run.on_reports(trial, [result(trial, 1.0)])


def test_a_metric_that_is_no_number() -> None:
    run = make(metric="note")
    trial = run.fill()[0].trial
    with pytest.raises(MetricError, match="has to be a number; the trials report 'good'"):
        run.on_reports(trial, [result(trial, 1.0, note="good")])


def test_a_run_with_a_metric_whose_trials_report_nothing() -> None:
    run = make()
    with pytest.raises(MetricError, match="'loss' is not among what the trials report: nothing"):
        run.on_finished(run.fill()[0].trial)
    quiet = make(metric=None)
    quiet.on_finished(quiet.fill()[0].trial)
    assert quiet.trials[0].status == Trial.TERMINATED


def test_nested_metrics_are_found_by_path() -> None:
    scheduler = ASHAScheduler(metric="valid/loss", mode="min", max_t=5)
    run = make(scheduler, metric="valid/loss", stopper=ThresholdStopper({"valid/acc": 0.9}))
    trial = run.fill()[0].trial
    nested = {"training_iteration": 1, "valid": {"loss": 0.5, "acc": 0.95}}
    assert run.on_reports(trial, [nested]) == Stop(trial)
    assert trial.metric("valid/loss", "min") == 0.5
    assert trial.history.column("valid/acc") == [0.95]


def test_a_threshold_of_something_that_nobody_reports() -> None:
    run = make(stopper=ThresholdStopper({"accuracy": 0.9}))
    trial = run.fill()[0].trial
    with pytest.raises(MetricError, match=r"looks at 'accuracy'.*reported: loss"):
        run.on_reports(trial, [result(trial, 1.0)])


class Life(RuleBasedStateMachine):
    """Trials that report, end and fail in any order never break the books."""

    def __init__(self) -> None:
        super().__init__()
        self.searcher = Log()
        self.run = make(
            ASHAScheduler(max_t=9, reduction_factor=3),
            self.searcher,
            slots=3,
            num_samples=12,
            max_failures=1,
        )
        self.live: list[Trial] = []
        self.stopping: list[Trial] = []

    @rule()
    def start(self) -> None:
        for start in self.run.fill():
            assert start.trial.status == Trial.RUNNING
            self.live.append(start.trial)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), loss=st.floats(0, 1))
    def report(self, data: st.DataObject, loss: float) -> None:
        trial = data.draw(st.sampled_from(self.live))
        action = self.run.on_reports(trial, [result(trial, loss)])
        if isinstance(action, Stop):
            self.live.remove(trial)
            self.stopping.append(trial)

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
            self.run.on_reports(trial, [result(trial, 0.5)])
            self.run.on_finished(trial)

    @precondition(lambda self: self.stopping)
    @rule()
    def release(self) -> None:
        self.run.on_released(self.stopping.pop())

    @invariant()
    def the_books_are_right(self) -> None:
        assert len(self.live) + len(self.stopping) <= 3
        assert len(self.run.trials) <= 12
        finished = [trial.trial_id for trial in self.run.trials if trial.is_finished]
        told = [name for name, _ in self.searcher.completed]
        assert sorted(told) == sorted(finished)
        assert len(set(told)) == len(told)

    def teardown(self) -> None:
        for _ in range(200):
            self.start()
            if not self.live and not self.stopping:
                break
            for trial in self.live:
                self.run.on_reports(trial, [result(trial, 0.5)])
                self.run.on_finished(trial)
            self.live.clear()
            while self.stopping:
                self.release()
        assert len(self.run.trials) == 12
        assert all(trial.is_finished for trial in self.run.trials)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Obedient(FIFOScheduler):
    """Gives the verdict that the test wants, and starts the trial that the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.verdict: Verdict = self.CONTINUE
        self.prefer_paused = False
        self.removed: list[Trial] = []
        self.ended: list[Trial] = []

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        return self.verdict

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        self.ended.append(trial)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        self.ended.append(trial)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        self.ended.append(trial)
        self.removed.append(trial)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        if self.prefer_paused:
            for trial in controller.live_trials:
                if trial.status == Trial.PAUSED:
                    return trial
        return super().choose_trial_to_run(controller)


class PauseLog(Log):
    """Also remembers which trials are paused."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: set[str] = set()

    def on_pause(self, trial_id: str) -> None:
        assert trial_id not in self.paused
        self.paused.add(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        self.paused.remove(trial_id)


class WholeLife(RuleBasedStateMachine):
    """Pauses, clones, other resources, ends from outside and failures never break the books."""

    CPUS = 4

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Obedient()
        self.searcher = PauseLog()
        self.run = make(
            self.scheduler,
            self.searcher,
            slots=3,
            num_samples=10,
            max_failures=2,
            resources={"CPU": self.CPUS},
        )
        #: What trials hold, by id, from their start on.
        self.held: dict[str, float] = {}
        self.live: list[Trial] = []
        self.pausing: list[Pause] = []
        self.stopping: list[Trial] = []
        self.refs = 0
        self.cloned: list[Trial] = []
        self.ended: list[Trial] = []

    def hear(self) -> None:
        self.ended += self.run.take_ended()

    @rule(prefer_paused=st.booleans())
    def start(self, prefer_paused: bool = False) -> None:
        self.scheduler.prefer_paused = prefer_paused
        for start in self.run.fill():
            trial = start.trial
            assert trial.status == Trial.RUNNING
            if trial.checkpoint is None:
                assert trial.iterations == 0
            else:
                assert trial.iterations == trial.checkpoint.reports
            self.held[trial.trial_id] = trial.resources.required_resources["CPU"]
            self.live.append(trial)
        self.hear()

    @precondition(lambda self: self.live)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["CONTINUE", "PAUSE", "PAUSE", "STOP", "exploit", "resize"]),
        saves=st.booleans(),
    )
    def report(self, data: st.DataObject, kind: str, saves: bool) -> None:
        trial = data.draw(st.sampled_from(self.live))
        source = data.draw(st.sampled_from(self.run.trials))
        cpus = data.draw(st.integers(1, self.CPUS))
        self.scheduler.verdict = {
            "exploit": Exploit(source, {"x": 0.25}),
            "resize": Resize(tune.PlacementGroupFactory([{"CPU": cpus}])),
        }.get(kind, kind)
        self.refs += 1
        taken = TrialCheckpoint(self.refs) if saves else None
        answer = self.run.on_reports(trial, [result(trial, 0.5)], taken)
        if saves:
            # A clone of itself has its checkpoint, too.
            assert trial.checkpoint is not None
        self.scheduler.verdict = "CONTINUE"
        match answer:
            case Continue():
                assert kind == "CONTINUE"
            case Renew():
                assert kind == "exploit"
                assert trial.config == {"x": 0.25}
                assert trial.checkpoint is not None
                assert trial.checkpoint.reports == trial.iterations
            case Pause():
                assert kind in ("PAUSE", "resize")
                assert trial.status == Trial.PAUSED
                self.live.remove(trial)
                self.pausing.append(answer)
            case Stop():
                assert kind in ("STOP", "exploit")
                assert kind == "STOP" or trial.status == Trial.ERROR
                self.live.remove(trial)
                self.stopping.append(trial)

    @precondition(lambda self: self.pausing)
    @rule(outcome=st.sampled_from(["saved", "nothing", "finished", "failed"]))
    def paused(self, outcome: str) -> None:
        pause = self.pausing.pop()
        trial = pause.trial
        del self.held[trial.trial_id]
        was = trial.status
        match outcome:
            case "saved":
                self.refs += 1
                self.run.on_paused(trial, TrialCheckpoint(self.refs) if pause.save else None)
                assert trial.status == was
            case "nothing":
                self.run.on_paused(trial)
                if was == Trial.PAUSED and trial.checkpoint is None:
                    # With another one's checkpoint to come, it can wait without its own.
                    assert trial.status == Trial.ERROR or trial in self.cloned
            case "finished":
                self.run.on_finished(trial)
                assert trial.status == Trial.TERMINATED
            case _:
                self.run.on_failed(trial, RuntimeError())
        self.hear()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), fails=st.booleans())
    def leave(self, data: st.DataObject, fails: bool) -> None:
        trial = data.draw(st.sampled_from(self.live))
        self.live.remove(trial)
        del self.held[trial.trial_id]
        if fails:
            self.run.on_failed(trial, RuntimeError())
            return
        if not trial.iterations:
            self.run.on_reports(trial, [result(trial, 0.5)])
        self.run.on_finished(trial)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def lose_the_checkpoint(self, data: st.DataObject) -> None:
        trial = data.draw(st.sampled_from(self.live))
        self.live.remove(trial)
        del self.held[trial.trial_id]
        failures = trial.failures
        self.run.on_checkpoint_lost(trial, None)
        assert (trial.status, trial.iterations) == (Trial.PENDING, 0)
        assert trial.failures == failures

    @precondition(lambda self: self.stopping)
    @rule()
    def release(self) -> None:
        trial = self.stopping.pop()
        del self.held[trial.trial_id]
        self.run.on_released(trial)

    def waiting(self) -> list[Trial]:
        states = (Trial.PENDING, Trial.PAUSED)
        return [trial for trial in self.run.live_trials if trial.status in states]

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def end_one_that_waits(self, data: st.DataObject) -> None:
        trial = data.draw(st.sampled_from(self.waiting()))
        self.run.stop_trial(trial)
        self.hear()
        assert trial in self.ended

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def clone_into_one_that_waits(self, data: st.DataObject) -> None:
        trial = data.draw(st.sampled_from(self.waiting()))
        source = data.draw(st.sampled_from(self.run.trials))
        self.run.exploit_paused(trial, Exploit(source, {"x": 0.75}))
        self.cloned.append(trial)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def one_that_runs_is_not_ended_from_outside(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="pending or paused"):
            self.run.stop_trial(data.draw(st.sampled_from(self.live)))

    @invariant()
    def the_books_are_right(self) -> None:
        run = self.run
        assert sum(self.held.values()) <= self.CPUS
        assert len(self.held) <= 3
        assert list(run.live_trials) == [trial for trial in run.trials if not trial.is_finished]
        assert set(run.running) == set(self.live)
        paused = {trial.trial_id for trial in run.trials if trial.status == Trial.PAUSED}
        assert paused == {i for i in self.searcher.paused if i in paused}
        finished = [trial.trial_id for trial in run.trials if trial.is_finished]
        assert sorted(name for name, _ in self.searcher.completed) == sorted(finished)
        assert sorted(trial.trial_id for trial in self.scheduler.ended) == sorted(finished)
        for trial in run.trials:
            steps = trial.history.column("training_iteration")
            assert steps == [float(step) for step in range(1, trial.iterations + 1)]

    def teardown(self) -> None:
        for _ in range(200):
            while self.pausing:
                self.paused("nothing")
            while self.stopping:
                self.release()
            self.start()
            if not self.live:
                break
            for trial in list(self.live):
                self.live.remove(trial)
                del self.held[trial.trial_id]
                self.run.on_reports(trial, [result(trial, 0.5)])
                self.run.on_finished(trial)
        assert len(self.run.trials) == 10
        assert all(trial.is_finished for trial in self.run.trials)
        assert not self.held


TestWholeLife = WholeLife.TestCase
TestWholeLife.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


def test_a_result_may_say_that_it_is_the_last() -> None:
    scheduler = Obedient()
    scheduler.verdict = "PAUSE"
    run = make(scheduler)
    trial = run.fill()[0].trial
    assert run.on_reports(trial, [result(trial, 1.0, done=True)]) == Stop(trial)
    assert (trial.stop_reason, trial.early_stopped) == ("completed", False)
    assert scheduler.ended == [trial]


def test_a_scheduler_that_starts_nothing_is_found_out() -> None:
    class Lazy(FIFOScheduler):
        def choose_trial_to_run(self, controller: Controller) -> Trial | None:
            return None

    with pytest.raises(TuneError, match="Lazy starts none of the 1 trials that wait"):
        make(Lazy()).fill()


def test_a_scheduler_without_work_may_make_some() -> None:
    class Late(FIFOScheduler):
        awake = False

        def on_idle(self, controller: Controller) -> None:
            self.awake = True

        def choose_trial_to_run(self, controller: Controller) -> Trial | None:
            return super().choose_trial_to_run(controller) if self.awake else None

    assert len(make(Late()).fill()) == 2


def test_the_end_of_a_run_ends_those_that_wait() -> None:
    scheduler = Obedient()
    run = make(scheduler, slots=2, num_samples=4)
    first, second = [start.trial for start in run.fill()]
    scheduler.verdict = "PAUSE"
    assert run.on_reports(first, [result(first, 1.0)], TrialCheckpoint("ref")) == Pause(
        first, save=False
    )
    run.on_paused(first)
    assert [kill.trial for kill in run.end("time budget")] == [second]
    assert run.take_ended() == [first]
    assert (first.status, first.stop_reason) == (Trial.TERMINATED, "time budget")
    assert run.fill() == []
