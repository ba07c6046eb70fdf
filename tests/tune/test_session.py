"""The session between a trial's function and its actor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from skate import tune
from skate.tune.session import (
    FAILED,
    FINISHED,
    MAX_AHEAD,
    RUNNING,
    Report,
    Session,
)
from skate.tune.trial_context import TrialContext


def start(
    function: Callable[[dict[str, Any]], Any],
    gate: dict[str, float] | None,
    config: dict[str, Any] | None = None,
) -> Session:
    session = Session(function, config or {}, TrialContext("t1", "/folder", "run"), gate)
    session.start()
    return session


def values(reports: list[Report], name: str = "i") -> list[Any]:
    return [metrics[name] for metrics, *_ in reports]


def count(config: dict[str, Any]) -> None:
    for i in range(1, config.get("n", 5) + 1):
        tune.report(i=i)


def drain(session: Session, gate: dict[str, float] | None) -> tuple[str, list[Report]]:
    found: list[Report] = []
    while True:
        state, reports, *_ = session.collect()[0]
        found += reports
        if state != RUNNING:
            return state, found
        session.proceed(gate)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports wait for each other for as long as it takes, however busy the machine is."""
    monkeypatch.setattr("skate.tune.session.GATHER_S", 30.0)


@pytest.mark.usefixtures("patient")
def test_who_goes_on_from_a_checkpoint_is_heard_of_at_once() -> None:
    go_on = threading.Event()

    def clone(config: dict[str, Any]) -> None:
        tune.report(i=1)
        go_on.wait()
        count({"n": 3})

    checkpoint = tune.Checkpoint.from_dict({"weights": 1})
    context = TrialContext("t1", "/folder", "run")
    session = Session(clone, {}, context, {"i": 9}, checkpoint, (4, 1.0))
    session.start()
    state, reports, *_ = session.collect()[0]
    assert (state, values(reports)) == (RUNNING, [1])
    go_on.set()
    state, reports, *_ = session.collect()[0]
    assert (state, values(reports)) == (FINISHED, [1, 2, 3])


@pytest.mark.usefixtures("patient")
def test_without_gates_all_reports_travel_together() -> None:
    session = start(count, {})
    state, reports, pid, host, _ = session.collect()[0]
    assert state == FINISHED
    assert values(reports) == [1, 2, 3, 4, 5]
    assert [iteration for _, iteration, *_ in reports] == [1, 2, 3, 4, 5]
    assert pid > 0
    assert host


def test_without_a_gate_every_report_waits() -> None:
    session = start(count, None)
    for expected in range(1, 6):
        state, reports, *_ = session.collect()[0]
        assert (state, values(reports)) == (RUNNING, [expected])
        session.proceed(None)
    assert session.collect()[0][:2] == (FINISHED, [])


@pytest.mark.usefixtures("patient")
def test_a_function_waits_at_its_gate_and_not_before() -> None:
    passed: list[int] = []

    def function(config: dict[str, Any]) -> None:
        for i in range(1, 6):
            tune.report(i=i)
            passed.append(i)

    session = start(function, {"training_iteration": 3})
    state, reports, *_ = session.collect()[0]
    assert (state, values(reports)) == (RUNNING, [1, 2, 3])
    assert passed == [1, 2]
    session.proceed({"training_iteration": 5})
    state, reports, *_ = session.collect()[0]
    assert (state, values(reports)) == (RUNNING, [4, 5])
    session.proceed({})
    assert session.collect()[0][0] == FINISHED


def test_permission_to_go_on_is_not_taken_for_a_later_gate() -> None:
    step = threading.Event()
    reached = threading.Event()

    def function(config: dict[str, Any]) -> None:
        tune.report(i=1)
        step.wait(10)
        reached.set()
        tune.report(i=2)
        raise AssertionError("went past its gate")

    session = start(function, {"training_iteration": 2})
    assert values(session.collect()[0][1]) == [1]
    step.set()
    assert reached.wait(10)
    while not session._at_gate:  # the report is made in the other thread
        time.sleep(0.001)
    session.proceed({"training_iteration": 2})  # answers report 1, which was no gate
    assert values(session.collect()[0][1]) == [2]
    session.stop()
    assert session.join(10)
    assert session.error is None


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["loss", "valid/loss", "time_total_s"])
def test_gates_on_other_fields(name: str) -> None:
    def function(config: dict[str, Any]) -> None:
        for i in range(1, 4):
            tune.report(i=i, loss=i, valid={"loss": i})

    session = start(function, {name: 0.0 if name == "time_total_s" else 2.0})
    state, reports, *_ = session.collect()[0]
    assert state == RUNNING
    assert values(reports) == ([1] if name == "time_total_s" else [1, 2])
    session.stop()
    assert session.join(10)


def test_stopping_ends_the_function_at_its_gate_and_runs_its_finally() -> None:
    cleaned: list[str] = []

    def function(config: dict[str, Any]) -> None:
        try:
            while True:
                try:
                    tune.report(i=1)
                except Exception:
                    cleaned.append("swallowed")
        finally:
            cleaned.append("finally")

    session = start(function, None)
    session.collect()
    session.stop()
    assert session.join(10)
    assert cleaned == ["finally"]
    assert session.error is None
    assert session.collect()[0][0] == FINISHED


