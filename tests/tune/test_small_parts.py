"""Resources, objectives, stop criteria, histories."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from typing import Any

import pytest

from skate import tune
from skate.tune.analysis import best_trial
from skate.tune.error import MetricError
from skate.tune.objective import Objective, guess_mode
from skate.tune.resources import actor_options, as_factory, concurrency, normalize
from skate.tune.stopper import NoopStopper, ThresholdStopper, as_stopper, merge
from skate.tune.trial import History, Trial, flat_result


@pytest.mark.parametrize(
    ("required", "available", "expected"),
    [
        ({"CPU": 1.0}, {"CPU": 4.0}, 4),
        ({"CPU": 1.5}, {"CPU": 4.0}, 2),
        ({"CPU": 0.1}, {"CPU": 0.3}, 3),
        ({"CPU": 1.0, "GPU": 0.5}, {"CPU": 8.0, "GPU": 1.0}, 2),
        ({"CPU": 1 / 3}, {"CPU": 1.0}, 3),
        ({"CPU": 0.0}, {"CPU": 4.0}, 64),
    ],
)
def test_how_many_fit(
    required: dict[str, float], available: dict[str, float], expected: int
) -> None:
    assert concurrency(required, available) == expected


def test_none_leaves_a_setting_alone() -> None:
    nothing: Any = None
    config = tune.RunConfig(
        failure_config=nothing, checkpoint_config=nothing, callbacks=nothing, verbose=nothing
    )
    assert config == tune.RunConfig()


def test_forms_of_resources() -> None:
    assert normalize({"cpu": 2, "gpu": 0.5, "custom_resources": {"disk": 1}}) == {
        "CPU": 2.0,
        "GPU": 0.5,
        "disk": 1.0,
    }
    assert as_factory(None).required_resources == {"CPU": 1.0}
    assert as_factory({"gpu": 1}).required_resources == {"CPU": 1.0, "GPU": 1.0}
    factory = tune.PlacementGroupFactory([{"CPU": 0}, {"CPU": 1, "GPU": 1}, {"CPU": 2}])
    assert as_factory(factory) is factory
    assert factory.head == {"CPU": 0.0}
    assert factory.required_resources == {"CPU": 3.0, "GPU": 1.0}
    assert actor_options({"CPU": 2.0, "GPU": 0.5, "memory": 1e9, "disk": 1.0}) == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "memory": 10**9,
        "resources": {"disk": 1.0},
    }
    with pytest.raises(ValueError, match="at least one bundle"):
        tune.PlacementGroupFactory([])


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("loss", "min"), ("val_loss", "min"), ("rmse", "min"), ("valid-error", "min"),
        ("train/logloss", "min"), ("accuracy", "max"), ("val_acc", "max"), ("valAccuracy", "max"),
        ("test/f1", "max"), ("auc", "max"), ("mean_reward", "max"), ("map", "max"),
        ("mape", "min"), ("account", "min"), ("ndcg@5", "max"), ("R2", "max"), ("x", "min"),
    ],
)  # fmt: skip
def test_names_suggest_a_mode(metric: str, mode: str) -> None:
    assert guess_mode(metric) == mode


def test_what_the_user_says_is_not_second_guessed() -> None:
    objective = Objective("accuracy", "min")
    objective.learn({"accuracy": 0.5})
    assert (objective.mode, objective.assumed) == ("min", False)
    partial = Objective(None, "max")
    partial.learn({"trial_id": "t", "training_iteration": 1, "loss": 1.0, "other": 2.0})
    assert (partial.metric, partial.mode, partial.assumed) == ("loss", "max", True)
    with pytest.raises(MetricError, match="no number in it; reported: note"):
        Objective().learn({"training_iteration": 1, "note": "x"})
    unknown = Objective()
    assert not unknown.learn({"training_iteration": 1, "note": "x"}, required=False)
    assert unknown.metric is None
    assert unknown.learn({"note": "x", "loss": 1.0}, required=False)
    assert (unknown.metric, unknown.mode) == ("loss", "min")


def test_stop_criteria() -> None:
    assert isinstance(as_stopper(None), NoopStopper)
    either = ThresholdStopper({"acc": 0.9, "training_iteration": 10})
    assert not either("t", {"acc": 0.5, "training_iteration": 9})
    assert either("t", {"acc": 0.9, "training_iteration": 1})
    assert either("t", {"acc": 0.1, "training_iteration": 10})
    assert as_stopper(either) is either


def test_gates() -> None:
    assert merge({}, {}) == {}
    assert merge({"a": 3}, {}) == {"a": 3}
    assert merge({"a": 3, "b": 1}, {"a": 2}) == {"a": 2, "b": 1}
    assert merge(None, {"a": 1}) is None
    assert merge({}, None) is None


def test_a_history_keeps_numbers_in_step() -> None:
    history = History()
    history.append({"loss": 1.0, "note": "x", "flag": True, "pid": 17})
    history.append({"acc": 0.5})
    history.append({"loss": 10**400, "acc": -(10**400)})
    assert history.length == 3
    assert set(history.columns) == {"loss", "acc"}
    loss, acc = history.column("loss"), history.column("acc")
    assert loss[0] == 1.0
    assert math.isnan(loss[1])
    assert loss[2] == math.inf
    assert math.isnan(acc[0])
    assert acc[1:] == [0.5, -math.inf]
    assert all(math.isnan(value) for value in history.column("never"))


def test_one_number_for_a_trial() -> None:
    trial = Trial("t", {}, {})
    for loss in (5.0, 1.0, math.nan, 3.0):
        trial.record({"loss": loss, "training_iteration": trial.iterations + 1})
    assert trial.metric("loss", "min") == 3.0
    assert trial.metric("loss", "min", "all") == 1.0
    assert trial.metric("loss", "max", "all") == 5.0
    assert trial.metric("loss", "min", "avg") == 3.0
    assert trial.metric("loss", "min", "last-5-avg") == 3.0
    assert math.isnan(trial.metric("acc", "min", "all"))
    assert trial.metric_analysis["loss"] == {
        "max": 5.0, "min": 1.0, "avg": 3.0, "last": 3.0, "last-5-avg": 3.0, "last-10-avg": 3.0,
    }  # fmt: skip
    assert trial.num_failures == 0
    assert trial.placement_group_factory.required_resources == {"CPU": 1}
    with pytest.raises(ValueError, match="scope has to be one of"):
        best_trial([trial], "loss", "min", "best")


def test_nested_results_are_found_by_path() -> None:
    plain: dict[str, Any] = {"loss": 1.0, "config": {"a": {"b": 1}}}
    assert flat_result(plain) is plain
    assert flat_result({"valid": {"loss": 1.0, "more": {"x": 2}}, "n": 1}) == {
        "valid/loss": 1.0,
        "valid/more/x": 2,
        "n": 1,
    }


def test_every_exported_name_is_there() -> None:
    for name in tune.__all__:
        assert getattr(tune, name) is not None
        assert name in dir(tune)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tune.nothing  # noqa: B018  # the access is what is tested


def test_a_process_that_runs_trials_imports_little() -> None:
    code = (
        "import sys, skate.tune.trial_actor, skate.tune;"
        " skate.tune.report;"
        " print([m for m in sys.modules if m.startswith('skate.tune')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert ast.literal_eval(output) == [
        "skate.tune",
        "skate.tune.trial_context",
        "skate.tune.session",
        "skate.tune.trial_actor",
    ]
