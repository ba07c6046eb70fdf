"""Stoppers: when they stop, when trials wait for them, and what they remember."""

from __future__ import annotations

import importlib
import math
import pickle
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import skate
from skate import tune
from skate.tune.error import MetricError
from skate.tune.stopper import (
    CombinedStopper,
    ExperimentPlateauStopper,
    FunctionStopper,
    MaximumIterationStopper,
    NoopStopper,
    Stopper,
    ThresholdStopper,
    TimeoutStopper,
    TrialPlateauStopper,
    as_stopper,
)


def feed(stopper: Stopper, values: Iterable[float], trial: str = "a") -> list[bool]:
    """Report values of ``loss``; return the verdicts."""
    return [
        stopper(trial, {"loss": value, "training_iteration": number})
        for number, value in enumerate(values, 1)
    ]


def test_a_number_of_results_each_trial() -> None:
    stopper = MaximumIterationStopper(3)
    assert feed(stopper, [1, 1, 1]) == [False, False, True]
    assert feed(stopper, [1, 1], "b") == [False, False]
    assert not stopper.stop_all()
    assert stopper.gate() == {"training_iteration": 3}


def test_a_trial_stands_still() -> None:
    stopper = TrialPlateauStopper("loss", std=0.1, num_results=3, grace_period=5)
    assert feed(stopper, [1, 1, 1, 1, 1]) == [False] * 4 + [True]
    assert feed(stopper, [5, 4, 3, 2, 1, 1.1, 1.1], "b") == [False] * 6 + [True]
    assert stopper.gate() == {"training_iteration": 5}
    assert TrialPlateauStopper("loss", num_results=6).gate() == {"training_iteration": 6}
    assert not stopper.stop_all()


@pytest.mark.parametrize(("mode", "stops"), [("min", [0, 0, 1]), ("max", [1, 1, 0])])
def test_a_trial_that_stands_still_where_it_is_not_good_goes_on(
    mode: str, stops: list[int]
) -> None:
    verdicts = []
    for level in (2.0, 1.5, -1.0):
        stopper = TrialPlateauStopper(
            "loss", num_results=2, grace_period=2, metric_threshold=0.0, mode=mode
        )
        verdicts.append(feed(stopper, [level, level])[-1])
    assert verdicts == [bool(stop) for stop in stops]


def test_values_that_are_no_finite_numbers_are_no_plateau() -> None:
    stopper = TrialPlateauStopper("loss", num_results=2, grace_period=0)
    assert feed(stopper, [math.nan, math.nan, math.inf, math.inf]) == [False] * 4


def test_the_run_stands_still() -> None:
    stopper = ExperimentPlateauStopper("loss", std=0.01, top=3)
    assert feed(stopper, [5, 1, 3, 1, math.nan]) == [False] * 5
    assert not stopper.stop_all()
    assert feed(stopper, [1.001], "b") == [True]
    assert stopper.stop_all()
    assert stopper.gate() == {}


def test_the_run_stands_still_for_a_while() -> None:
    patient = ExperimentPlateauStopper("acc", std=0.01, top=2, mode="max", patience=3)
    verdicts = [patient("a", {"acc": value}) for value in (0.5, 0.5, 0.1, 0.9, 0.9, 0.2, 0.3)]
    assert verdicts == [False] * 6 + [True]


def test_time_runs_out_for_the_run_as_a_whole() -> None:
    now = [100.0]
    stopper = TimeoutStopper(timedelta(seconds=10), clock=lambda: now[0])
    now[0] = 500.0  # what passed before the first look was preparation
    assert not stopper.stop_all()
    now[0] += 9
    assert not stopper.stop_all()
    state = pickle.loads(pickle.dumps(stopper.get_state()))
    now[0] += 1
    assert stopper.stop_all()
    assert stopper("a", {"loss": 1}) is False
    # A resumed run has what was left; the night in between does not count.
    resumed = TimeoutStopper(10, clock=lambda: now[0])
    resumed.set_state(state)
    now[0] += 10_000
    assert not resumed.stop_all()
    now[0] += 0.5
    assert not resumed.stop_all()
    now[0] += 0.6
    assert resumed.stop_all()


def test_several_stoppers() -> None:
    stopper = CombinedStopper(
        MaximumIterationStopper(3),
        ThresholdStopper({"loss": 10}),
        ExperimentPlateauStopper("loss", top=2),
    )
    assert stopper.gate() == {"training_iteration": 3, "loss": 10}
    assert feed(stopper, [1, 11, 5]) == [False, True, True]
    assert not stopper.stop_all()
    feed(stopper, [5], "b")
    assert CombinedStopper(FunctionStopper(lambda trial, result: False)).gate() is None
    nested = as_stopper([MaximumIterationStopper(2), {"loss": 3}, lambda trial, result: False])
    assert isinstance(nested, CombinedStopper)
    assert nested.gate() is None
    assert feed(nested, [1, 1]) == [False, True]


