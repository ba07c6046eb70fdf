"""What searchers, stoppers and the log of a run are told: everything once."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.actions import Renew
from skate.tune.limits import Limits
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
from skate.tune.schedulers import HyperBandScheduler, PopulationBasedTraining
from skate.tune.search import BasicVariantGenerator
from skate.tune.stopper import CombinedStopper, MaximumIterationStopper, NoopStopper, Stopper
from skate.tune.trial import Trial, TrialCheckpoint

# --------------------------------------------------------------------------- searchers


class Listener(BasicVariantGenerator):
    """Random search that remembers what it was told, also when its run is resumed."""

    def __init__(self) -> None:
        super().__init__(random_state=0)
        self.results: list[tuple[str, int]] = []
        self.ends: list[tuple[str, bool]] = []

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self.results.append((trial_id[-1], result["step"]))

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        super().on_trial_complete(trial_id, result, error)
        self.ends.append((trial_id[-1], error))


class FailsWhile:
    """A trainable of three steps; trial 1 fails at the third as long as a file is there."""

    def __init__(self, flag: Path) -> None:
        self.__name__ = "fails"
        self.flag = flag

    def __call__(self, config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        begin = checkpoint.to_dict()["step"] if checkpoint else 0
        for step in range(begin + 1, 4):
            if step == 3 and config["x"] == 1 and self.flag.exists():
                raise ValueError("not yet")
            saved = tune.Checkpoint.from_dict({"step": step})
            tune.report({"loss": config["x"], "step": step}, checkpoint=saved)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("how", ["resume_errored", "restart_errored"])
def test_a_searcher_hears_of_one_that_has_another_try_only_that_it_failed(
    tmp_path: Path, how: str
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    tune.Tuner(
        FailsWhile(flag),
        param_space={"x": tune.grid_search([0, 1, 2])},
        tune_config=tune.TuneConfig(search_alg=Listener(), max_concurrent_trials=1),
        run_config=tune.RunConfig(name="run", storage_path=tmp_path, verbose=0),
    ).fit()
    # A second time it fails again, the third time it comes to its end.
    for again in (True, False):
        if not again:
            flag.unlink()
        tuner = tune.Tuner.restore(tmp_path / "run", FailsWhile(flag), **{how: True})
        grid = tuner.fit()
        assert grid.num_errors == again
        searcher = tuner._settings.tune_config.search_alg
        assert isinstance(searcher, Listener)
        assert searcher.ends == [("0", False), ("1", True), ("2", False)]
        heard = collections.Counter(trial for trial, _ in searcher.results)
        assert heard == {"0": 3, "1": 2, "2": 3}
    assert [trial.iterations for trial in grid.experiment.trials] == [3, 3, 3]


# --------------------------------------------------------------------------- stoppers


class Hearing(Stopper):
    """Remembers what it was told, and stops nobody."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self.heard.append((trial_id[-1], result["training_iteration"]))
        return False

    def on_trial_restore(self, trial_id: str, results: int) -> None:
        self.heard.append((trial_id[-1], f"back to {results}"))


def population(stopper: Stopper, slots: int = 2) -> Orchestrator:
    """Two trials that are judged every second iteration."""
    searcher = BasicVariantGenerator(random_state=0)
    space = {"x": tune.uniform(0, 1)}
    searcher.set_search_properties("score", "max", space)
    scheduler = PopulationBasedTraining(
        "training_iteration", perturbation_interval=2, hyperparam_mutations=space
    )
    limits = Limits(slots=slots, num_samples=2, max_failures=1)
    return Orchestrator(searcher, scheduler, stopper, Objective("score", "max"), limits, space)


def report(run: Orchestrator, trial: Trial, iteration: int, score: float, saves: bool) -> Any:
    result = {"training_iteration": iteration, "score": score}
    saved = TrialCheckpoint(f"ref {trial.trial_id} {iteration}") if saves else None
    return run.on_reports(trial, [result], saved)