def test_a_function_that_does_not_listen() -> None:
    release = threading.Event()

    def function(config: dict[str, Any]) -> None:
        tune.report(i=1)
        release.wait(10)

    session = start(function, {})
    session.collect()
    session.stop()
    assert not session.join(0.01)
    release.set()
    assert session.join(10)


def test_errors_arrive_after_the_reports_before_them() -> None:
    def function(config: dict[str, Any]) -> None:
        tune.report(i=1)
        raise KeyError("x")

    session = start(function, {})
    state, reports = drain(session, {})
    assert (state, values(reports)) == (FAILED, [1])
    assert isinstance(session.error, KeyError)
    trace = session.error.__traceback__
    assert trace is not None
    assert trace.tb_frame.f_code.co_name == "function"


def test_what_a_function_returns_is_its_last_result() -> None:
    assert values(drain(start(lambda config: {"i": 7}, {}), {})[1]) == [7]
    assert values(drain(start(lambda config: 0.5, {}), {})[1], "_metric") == [0.5]
    assert drain(start(lambda config: None, {}), {}) == (FINISHED, [])


def test_a_generator_yields_its_results() -> None:
    def function(config: dict[str, Any]) -> Any:
        for i in range(3):
            yield {"i": i}

    assert values(drain(start(function, {}), {})[1]) == [0, 1, 2]


@pytest.mark.usefixtures("patient")
def test_a_function_does_not_run_away() -> None:
    session = start(count, {}, {"n": 3 * MAX_AHEAD})
    state, reports, *_ = session.collect()[0]
    assert state == RUNNING
    assert len(reports) == MAX_AHEAD
    state, rest = drain(session, {})
    assert state == FINISHED
    assert values(reports + rest) == list(range(1, 3 * MAX_AHEAD + 1))


def test_other_threads_of_the_function_report_too() -> None:
    def function(config: dict[str, Any]) -> None:
        thread = threading.Thread(target=lambda: tune.report(i=3))
        thread.start()
        thread.join(10)

    assert values(drain(start(function, {}), {})[1]) == [3]


def test_scalars_of_other_libraries_become_numbers() -> None:
    numpy = pytest.importorskip("numpy")

    def function(config: dict[str, Any]) -> None:
        tune.report(i=numpy.float32(0.5), n=numpy.int64(3), nested={"x": numpy.float64(1.5)})
        tune.report(numpy.float64(2.5), i=numpy.zeros(2))

    _, reports = drain(start(function, {}), {})
    assert reports[0][0] == {"i": 0.5, "n": 3, "nested": {"x": 1.5}}
    assert type(reports[0][0]["i"]) is float
    assert type(reports[0][0]["nested"]["x"]) is float
    assert reports[1][0]["_metric"] == 2.5


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (lambda: tune.report(), "at least one metric"),
        (lambda: tune.report("0.5"), "a dict of metrics"),
        (lambda: tune.report([1]), "a dict of metrics"),
        (lambda: tune.report({1: 2}), "named by text"),
        (lambda: tune.report({"a": 1}, checkpoint=object()), "a tune.Checkpoint, got object"),
    ],
)
def test_results_that_make_no_sense(report: Callable[[], None], message: str) -> None:
    session = start(lambda config: report(), {})
    assert session.collect()[0][0] == FAILED
    with pytest.raises(TypeError, match=message):
        raise session.error or AssertionError


def test_the_ways_to_name_metrics() -> None:
    def function(config: dict[str, Any]) -> None:
        tune.report({"i": 1}, j=2)
        tune.report(metrics={"i": 3})
        tune.report(metrics=4, i=5)

    _, reports = drain(start(function, {}), {})
    assert [report[0] for report in reports] == [{"i": 1, "j": 2}, {"i": 3}, {"metrics": 4, "i": 5}]


def test_no_checkpoint_is_no_mistake() -> None:
    session = start(lambda config: tune.report({"i": 1}, checkpoint=None), {})
    assert session.collect()[0][1][0][0] == {"i": 1}


def test_the_context() -> None:
    def function(config: dict[str, Any]) -> dict[str, Any]:
        context = tune.get_context()
        assert tune.is_session_enabled()
        return {
            "i": [
                context.get_trial_id(),
                context.get_trial_name(),
                context.get_trial_dir(),
                context.get_experiment_name(),
                tune.get_trial_id(),
                tune.get_trial_name(),
                tune.get_trial_dir(),
            ]
        }

    (found,) = values(drain(start(function, {}), {})[1])
    assert found == ["t1", "t1", "/folder", "run", "t1", "t1", "/folder"]


def test_outside_of_a_trial() -> None:
    assert not tune.is_session_enabled()
    assert tune.get_trial_id() is None
    with pytest.raises(RuntimeError, match="outside of a trial"):
        tune.get_context()


def test_a_function_may_be_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skate.tune.session._warned", False)
    with pytest.warns(UserWarning, match="does nothing outside a trial"):
        count({"n": 3})


def test_the_main_thread_is_in_no_trial() -> None:
    started, may_end = threading.Event(), threading.Event()

    def wait(config: dict[str, Any]) -> None:
        started.set()
        may_end.wait(60)

    session = start(wait, {})
    assert started.wait(60)
    assert not tune.is_session_enabled()
    may_end.set()
    assert session.join(60)