def test_all_of_several_stoppers_see_every_result() -> None:
    first, second = MaximumIterationStopper(1), ExperimentPlateauStopper("loss", top=3)
    stopper = CombinedStopper(first, second)
    for trial in "abc":
        feed(stopper, [1.0], trial)
    assert stopper.stop_all()


def test_a_trial_that_begins_again_counts_again() -> None:
    stopper = CombinedStopper(
        MaximumIterationStopper(6), TrialPlateauStopper("loss", num_results=3, grace_period=3)
    )
    assert feed(stopper, [5, 4, 2, 2]) == [False] * 4
    stopper.on_trial_restore("a", 3)
    # 5 4 2 | 2 1 0: neither six of them nor a plateau before.
    assert feed(stopper, [2, 1, 0]) == [False, False, True]
    stopper.on_trial_restore("a", 0)
    stopper.on_trial_restore("unknown", 0)
    assert feed(stopper, [0, 0, 0]) == [False, False, True]


MAKERS: dict[str, Callable[[], Stopper]] = {
    "noop": NoopStopper,
    "threshold": lambda: ThresholdStopper({"loss": 0.9}),
    "iterations": lambda: MaximumIterationStopper(7),
    "trial plateau": lambda: TrialPlateauStopper("loss", std=0.1, num_results=3, grace_period=4),
    "experiment plateau": lambda: ExperimentPlateauStopper("loss", std=0.05, top=4, patience=2),
    "combined": lambda: CombinedStopper(
        MaximumIterationStopper(9), ExperimentPlateauStopper("loss", std=0.02, top=3)
    ),
}
reports = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), max_size=40)


@pytest.mark.parametrize("kind", MAKERS)
@given(reports=reports, cut=st.integers(0, 40))
def test_a_resumed_run_goes_on_as_it_would_have(
    kind: str, reports: list[tuple[str, float]], cut: int
) -> None:
    stopper, resumed = MAKERS[kind](), MAKERS[kind]()
    for number, (trial, value) in enumerate(reports):
        if number == cut:
            resumed.set_state(pickle.loads(pickle.dumps(stopper.get_state())))
        result = {"loss": value}
        verdict = stopper(trial, result)
        if number >= cut:
            assert resumed(trial, result) == verdict
            assert resumed.stop_all() == stopper.stop_all()


@pytest.mark.parametrize("kind", MAKERS)
@given(reports=reports)
def test_no_trial_stops_where_it_would_not_have_waited(
    kind: str, reports: list[tuple[str, float]]
) -> None:
    """Otherwise it would run on while the driver decides; the end of a run is another matter."""
    stopper = MAKERS[kind]()
    gate = stopper.gate()
    assert gate is not None
    counts: dict[str, int] = {}
    for trial, value in reports:
        counts[trial] = counts.get(trial, 0) + 1
        result = {"loss": value, "training_iteration": counts[trial]}
        waits = any(result[name] >= bound for name, bound in gate.items())
        if stopper(trial, result) and not stopper.stop_all():
            assert waits


