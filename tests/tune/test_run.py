"""Whole runs on every engine."""

from __future__ import annotations

import functools
import json
import os
import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import skate
from skate import tune
from skate.exceptions import SerializationError
from skate.tune.progress_reporter import ReporterCallback
from skate.tune.schedulers import ASHAScheduler
from skate.tune.search import BasicVariantGenerator

pytestmark = pytest.mark.usefixtures("engine")


def parabola(config: dict[str, Any]) -> None:
    for step in range(1, config.get("steps", 10) + 1):
        tune.report(loss=(config["x"] - 3) ** 2 + 1 / step)


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs print nothing unless a test asks for it."""
    monkeypatch.setattr("skate.tune.execute._displays", lambda verbose: [])


def test_the_talk() -> None:
    pytest.importorskip("optuna")
    epochs = 8

    class ConvNet:
        def __init__(self, config: dict[str, Any]) -> None:
            self.loss, self.alpha = 1.0, config["alpha"]

        def train(self) -> float:
            self.loss *= 1 - self.alpha
            return self.loss

    def train_func(config: dict[str, Any]) -> None:
        model = ConvNet(config)
        for _ in range(epochs):
            current_loss = model.train()
            tune.report(loss=current_loss)

    analysis = tune.run(
        train_func,
        config={"alpha": tune.uniform(0.001, 0.1)},
        num_samples=100,
        scheduler="asha",
        search_alg="optuna",
    )
    assert len(analysis.trials) == 100
    assert analysis.best_config is not None
    assert analysis.best_config["alpha"] > 0.08
    assert sum(trial.early_stopped for trial in analysis.trials) > 50


def test_random_search_and_its_results() -> None:
    analysis = tune.run(
        parabola, config={"x": tune.uniform(0, 10)}, num_samples=20, metric="loss", mode="min"
    )
    assert len(analysis.trials) == 20
    best = min(analysis.trials, key=lambda trial: trial.last_result["loss"])
    assert analysis.best_trial is best
    assert analysis.best_config == best.config
    assert analysis.best_result == best.last_result
    assert analysis.get_best_config("loss", "max") != best.config
    assert analysis.get_best_trial("loss", "min", scope="all") is best
    assert set(analysis.results) == {trial.trial_id for trial in analysis.trials}
    result = best.last_result
    assert result["training_iteration"] == 10
    assert result["trial_id"] == best.trial_id
    assert result["config"] == best.config
    assert result["done"] is True
    assert result["time_total_s"] >= result["time_this_iter_s"] >= 0
    assert best.history.column("training_iteration") == list(range(1, 11))


def test_tables() -> None:
    pytest.importorskip("pandas")
    analysis = tune.run(parabola, config={"x": tune.grid_search([1, 3])}, metric="loss", mode="min")
    table = analysis.dataframe()
    assert list(table["config/x"]) == [1, 3]
    assert list(table["loss"]) == pytest.approx([4.1, 0.1])
    assert list(analysis.results_df["training_iteration"]) == [10, 10]
    first = analysis.dataframe(metric="loss", mode="max")
    assert list(first["training_iteration"]) == [1, 1]
    reports = analysis.trial_dataframes[analysis.trials[1].trial_id]
    assert list(reports["loss"]) == pytest.approx([1 / step for step in range(1, 11)])


def test_tuner() -> None:
    grid = tune.Tuner(
        parabola,
        param_space={"x": tune.grid_search([1, 2, 3]), "steps": 4},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=2),
        run_config=tune.RunConfig(name="mine"),
    ).fit()
    assert isinstance(grid, tune.ResultGrid)
    assert len(grid) == 6
    assert (grid.num_errors, grid.errors, grid.num_terminated) == (0, [], 6)
    best = grid.get_best_result()
    assert best.config == {"x": 3, "steps": 4}
    assert best.metrics is not None
    assert best.metrics["loss"] == pytest.approx(0.25)
    assert best.error is None
    assert Path(best.path or "").parent.name == "mine"
    assert [result.config["x"] for result in grid] == [1, 2, 3, 1, 2, 3]
    assert grid[1].config["x"] == 2
    with pytest.raises(tune.MetricError, match=r"no trial reported 'auc'; reported: .*loss"):
        grid.get_best_result("auc", "max")


def test_asha_stops_bad_trials_and_leaves_good_ones() -> None:
    xs = [3.0, 9.0, 8.0, 3.1, 7.0, 2.9, 10.0, 3.0]
    analysis = tune.run(
        parabola,
        config={"x": tune.grid_search(xs), "steps": 30},
        scheduler=ASHAScheduler(max_t=20, grace_period=2, reduction_factor=4),
        metric="loss",
        mode="min",
        max_concurrent_trials=1,
    )
    ended = [trial.iterations for trial in analysis.trials]
    # 3.1 and 2.9 are good enough at the first rung, but not at the second, where 3.0 has been.
    assert ended == [20, 2, 2, 8, 2, 8, 2, 20]
    reasons = {trial.stop_reason for trial in analysis.trials if trial.iterations == 20}
    assert reasons == {"completed"}


def test_the_same_seed_gives_the_same_trials() -> None:
    pytest.importorskip("optuna")
    for name in ("random", "optuna"):
        runs = [
            tune.run(
                parabola,
                config={"x": tune.uniform(0, 10), "steps": 2},
                num_samples=6,
                search_alg=name,
                seed=11,
                max_concurrent_trials=1,
            )
            for _ in range(2)
        ]
        first, second = [[trial.config for trial in run.trials] for run in runs]
        assert first == second


def test_thresholds_and_functions_stop_trials() -> None:
    config = {"x": tune.grid_search([3, 4]), "steps": 50}
    by_iteration = tune.run(parabola, config=config, stop={"training_iteration": 5})
    assert [trial.iterations for trial in by_iteration.trials] == [5, 5]
    by_function = tune.run(
        parabola, config=config, stop=lambda trial_id, result: result["loss"] < 0.25
    )
    assert [trial.iterations for trial in by_function.trials] == [5, 50]


def test_a_stopper_can_end_the_whole_run() -> None:
    class Enough(tune.Stopper):
        def __init__(self) -> None:
            self.seen = 0

        def __call__(self, trial_id: str, result: Any) -> bool:
            self.seen += 1
            return False

        def stop_all(self) -> bool:
            return self.seen >= 7

    analysis = tune.run(
        parabola, config={"x": 1}, num_samples=50, stop=Enough(), max_concurrent_trials=1
    )
    assert [trial.iterations for trial in analysis.trials] == [7]
    assert analysis.experiment.end_reason == "stopper"


def test_what_is_assumed_without_metric_and_mode() -> None:
    def accurate(config: dict[str, Any]) -> None:
        tune.report({"val_accuracy": config["x"], "loss": 1.0})

    analysis = tune.run(accurate, config={"x": tune.grid_search([0.1, 0.9, 0.5])})
    assert (analysis.default_metric, analysis.default_mode) == ("val_accuracy", "max")
    assert analysis.best_config == {"x": 0.9}


def test_scheduler_and_searcher_may_know_the_objective() -> None:
    analysis = tune.run(
        parabola,
        config={"x": tune.uniform(0, 5)},
        num_samples=2,
        scheduler=ASHAScheduler(metric="loss", mode="max"),
    )
    assert (analysis.default_metric, analysis.default_mode) == ("loss", "max")
    with pytest.raises(ValueError, match=r"do not agree on the mode: \['max', 'min'\]"):
        tune.run(parabola, config={"x": 1}, mode="min", scheduler=ASHAScheduler(mode="max"))


def test_nested_spaces_and_results() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report({"valid": {"loss": config["model"]["size"], "n": 1}})

    analysis = tune.run(
        train,
        config={"model": {"size": tune.grid_search([3, 1, 2])}, "k": [1, tune.choice([5])]},
        metric="valid/loss",
        mode="min",
    )
    assert analysis.best_config == {"model": {"size": 1}, "k": [1, 5]}
    assert analysis.best_trial is not None
    assert analysis.best_trial.evaluated_params == {"model/size": 1, "k/1": 5}


def test_returned_and_yielded_results() -> None:
    returned = tune.run(
        lambda config: {"score": config["x"]}, config={"x": tune.grid_search([1, 2])}
    )
    assert returned.best_config == {"x": 2}
    number = tune.run(lambda config: config["x"], config={"x": tune.grid_search([1, 2])})
    assert number.default_metric == "_metric"
    assert number.best_config == {"x": 1}

    def steps(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"loss": 2.0}
        yield {"loss": 1.0}

    yielded = tune.run(steps, stop={"training_iteration": 10})
    assert yielded.trials[0].history.column("loss") == [2.0, 1.0]


def test_partial_functions_and_parameters(engine: str) -> None:
    numpy = pytest.importorskip("numpy")

    def train(config: dict[str, Any], data: Any, scale: float = 1.0) -> dict[str, Any]:
        return {"loss": float(data.sum()) * scale + config["x"], "writeable": data.flags.writeable}

    data = numpy.ones(300_000)
    trainable = tune.with_parameters(train, data=data, scale=2.0)
    analysis = tune.run(trainable, config={"x": tune.grid_search([0, 1])})
    assert [trial.last_result["loss"] for trial in analysis.trials] == [600_000, 600_001]
    assert not analysis.trials[0].last_result["writeable"]
    partial = tune.run(functools.partial(train, data=numpy.ones(2)), config={"x": 1})
    assert partial.trials[0].last_result["loss"] == 3
    with pytest.raises(TypeError, match="'wrong'"):
        tune.with_parameters(train, data=1, wrong=1)


class Counted:
    """Counts how often it is pickled here."""

    pickled = 0

    def __reduce__(self) -> Any:
        Counted.pickled += 1
        return Counted, ()


class UsesCounted(tune.Trainable):
    """Ends at once."""

    def setup(self, config: dict[str, Any], data: Counted) -> None:
        assert isinstance(data, Counted)

    def step(self) -> dict[str, Any]:
        return {"done": True}


@pytest.mark.parametrize("kind", ["function", "class"])
def test_parameters_are_stored_once_for_all_trials(
    engine: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: dict[str, Any], data: Counted) -> dict[str, Any]:
        return {"same": isinstance(data, Counted)}

    monkeypatch.setattr(Counted, "pickled", 0)
    trainable = tune.with_parameters(UsesCounted if kind == "class" else train, data=Counted())
    analysis = tune.run(trainable, config={"x": tune.grid_search(list(range(6)))})
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 6
    assert Counted.pickled == 1


def test_resources_bound_how_many_run_at_a_time() -> None:
    most = 0

    class Watch(tune.Callback):
        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            nonlocal most
            most = max(most, sum(trial.status == tune.Trial.RUNNING for trial in trials))

    def count(resources: Any = None, trainable: Any = parabola, **options: Any) -> int:
        nonlocal most
        most = 0
        tune.run(
            trainable,
            config={"x": 1, "steps": 3},
            num_samples=6,
            resources_per_trial=resources,
            callbacks=[Watch()],
            stop=lambda trial_id, result: False,
            **options,
        )
        return most

    assert count() == 2
    assert count({"cpu": 2}) == 1
    assert count({"cpu": 0.5}) == 4
    assert count({"cpu": 0}) == 6
    assert count(max_concurrent_trials=1) == 1
    assert count(tune.PlacementGroupFactory([{"CPU": 0}, {"CPU": 1}, {"CPU": 1}])) == 1
    assert count(trainable=tune.with_resources(parabola, {"cpu": 2})) == 1


def test_a_trial_may_start_actors_of_its_own() -> None:
    @skate.remote
    class Half:
        def work(self, x: float) -> float:
            return x / 2

    def train(config: dict[str, Any]) -> dict[str, float]:
        workers = [Half.options(num_cpus=1).remote() for _ in range(2)]  # type: ignore[attr-defined]  # added by @remote
        return {"loss": sum(skate.get([worker.work.remote(config["x"]) for worker in workers]))}

    analysis = tune.run(
        train,
        config={"x": tune.grid_search([1, 2, 3])},
        resources_per_trial=tune.PlacementGroupFactory([{"CPU": 0}, {"CPU": 1}, {"CPU": 1}]),
    )
    assert [trial.last_result["loss"] for trial in analysis.trials] == [1, 2, 3]


def test_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="each trial asks for 64 CPU, but there is 2 in all"):
        tune.run(parabola, config={"x": 1}, resources_per_trial={"cpu": 64})
    with pytest.raises(ValueError, match="asks for 1 GPU"):
        tune.run(parabola, config={"x": 1}, resources_per_trial={"gpu": 1})


def test_failing_functions() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=1.0)
        if config["x"] == 1:
            raise LookupError("no such thing")
        tune.report(loss=0.5)

    config = {"x": tune.grid_search([0, 1, 2])}
    with pytest.raises(
        tune.TuneError, match=r"1 of 3 trials failed.*\n.*: LookupError: no such thing$"
    ) as caught:
        tune.run(train, config=config)
    assert isinstance(caught.value.__cause__, LookupError)
    analysis = tune.run(train, config=config, raise_on_failed_trial=False)
    assert [t.status for t in analysis.trials] == ["TERMINATED", "ERROR", "TERMINATED"]
    failed = analysis.trials[1]
    assert isinstance(failed.error, LookupError)
    assert "in train" in str(failed.error)
    assert failed.last_result["loss"] == 1.0
    assert "no such thing" in (Path(failed.path or "") / "error.txt").read_text()
    grid = tune.Tuner(train, param_space=config).fit()
    assert grid.num_errors == 1
    assert isinstance(grid.errors[0], LookupError)
    assert isinstance(grid[1].error, LookupError)


def test_other_ways_to_fail() -> None:
    def train(config: dict[str, Any]) -> None:
        if config["how"] == "exit":
            raise SystemExit(3)
        if config["how"] == "result":
            tune.report(loss=threading.Lock())
        if config["how"] == "interrupt":
            raise KeyboardInterrupt
        tune.report(loss=1.0)

    analysis = tune.run(
        train,
        config={"how": tune.grid_search(["exit", "result", "fine", "interrupt"])},
        raise_on_failed_trial=False,
    )
    assert [t.status for t in analysis.trials] == ["ERROR", "ERROR", "TERMINATED", "ERROR"]
    assert "SystemExit(3)" in str(analysis.trials[0].error)
    assert "lock" in str(analysis.trials[1].error)


def test_a_failed_trial_is_tried_again(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=float(config["x"]))
        marker = Path(config["folder"]) / str(config["x"])
        if not marker.exists():
            marker.touch()
            raise RuntimeError("the first time")
        tune.report(loss=0.0)

    analysis = tune.run(
        train,
        config={"x": tune.grid_search([1, 2]), "folder": str(tmp_path)},
        max_failures=1,
    )
    for trial in analysis.trials:
        assert trial.status == "TERMINATED"
        assert trial.failures == 1
        assert trial.error is None
        assert trial.history.column("loss") == [float(trial.config["x"]), 0.0]
        lines = (Path(trial.path or "") / "result.json").read_text().splitlines()
        assert len(lines) == 2


def test_trainables_by_name() -> None:
    tune.register_trainable("a parabola", parabola)
    assert tune.run("a parabola", config={"x": 3, "steps": 1}).best_config["x"] == 3
    tuner = tune.Tuner("a parabola", param_space={"x": 3, "steps": 1})
    with pytest.raises(RuntimeError, match=r"call fit\(\) first"):
        tuner.get_results()
    assert tuner.fit() is tuner.get_results()
    with pytest.raises(ValueError, match="did you mean 'a parabola'"):
        tune.Tuner("parabola")
    with pytest.raises(ValueError, match="register it"):
        tune.run("PPO")
    with pytest.raises(TypeError, match="has to take one argument"):
        tune.register_trainable("none", lambda: None)


def test_fail_fast() -> None:
    def train(config: dict[str, Any]) -> None:
        raise ValueError("at once")

    analysis = tune.run(train, num_samples=20, fail_fast=True, raise_on_failed_trial=False)
    assert len(analysis.trials) <= 2
    assert analysis.experiment.failed
    assert analysis.experiment.end_reason == "fail_fast"


def test_fail_fast_may_raise_the_error_itself(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        tune.run(train, num_samples=20, fail_fast="raise", name="raised", storage_path=tmp_path)
    assert len(list(tmp_path.glob("raised/*/error.txt"))) <= 2
    config = tune.RunConfig(failure_config=tune.FailureConfig(fail_fast="raise"), verbose=0)
    with pytest.raises(ValueError, match="at once"):
        tune.Tuner(train, run_config=config).fit()
    with pytest.raises(ValueError, match="True, False or 'raise'"):
        tune.FailureConfig(fail_fast="always")


def test_a_metric_that_nobody_reports() -> None:
    with pytest.raises(
        tune.MetricError, match="'accuracy' is not among what the trials report: loss"
    ):
        tune.run(parabola, config={"x": 1}, metric="accuracy", mode="max", num_samples=100)


def test_nan_results_are_never_the_best() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(loss=config["x"])

    xs = [float("nan"), 2.0, float("-inf"), 1.0]
    for scheduler in (None, "asha"):
        analysis = tune.run(
            train,
            config={"x": tune.grid_search(xs)},
            metric="loss",
            mode="min",
            scheduler=scheduler,
        )
        assert analysis.best_config == {"x": 1.0}
    best = analysis.get_best_trial(filter_nan_and_inf=False)
    assert best is not None
    assert best.config == {"x": float("-inf")}
    only = tune.run(train, config={"x": float("nan")}, metric="loss", mode="min")
    assert only.best_config is None
    assert only.best_result is None


def test_trials_that_report_nothing() -> None:
    analysis = tune.run(lambda config: None, num_samples=3)
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 3
    with pytest.raises(tune.MetricError, match="no trial has reported a metric"):
        _ = analysis.best_config


def test_trials_that_report_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(state="begun", where={"host": "here"})
        tune.report(state=f"done with {config['x']}", where={"host": "there"})

    analysis = tune.run(
        train,
        config={"x": tune.grid_search([1, 2])},
        callbacks=[ReporterCallback(tune.CLIReporter())],
    )
    shown = capsys.readouterr().out
    assert "where/host" in shown
    assert "done with 2" in shown
    for trial in analysis.trials:
        assert (trial.status, trial.iterations) == ("TERMINATED", 2)
        assert trial.last_result["state"] == f"done with {trial.config['x']}"
    for question in (analysis.get_best_trial, analysis.get_best_config):
        with pytest.raises(tune.MetricError, match="no trial has reported a metric"):
            question()
    with pytest.raises(tune.MetricError, match="no trial reported 'loss'"):
        analysis.get_best_trial("loss", "min")
    grid = tune.ResultGrid(analysis)
    with pytest.raises(tune.MetricError, match="no trial has reported a metric"):
        grid.get_best_result()
    assert list(grid.get_dataframe()["where/host"]) == ["there", "there"]
    with pytest.raises(tune.MetricError, match="no trial has reported a metric"):
        _ = tune.ExperimentAnalysis(analysis.experiment_path).best_trial


def test_a_number_may_come_later() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(state="warming up")
        tune.report(loss=config["x"])

    analysis = tune.run(train, config={"x": tune.grid_search([2, 1])}, verbose=0)
    assert (analysis.default_metric, analysis.best_config) == ("loss", {"x": 1})


@pytest.mark.parametrize("options", [{"scheduler": "asha"}, {"search_alg": "optuna"}])
def test_schedulers_and_searchers_that_go_by_numbers(options: dict[str, Any]) -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(state="fine")

    with pytest.raises(tune.MetricError, match="no number in it; reported: state"):
        tune.run(train, config={"x": tune.uniform(0, 1)}, verbose=0, **options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples has to be at least 1"),
        ({"num_samples": 1.5}, TypeError, "num_samples wants an integer"),
        ({"num_samples": -1}, ValueError, "say when to end"),
        ({"config": [1]}, TypeError, "has to be a dict"),
        ({"config": {"f": threading.Lock()}}, SerializationError, "'f'"),
        ({"config": {"m": tune.choice([1, threading.Lock()])}}, SerializationError, "'m'"),
        ({"mode": "maximum"}, ValueError, "'min' or 'max'"),
        ({"metric": 3}, TypeError, "name of one metric"),
        ({"scheduler": "ahsa"}, ValueError, "did you mean 'asha'"),
        ({"scheduler": 3}, TypeError, "wants a name or a TrialScheduler"),
        ({"search_alg": "optun"}, ValueError, "did you mean 'optuna'"),
        ({"search_alg": 3}, TypeError, "wants a name or a Searcher"),
        ({"resources_per_trial": {"cpu": -1}}, ValueError, "cannot be -1"),
        ({"resources_per_trial": {"cpu": "2"}}, TypeError, "wants a number"),
        ({"resources_per_trial": 2}, TypeError, "wants a dict"),
        ({"stop": 5}, TypeError, "stop wants"),
        ({"stop": {"loss": "x"}}, TypeError, "has to be a number"),
        ({"time_budget_s": -1}, ValueError, "above 0"),
        ({"max_concurrent_trials": 0}, ValueError, "above 0"),
        ({"callbacks": [3]}, TypeError, "tune.Callback"),
        ({"local_dir": "a", "storage_path": "b"}, ValueError, "older name"),
    ],
)
def test_settings_that_make_no_sense(
    options: dict[str, Any], kind: type[Exception], message: str, results_folder: Path
) -> None:
    with pytest.raises(kind, match=message):
        tune.run(parabola, **{"config": {"x": 1}, **options})
    assert not results_folder.exists()


class NotAFunction:
    def step(self) -> None: ...


async def asynchronous(config: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        (NotAFunction, "is a class that is not derived from tune.Trainable"),
        (7, "has to be a function"),
        (lambda: 1, "has to take one argument"),
        (lambda a, b: 1, "has to take one argument"),
        (asynchronous, "is async"),
        (skate.remote(parabola), "is a remote function"),
    ],
)
def test_trainables_that_are_none(trainable: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tune.run(trainable)
    with pytest.raises(TypeError, match=message):
        tune.Tuner(trainable)


@pytest.mark.parametrize("name", ["/elsewhere", "..", "../beside", "a/../../b", ".", "a\0b", 5])
def test_runs_stay_below_the_folder_of_all_runs(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="name of a run"):
        tune.RunConfig(name=name)


@pytest.mark.usefixtures("native")
def test_counts_of_ones_own_are_nothing_to_go_on_from() -> None:
    """A trial that goes on counts on from numbers, whatever it reports by these names."""

    def train(config: dict[str, Any]) -> None:
        if tune.get_checkpoint() is not None:
            tune.report(loss=2.0)
            return
        tune.report(
            {"loss": 1.0, "training_iteration": "one", "time_total_s": None},
            checkpoint=tune.Checkpoint.from_dict({}),
        )
        raise ValueError("once")

    (trial,) = tune.run(train, max_failures=1, verbose=0).trials
    assert trial.iterations == 2
    assert trial.last_result["training_iteration"] == 2


def test_runs_of_several_threads_share_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both have seen that there is none; the other one was faster.
    monkeypatch.setattr(skate, "is_initialized", lambda: False)
    assert len(tune.run(lambda config: {"loss": 1.0}, verbose=0).trials) == 1


def test_an_unpicklable_function() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        tune.run(lambda config: lock.locked())


def test_files(results_folder: Path) -> None:
    analysis = tune.run(
        parabola, name="kept", config={"x": tune.grid_search([1, 2]), "steps": 3}, metric="loss"
    )
    assert analysis.experiment_path == str(results_folder / "kept")
    for trial in analysis.trials:
        folder = results_folder / "kept" / trial.trial_id
        assert trial.path == str(folder)
        assert json.loads((folder / "params.json").read_text()) == trial.config
        lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        assert [line["loss"] for line in lines] == trial.history.column("loss")
        assert [line["training_iteration"] for line in lines] == [1, 2, 3]
        table = (folder / "progress.csv").read_text().splitlines()
        assert len(table) == 4
        assert "loss" in table[0].split(",")


def test_callbacks_see_the_whole_run() -> None:
    events: list[str] = []

    class Log(tune.Callback):
        def setup(self, **info: Any) -> None:
            events.append("setup")

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            events.append("start")

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            events.append(f"result {result['training_iteration']}")

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            events.append("complete")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            events.append("error")

        def on_experiment_end(self, trials: Any, **info: Any) -> None:
            events.append("end")

    tune.run(parabola, config={"x": 1, "steps": 2}, callbacks=[Log()])
    assert events == ["setup", "start", "result 1", "result 2", "complete", "end"]
    events.clear()
    stopped = {"training_iteration": 1}
    tune.run(parabola, config={"x": 1, "steps": 2}, callbacks=[Log()], stop=stopped)
    assert events == ["setup", "start", "result 1", "complete", "end"]
    events.clear()
    with pytest.raises(tune.TuneError):
        tune.run(lambda config: 1 / 0, callbacks=[Log()])
    assert events == ["setup", "start", "error", "end"]


def test_a_time_budget() -> None:
    def endless(config: dict[str, Any]) -> None:
        pause = threading.Event()
        for step in range(10**9):
            tune.report(loss=1 / (step + 1))
            pause.wait(0.005)

    analysis = tune.run(endless, num_samples=10, time_budget_s=timedelta(seconds=0.7))
    assert analysis.experiment.end_reason == "time budget"
    assert analysis.experiment.elapsed_s < 5
    assert analysis.trials
    for trial in analysis.trials:
        assert (trial.status, trial.stop_reason) == ("TERMINATED", "time budget")
        assert trial.iterations > 0


def test_points_to_evaluate() -> None:
    searcher = BasicVariantGenerator(points_to_evaluate=[{"x": 3.0}], random_state=0)
    analysis = tune.run(
        parabola, config={"x": tune.uniform(0, 10)}, num_samples=3, search_alg=searcher
    )
    assert analysis.trials[0].config["x"] == 3.0


def test_a_seeded_script_is_repeatable() -> None:
    configs = []
    for _ in range(2):
        random.seed(5)
        run = tune.run(parabola, config={"x": tune.uniform(0, 1), "steps": 1}, num_samples=3)
        configs.append([trial.config["x"] for trial in run.trials])
    assert configs[0] == configs[1]


def test_trials_run_elsewhere(engine: str) -> None:
    analysis = tune.run(lambda config: {"loss": 1.0, "where": os.getpid()}, num_samples=4)
    pids = {trial.last_result["where"] for trial in analysis.trials}
    assert pids == {trial.last_result["pid"] for trial in analysis.trials}
    if engine == "native":
        assert os.getpid() not in pids
        assert len(pids) <= 2  # processes are reused


def test_flat_cost() -> None:
    analysis = tune.run(parabola, config={"x": tune.uniform(0, 10)}, num_samples=1000)
    assert len(analysis.trials) == 1000
    assert sum(trial.iterations for trial in analysis.trials) == 10_000