def test_a_stopper_hears_of_a_clone_what_it_reports_and_nothing_else() -> None:
    stopper = Hearing()
    run = population(stopper)
    good, bad = (start.trial for start in run.fill())
    for iteration in range(1, 6):
        report(run, good, iteration, 10.0 + iteration, saves=True)
    report(run, bad, 1, 1.0, saves=True)
    # It goes on as a copy of the good one, at 5: it has made two reports, and they all count.
    assert isinstance(report(run, bad, 2, 1.0, saves=True), Renew)
    assert bad.checkpoint is not None
    assert (bad.checkpoint.iteration, bad.checkpoint.reports) == (5, 2)
    report(run, bad, 6, 20.0, saves=False)
    assert stopper.heard[5:] == [("1", 1), ("1", 2), ("1", 6)]
    # If it fails it begins again as that copy: of its three reports the last one is forgotten.
    run.on_failed(bad, ValueError())
    assert stopper.heard[8:] == [("1", "back to 2")]
    assert [start.trial for start in run.fill()] == [bad]
    report(run, bad, 6, 20.0, saves=False)
    assert stopper.heard[9:] == [("1", 6)]
    assert bad.history.column("training_iteration") == [1, 2, 6]


def test_a_stopper_hears_the_same_of_a_clone_that_waits_for_its_turn() -> None:
    stopper = Hearing()
    run = population(stopper, slots=1)
    (good,) = (start.trial for start in run.fill())
    for iteration in (1, 2):
        report(run, good, iteration, 10.0 + iteration, saves=True)
    run.on_paused(good)
    (bad,) = (start.trial for start in run.fill())
    for iteration in (1, 2):
        report(run, bad, iteration, 1.0, saves=True)
    run.on_paused(bad)
    run.fill()
    assert stopper.heard == [("0", 1), ("0", 2), ("1", 1), ("1", 2)]


def test_results_of_a_clone_count_like_those_of_others() -> None:
    limit = CombinedStopper(MaximumIterationStopper(4), NoopStopper())
    run = population(limit)
    good, bad = (start.trial for start in run.fill())
    for iteration in (1, 2, 3):
        report(run, good, iteration, 10.0, saves=True)
    for iteration in (1, 2):
        report(run, bad, iteration, 1.0, saves=True)
    report(run, bad, 4, 20.0, saves=False)
    assert not bad.is_finished
    report(run, bad, 5, 20.0, saves=False)
    assert bad.stop_reason == "criterion"
    assert bad.iterations == 4


# --------------------------------------------------------------------------- files of a run


def climb(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = checkpoint.to_dict()["step"] if checkpoint else 0
    for step in range(begin + 1, 5):
        saved = tune.Checkpoint.from_dict({"step": step})
        tune.report({"score": config["x"] * step, "step": step}, checkpoint=saved)


def test_what_happens_once_is_written_once(engine: str, tmp_path: Path) -> None:
    tune.run(
        climb,
        config={"x": tune.grid_search(list(range(8)))},
        scheduler=HyperBandScheduler(max_t=4, reduction_factor=2),
        metric="score",
        mode="max",
        storage_path=tmp_path,
        name="run",
        verbose=0,
    )
    folder = tmp_path / "run"
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if "trial" not in line] == ["begin", "end"]
    lives: dict[str, list[str]] = collections.defaultdict(list)
    for line in lines:
        if "trial" in line:
            lives[line["trial"]].append(line.get("status", "START"))
    assert len(lives) == 8
    for life in lives.values():
        # Begun and paused by turns, and ended once; who waits may be ended without another start.
        assert life.count("TERMINATED") == 1
        assert life[-1] == "TERMINATED"
        turns = life[:-1]
        assert turns == ["START", "PAUSED"] * (len(turns) // 2) + ["START"] * (len(turns) % 2)
    state = json.loads((folder / "experiment_state.json").read_text())
    assert sorted(trial["trial_id"] for trial in state["trials"]) == sorted(lives)
    for trial in state["trials"]:
        written = (folder / trial["trial_id"] / "result.json").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in written]
        assert steps == list(range(1, trial["reports"] + 1))
        assert list(trial["checkpoints"].values()) == steps
    # One more look at a run that is over adds that it was looked at, and nothing of its trials.
    tune.Tuner.restore(folder, climb).fit()
    again = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert again[: len(lines)] == lines
    assert [line["event"] for line in again[len(lines) :]] == ["begin", "end"]
    later = json.loads((folder / "experiment_state.json").read_text())
    assert later["trials"] == state["trials"]