def test_metrics_that_nobody_reports() -> None:
    for stopper in (TrialPlateauStopper("acc"), ExperimentPlateauStopper("acc")):
        with pytest.raises(MetricError, match=r"Stopper looks at 'acc'.*reported: loss"):
            stopper("a", {"loss": 1.0})


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: MaximumIterationStopper(0), ValueError, "at least 1"),
        (lambda: ExperimentPlateauStopper("a", mode="best"), ValueError, "'min' or 'max'"),
        (lambda: ExperimentPlateauStopper("a", top=1), ValueError, "at least 2"),
        (lambda: ExperimentPlateauStopper("a", patience=-1), ValueError, "at least 0"),
        (lambda: ExperimentPlateauStopper("a", std=0), ValueError, "above 0"),
        (lambda: TrialPlateauStopper("a", metric_threshold=0), ValueError, "what is better"),
        (lambda: TrialPlateauStopper("a", mode="best"), ValueError, "'min' or 'max'"),
        (lambda: TrialPlateauStopper("a", num_results=0), ValueError, "at least 1"),
        (lambda: TimeoutStopper("10"), TypeError, "seconds or a timedelta"),
        (lambda: TimeoutStopper(-1), ValueError, "at least 0"),
        (lambda: CombinedStopper(lambda a, b: True), TypeError, "wants Stoppers"),
        (lambda: ThresholdStopper({"valid": {"acc": 1}}), TypeError, "by path: valid/acc"),
        (lambda: as_stopper(MaximumIterationStopper), TypeError, "is a class; make one"),
        (lambda: as_stopper(3), TypeError, "a dict, a function or a Stopper"),
    ],
)
def test_stoppers_that_make_no_sense(
    make: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_what_has_the_methods_of_a_stopper_has_to_be_one() -> None:
    class Almost:
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return True

    with pytest.raises(ValueError, match=r"derive it from tune\.Stopper"):
        as_stopper(Almost())


def test_the_names_of_ray() -> None:
    names = {
        "stopper": "Stopper",
        "maximum_iteration": "MaximumIterationStopper",
        "experiment_plateau": "ExperimentPlateauStopper",
        "trial_plateau": "TrialPlateauStopper",
        "timeout": "TimeoutStopper",
        "function_stopper": "FunctionStopper",
        "noop": "NoopStopper",
    }
    for module, name in names.items():
        found = getattr(importlib.import_module(f"skate.tune.stopper.{module}"), name)
        assert found is getattr(tune.stopper, name)
    assert tune.Stopper is Stopper


# --------------------------------------------------------------------------- in runs


def curve(config: dict[str, Any]) -> None:
    for step in range(1, 21):
        tune.report(loss=config["start"] / step if step < 6 else 0.0)


def test_runs_end_trials_where_the_stopper_says(engine: str) -> None:
    analysis = tune.run(
        curve,
        config={"start": tune.grid_search([1.0, 2.0])},
        metric="loss",
        mode="min",
        verbose=0,
        stop=CombinedStopper(
            MaximumIterationStopper(15),
            TrialPlateauStopper("loss", std=0.001, num_results=3, grace_period=3),
        ),
    )
    assert [trial.iterations for trial in analysis.trials] == [8, 8]
    assert {trial.stop_reason for trial in analysis.trials} == {"criterion"}


def test_a_plateau_ends_the_run(engine: str) -> None:
    analysis = tune.run(
        curve,
        config={"start": 1.0},
        num_samples=20,
        metric="loss",
        mode="min",
        max_concurrent_trials=1,
        verbose=0,
        stop=ExperimentPlateauStopper("loss", std=0.001, top=20),
    )
    assert [trial.iterations for trial in analysis.trials] == [20, 10]


def test_trials_without_end_need_something_that_ends_the_run(engine: str) -> None:
    def train(config: dict[str, Any]) -> dict[str, float]:
        return {"loss": 1.0}

    analysis = tune.run(
        train,
        num_samples=-1,
        metric="loss",
        mode="min",
        verbose=0,
        stop=[MaximumIterationStopper(5), ExperimentPlateauStopper("loss", top=6)],
    )
    assert 6 <= len(analysis.trials) <= 8
    for stop in (None, MaximumIterationStopper(5), [TrialPlateauStopper("loss")]):
        with pytest.raises(ValueError, match="num_samples=-1 runs for ever"):
            tune.run(train, num_samples=-1, metric="loss", mode="min", verbose=0, stop=stop)


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (lambda: MaximumIterationStopper(7), 7),
        (lambda: ThresholdStopper({"time": 4}), 4),
        (lambda: TrialPlateauStopper("loss", std=0.001, num_results=3, grace_period=3), 8),
        (lambda: FunctionStopper(lambda trial, result: result["time"] == 5), 5),
    ],
)
def test_a_trial_does_nothing_beyond_the_report_that_ended_it(
    engine: str, make: Callable[[], Stopper], last: int, tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()

    def train(config: dict[str, Any]) -> None:
        for step in range(1, 100):
            (steps / str(step)).touch()
            tune.report(loss=1.0 / step if step < 6 else 0.0, time=step)

    tune.run(train, metric="loss", mode="min", verbose=0, stop=make())
    assert len(list(steps.iterdir())) == last


def test_time_ends_the_run(engine: str) -> None:
    def forever(config: dict[str, Any]) -> None:
        while True:
            tune.report(loss=1.0)

    analysis = tune.run(
        forever, num_samples=3, metric="loss", mode="min", verbose=0, stop=TimeoutStopper(0.3)
    )
    assert all(trial.is_finished for trial in analysis.trials)
    assert {trial.stop_reason for trial in analysis.trials} <= {"stopper", "criterion"}
    assert skate.is_initialized()


def falls_once(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    start = checkpoint.to_dict()["step"] if checkpoint else 0
    for step in range(start + 1, 100):
        saved = tune.Checkpoint.from_dict({"step": step}) if step % 4 == 0 else None
        tune.report({"loss": float(step)}, checkpoint=saved)
        if step == 6 and not checkpoint:
            raise RuntimeError("falls")


def test_a_trial_that_goes_on_from_a_checkpoint_has_as_many_results(engine: str) -> None:
    analysis = tune.run(
        falls_once,
        metric="loss",
        mode="min",
        max_failures=1,
        verbose=0,
        stop=CombinedStopper(MaximumIterationStopper(9), TrialPlateauStopper("loss", std=1e-6)),
    )
    (trial,) = analysis.trials
    # 1 to 6, then again from 4: the results 5 and 6 count once.
    assert trial.history.column("loss") == [float(step) for step in range(1, 10)]
    assert trial.failures == 1


@pytest.mark.parametrize(
    "stopper",
    [
        tune.stopper.ThresholdStopper({"state": 3}),
        tune.stopper.TrialPlateauStopper("state"),
        tune.stopper.ExperimentPlateauStopper("state"),
    ],
)
def test_what_is_no_number_is_no_measure(stopper: tune.Stopper) -> None:
    with pytest.raises(tune.MetricError, match=r"'state', which has to be a number; .* 'open'"):
        stopper("t1", {"state": "open"})
