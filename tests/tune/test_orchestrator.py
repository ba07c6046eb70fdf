"""The orchestrator alone: events in, actions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate import tune
from skate.tune.actions import Continue, Start, Stop
from skate.tune.error import MetricError, TuneError
from skate.tune.objective import Objective
from skate.tune.orchestrator import Limits, Orchestrator
from skate.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from skate.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from skate.tune.stopper import FunctionStopper, NoopStopper, Stopper, ThresholdStopper
from skate.tune.trial import Trial

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
