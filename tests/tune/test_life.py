"""The whole life of a trial: checkpoints, pauses, clones, other resources, failures."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import skate
from skate import tune
from skate.tune.schedulers import FIFOScheduler
from skate.tune.schedulers.trial_scheduler import Controller, Exploit, Gate, Resize, Verdict
from skate.tune.trial import Trial

pytestmark = pytest.mark.usefixtures("engine")


def count(config: dict[str, Any]) -> None:
    """Reports how far it is and where it began, with a checkpoint each time."""
    begin = 0
    weight = config["x"]
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        state = checkpoint.to_dict()
        begin, weight = state["step"], state["weight"]
    for step in range(begin + 1, config.get("steps", 6) + 1):
        state = {"step": step, "weight": weight}
        tune.report(
            {
                "loss": config["x"],
                "step": step,
                "begin": begin,
                "weight": weight,
                "process": os.getpid(),
            },
            checkpoint=tune.Checkpoint.from_dict(state),
        )


class Counter(tune.Trainable):
    """The same as a class."""

    def setup(self, config: dict[str, Any]) -> None:
        self.steps = self.begin = 0
        self.weight = config["x"]

    def step(self) -> dict[str, Any]:
        self.steps += 1
        return {
            "loss": self.config["x"],
            "step": self.steps,
            "begin": self.begin,
            "weight": self.weight,
            "process": os.getpid(),
            "done": self.steps >= self.config.get("steps", 6),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"step": self.steps, "weight": self.weight}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.steps = self.begin = checkpoint["step"]
        self.weight = checkpoint["weight"]


class Once(FIFOScheduler):
    """Gives one verdict on each trial of some numbers, after its third report."""

    needs_checkpoints = True

    def __init__(self, verdict: Any, only: int | None = None) -> None:
        super().__init__()
        self.verdict = verdict
        self.only = only
        self.given: set[str] = set()

    def next_decision(self, trial: Trial) -> Gate:
        return {"training_iteration": 3}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        mine = self.only is None or trial in controller.trials[self.only : self.only + 1]
        if trial.iterations < 3 or trial.trial_id in self.given or not mine:
            return self.CONTINUE
        self.given.add(trial.trial_id)
        verdict: Verdict = self.verdict(controller) if callable(self.verdict) else self.verdict
        return verdict


def run(trainable: Any, scheduler: Any = None, **more: Any) -> list[Trial]:
    more = {"config": {"x": tune.grid_search([0, 1, 2])}, **more}
    return tune.run(trainable, scheduler=scheduler, verbose=0, **more).trials


def steps(trial: Trial) -> list[float]:
    return trial.history.column("step")


@pytest.mark.parametrize("trainable", [count, Counter])
def test_paused_trials_go_on_where_they_were(trainable: Any) -> None:
    for trial in run(trainable, Once("PAUSE")):
        assert trial.status == Trial.TERMINATED
        assert steps(trial) == [1, 2, 3, 4, 5, 6]
        assert trial.history.column("training_iteration") == [1, 2, 3, 4, 5, 6]
        assert trial.history.column("begin") == [0, 0, 0, 3, 3, 3]
        times = trial.history.column("time_total_s")
        assert times == sorted(times)


@pytest.mark.parametrize("trainable", [count, Counter])
def test_a_trial_is_cloned(trainable: Any) -> None:
    config = {"x": 10, "steps": 6}

    def verdict(controller: Controller) -> Exploit:
        return Exploit(controller.trials[0], config)

    trials = run(trainable, Once(verdict, only=1), max_concurrent_trials=1)
    assert trials[1].config == config
    assert trials[1].evaluated_params == {"x": 10}
    # The source had come to its end, and that is where its newest checkpoint is: nothing is left
    # for the function; the class makes its last step.
    assert steps(trials[1]) == ([1, 2, 3] if trainable is count else [1, 2, 3, 7])
    if trainable is Counter:
        assert trials[1].last_result["weight"] == 0
        assert trials[1].last_result["loss"] == 10
    assert steps(trials[2]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("trainable", [count, Counter])
def test_a_clone_runs_in_the_same_process(trainable: Any) -> None:
    def verdict(controller: Controller) -> Exploit:
        return Exploit(controller.trials[1], {"x": 1, "steps": 6})

    (_, trial, _) = run(trainable, Once(verdict, only=1), max_concurrent_trials=1)
    assert trial.history.column("begin") == [0, 0, 0, 3, 3, 3]
    assert trial.history.column("training_iteration") == [1, 2, 3, 4, 5, 6]
    assert len(set(trial.history.column("process"))) == 1


@pytest.mark.parametrize("trainable", [count, Counter])
def test_a_trial_is_given_more(trainable: Any) -> None:
    resources = tune.PlacementGroupFactory([{"CPU": 2}])
    trials = run(trainable, Once(Resize(resources), only=1))
    assert trials[1].resources == resources
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4, 5, 6]] * 3
    assert trials[1].last_result["begin"] == 3


def test_a_trial_that_is_given_more_than_there_is() -> None:
    resources = tune.PlacementGroupFactory([{"CPU": 20}])
    trials = run(count, Once(Resize(resources), only=1), raise_on_failed_trial=False)
    assert [trial.status for trial in trials] == ["TERMINATED", "ERROR", "TERMINATED"]
    assert "asks for 20 CPU, but there is 2" in str(trials[1].error)


def test_pausing_without_checkpoints_says_what_to_do() -> None:
    def train(config: dict[str, Any]) -> None:
        for step in range(6):
            tune.report(loss=step)

    trials = run(train, Once("PAUSE"), raise_on_failed_trial=False)
    assert {trial.status for trial in trials} == {"ERROR"}
    assert "never reported a checkpoint: call tune.report(metrics, checkpoint=" in str(
        trials[0].error
    )


def test_checkpoints_are_written_and_the_last_ones_are_kept(tmp_path: Path) -> None:
    results = tune.Tuner(
        count,
        param_space={"x": 1},
        run_config=tune.RunConfig(
            storage_path=tmp_path,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            verbose=0,
        ),
    ).fit()
    folder = Path(results[0].path or "")
    found = sorted(path.name for path in folder.glob("checkpoint_*"))
    assert found == ["checkpoint_000004", "checkpoint_000005"]
    newest = tune.Checkpoint(folder / "checkpoint_000005")
    assert newest.to_dict() == {"step": 6, "weight": 1}


def test_a_folder_travels_although_it_is_deleted(tmp_path: Path) -> None:
    def train(config: dict[str, Any]) -> None:
        begin = 0
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                begin = int(Path(folder, "sub", "step").read_text())
        for step in range(begin + 1, 7):
            with tempfile.TemporaryDirectory() as made:
                Path(made, "sub").mkdir()
                Path(made, "sub", "step").write_text(str(step))
                saved = tune.Checkpoint.from_directory(made)
                tune.report({"step": step, "begin": begin}, checkpoint=saved)

    (trial,) = run(train, Once("PAUSE"), config={})
    assert trial.history.column("begin") == [0, 0, 0, 3, 3, 3]
    assert trial.checkpoint is not None
    assert Path(trial.checkpoint.path or "", "sub", "step").read_text() == "6"


def test_checkpoints_as_they_were_made_in_2022(tmp_path: Path) -> None:
    def train(config: dict[str, Any], checkpoint_dir: str | None = None, data: Any = None) -> None:
        begin = 0
        if checkpoint_dir is not None:
            begin = int(Path(checkpoint_dir, "step").read_text())
        for step in range(begin + 1, 7):
            if step % 2 == 0:
                with tune.checkpoint_dir(step=step) as folder:
                    Path(folder, "step").write_text(str(step))
            tune.report(step=step, begin=begin, data=data or 0)
            if step == 5 and begin == 0:
                raise ValueError("once")

    for trainable in (
        train,
        tune.with_resources(train, {"cpu": 2}),
        tune.with_parameters(train, data=7),
    ):
        (trial,) = run(trainable, config={}, max_failures=1)
        assert steps(trial) == [1, 2, 3, 4, 5, 6]
        assert trial.history.column("begin") == [0, 0, 0, 0, 4, 4]
        assert trial.checkpoint is not None
        assert Path(trial.checkpoint.path or "", "step").read_text() == "6"
    assert trial.last_result["data"] == 7


def test_a_failed_trial_goes_on_from_its_checkpoint() -> None:
    def train(config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        begin = checkpoint.to_dict()["step"] if checkpoint is not None else 0
        for step in range(begin + 1, 7):
            state = tune.Checkpoint.from_dict({"step": step}) if step % 2 == 0 else None
            tune.report({"step": step, "begin": begin}, checkpoint=state)
            if step == 5 and begin == 0:
                raise ValueError("once")

    (trial,) = run(train, config={}, max_failures=1)
    assert trial.failures == 1
    assert steps(trial) == [1, 2, 3, 4, 5, 6]
    assert trial.history.column("begin") == [0, 0, 0, 0, 4, 4]
    lines = Path(trial.path or "", "result.json").read_text().splitlines()
    assert len(lines) == 6
    assert len(Path(trial.path or "", "progress.csv").read_text().splitlines()) == 7


class KillAt(tune.Callback):
    """Kills the process of each trial once, after its fourth report."""

    def __init__(self) -> None:
        self.killed: dict[str, int] = {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if trial.iterations == 4 and trial.trial_id not in self.killed:
            self.killed[trial.trial_id] = result["pid"]
            os.kill(result["pid"], signal.SIGKILL)


@pytest.mark.parametrize("trainable", [count, Counter])
def test_a_killed_trial_goes_on_from_its_checkpoint(engine: str, trainable: Any) -> None:
    if engine == "inline":
        pytest.skip("the trial's process is this one")
    killer = KillAt()
    trials = run(
        trainable,
        callbacks=[killer],
        stop=lambda trial_id, result: False,  # have every report looked at
        max_failures=1,
        checkpoint_freq=2,
    )
    assert len(killer.killed) == 3
    for trial in trials:
        assert (trial.status, trial.failures) == ("TERMINATED", 1)
        assert steps(trial) == [1, 2, 3, 4, 5, 6]
        assert trial.history.column("begin")[-1] == 4
        assert trial.last_result["pid"] != killer.killed[trial.trial_id]


class Reusable(Counter):
    """Can run one trial after another."""

    made = 0

    def setup(self, config: dict[str, Any]) -> None:
        super().setup(config)
        self.made = type(self).made = type(self).made + 1

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.steps = self.begin = 0
        self.weight = new_config["x"]
        return True

    def step(self) -> dict[str, Any]:
        return {**super().step(), "made": self.made, "objects": type(self).made}

    def cleanup(self) -> None:
        Path(self.config["folder"], f"cleaned-{self.made}").touch()


def test_one_object_runs_one_trial_after_another(tmp_path: Path) -> None:
    config = {"x": tune.grid_search([0, 1, 2]), "folder": str(tmp_path)}
    trials = run(Reusable, config=config, max_concurrent_trials=1)
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4, 5, 6]] * 3
    assert [trial.last_result["weight"] for trial in trials] == [0, 1, 2]
    assert len({trial.last_result["made"] for trial in trials}) == 1
    assert len(list(tmp_path.glob("cleaned-*"))) == 1


def test_objects_that_cannot_be_reset_are_made_anew_and_cleaned_up(tmp_path: Path) -> None:
    class Fresh(Reusable):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return False

    config = {"x": tune.grid_search([0, 1, 2]), "folder": str(tmp_path)}
    trials = run(Fresh, config=config, max_concurrent_trials=1)
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4, 5, 6]] * 3
    assert len(list(tmp_path.glob("cleaned-*"))) == 3


def test_classes_with_parameters_and_resources() -> None:
    class Wide(Counter):
        def setup(self, config: dict[str, Any], offset: int = 0) -> None:
            super().setup(config)
            self.weight += offset

    needs = tune.with_resources(tune.with_parameters(Wide, offset=100), {"cpu": 2})
    trials = run(needs)
    assert [trial.last_result["weight"] for trial in trials] == [100, 101, 102]
    assert trials[0].resources.required_resources == {"CPU": 2.0}
    with pytest.raises(TypeError, match="offsets"):
        tune.with_parameters(Wide, offsets=1)


def test_resources_that_depend_on_the_configuration() -> None:
    def needs(config: dict[str, Any]) -> dict[str, float]:
        return {"cpu": 1 + config["x"] % 2}

    trials = run(tune.with_resources(count, needs))
    assert [trial.resources.required_resources["CPU"] for trial in trials] == [1, 2, 1]
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4, 5, 6]] * 3


def test_a_checkpoint_at_the_end_and_now_and_then() -> None:
    (trial,) = run(
        Counter,
        config={"x": 1, "steps": 100},
        stop={"training_iteration": 5},
        checkpoint_freq=2,
        checkpoint_at_end=True,
    )
    folder = Path(trial.path or "")
    numbers = [tune.Checkpoint(path).to_dict()["step"] for path in sorted(folder.glob("check*"))]
    assert numbers == [2, 4, 5]


def test_each_trial_has_a_placement_group() -> None:
    def train(config: dict[str, Any]) -> None:
        group = skate.util.get_current_placement_group()
        assert group is not None

        @skate.remote
        def where() -> bool:
            return skate.util.get_current_placement_group() == group

        tune.report(inside=skate.get(where.remote()), bundles=group.bundle_count)

    trials = run(train, resources_per_trial=tune.PlacementGroupFactory([{}, {"CPU": 1}]))
    assert [trial.last_result["inside"] for trial in trials] == [True] * 3
    assert [trial.last_result["bundles"] for trial in trials] == [1] * 3
    table = skate.util.placement_group_table()
    assert {row["state"] for row in table.values()} <= {"REMOVED"}


def test_trials_share_a_gpu(engine: str) -> None:
    skate.shutdown()
    skate.init(num_cpus=4, num_gpus=1, engine=engine)
    most = 0

    class Watch(tune.Callback):
        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            nonlocal most
            most = max(most, sum(trial.status == Trial.RUNNING for trial in trials))

    def train(config: dict[str, Any]) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") if engine == "native" else "0"
        tune.report(loss=config["x"], gpus=skate.get_gpu_ids(), visible=visible)

    try:
        trials = run(
            train,
            resources_per_trial={"cpu": 1, "gpu": 0.5},
            callbacks=[Watch()],
            stop=lambda trial_id, result: False,
        )
        assert [trial.last_result["gpus"] for trial in trials] == [[0]] * 3
        assert [trial.last_result["visible"] for trial in trials] == ["0"] * 3
        assert most == 2  # there are CPUs for all of them, but only two halves of a GPU
    finally:
        skate.shutdown()
        skate.init(num_cpus=2, engine=engine)


def test_a_class_by_itself(tmp_path: Path) -> None:
    counter = Counter({"x": 3})
    assert counter.train()["training_iteration"] == 1
    counter.train()
    saved = counter.save(tmp_path / "saved")
    other = Counter({"x": 0})
    other.restore(saved)
    assert (other.iteration, other.weight, other.trial_id) == (2, 3, "default")
    assert other.trial_name == "default"
    assert other.train()["step"] == 3
    with pytest.raises(TypeError, match="Bare has to have a method step"):
        tune.Tuner(type("Bare", (tune.Trainable,), {}))


def test_a_class_knows_its_trial() -> None:
    class Asks(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"loss": 1.0, "names": [self.trial_id, self.trial_name], "done": True}

    trials = tune.run(
        Asks,
        config={"x": tune.grid_search([1, 2])},
        trial_name_creator=lambda trial: f"x = {trial.config['x']}",
        verbose=0,
    ).trials
    for trial in trials:
        assert trial.last_result["names"] == [trial.trial_id, f"x = {trial.config['x']}"]


def test_a_clone_of_a_function_that_does_not_stop(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "inline":
        pytest.skip("a thread cannot be ended, only the process that it is in")
    monkeypatch.setattr("skate.tune.runner.STOP_GRACE_S", 0.2)

    def stubborn(config: dict[str, Any]) -> None:
        try:
            count(config)
        except BaseException:
            threading.Event().wait()

    def verdict(controller: Controller) -> Exploit:
        return Exploit(controller.trials[1], {"x": 1, "steps": 6})

    (_, trial, _) = run(stubborn, Once(verdict, only=1), max_concurrent_trials=1)
    assert (trial.status, trial.failures) == ("TERMINATED", 0)
    assert trial.history.column("begin") == [0, 0, 0, 3, 3, 3]


@pytest.mark.parametrize("trainable", [count, Counter])
def test_fresh_processes_are_paused_too(trainable: Any) -> None:
    for trial in run(trainable, Once("PAUSE"), reuse_actors=False):
        assert steps(trial) == [1, 2, 3, 4, 5, 6]
        assert trial.last_result["begin"] == 3


def test_a_run_that_ends_while_trials_are_paused(tmp_path: Path) -> None:
    class Slow(Reusable):
        def step(self) -> dict[str, Any]:
            threading.Event().wait(0.01)
            return super().step()

    class Sleepy(Once):
        """Does not let go on what it has paused."""

        def choose_trial_to_run(self, controller: Controller) -> Trial | None:
            pending = [t for t in controller.live_trials if t.status == Trial.PENDING]
            return pending[0] if pending else None

    scheduler = Sleepy("PAUSE", only=0)
    config = {"x": tune.grid_search([0, 1]), "folder": str(tmp_path), "steps": 10**6}
    analysis = tune.run(Slow, config=config, scheduler=scheduler, time_budget_s=1.5, verbose=0)
    assert [trial.stop_reason for trial in analysis.trials] == ["time budget", "time budget"]
    assert [trial.status for trial in analysis.trials] == ["TERMINATED", "TERMINATED"]
    assert analysis.trials[0].iterations == 3
