"""Runs that are cut short go on, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from s3_server import serving

from skate import tune
from skate.tune.resume import Resume, parse_resume
from skate.tune.storage import open_storage

#: A run of 12 trials, one at a time so that nothing depends on which is faster.
CODE = """
    import json, random, sys, time
    import skate
    from skate import tune
    from skate.tune.schedulers import (
        ASHAScheduler,
        HyperBandForBOHB,
        PopulationBasedTraining,
        ResourceChangingScheduler,
    )
    from skate.tune.search.optuna import OptunaSearch

    from skate.tune import state_writer

    state_writer.REMOTE_S = 0.5
    random.seed(5)  # for the perturbations of a population
    folder, strategy, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])

    def train(config):
        checkpoint = tune.get_checkpoint()
        begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
        for step in range(begin + 1, 10):
            time.sleep(pause)
            tune.report(
                {"loss": (config["x"] - 3) ** 2 + 1 / step, "begin": begin},
                checkpoint=tune.Checkpoint.from_dict({"step": step, "weights": b"1" * 1000}),
            )

    schedulers = {
        "asha": ASHAScheduler(max_t=9, reduction_factor=3),
        "bohb": HyperBandForBOHB(max_t=9),
        "pbt": PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=3,
            hyperparam_mutations={"x": tune.uniform(0, 10)},
        ),
        "resources": ResourceChangingScheduler(),
    }

    if __name__ == "__main__":
        skate.init(num_cpus=4 if strategy == "resources" else 1)
        if tune.Tuner.can_restore(folder + "/run"):
            tuner = tune.Tuner.restore(folder + "/run", train)
        else:
            tuner = tune.Tuner(
                train,
                param_space={"x": tune.uniform(0, 10)},
                tune_config=tune.TuneConfig(
                    metric="loss",
                    mode="min",
                    num_samples=12,
                    seed=7,
                    search_alg="optuna" if strategy == "optuna" else None,
                    scheduler=schedulers.get(strategy),
                    max_concurrent_trials=2 if strategy == "resources" else 1,
                ),
                run_config=tune.RunConfig(
                    name="run",
                    storage_path=folder,
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
                ),
            )
        grid = tuner.fit()
        best = grid.get_best_result()
        trials = grid.experiment.trials
        print(json.dumps({
            "best": best.config["x"],
            "loss": best.metrics["loss"],
            "x": [trial.config["x"] for trial in trials],
            "steps": [trial.history.column("training_iteration") for trial in trials],
            "cpus": [trial.resources.required_resources["CPU"] for trial in trials],
            "begins": [trial.history.column("begin") for trial in trials],
            "kept": [[c.name for c in grid.experiment.checkpoints[t.trial_id]] for t in trials],
        }))
"""


class Driver:
    """A process that runs, or resumes, a run in a folder."""

    def __init__(
        self, folder: Path, strategy: str, pause: float = 0.0, place: str | None = None
    ) -> None:
        place = place or str(folder)
        self.storage = open_storage(f"{place}/run")
        script = folder / "script.py"
        script.write_text(textwrap.dedent(CODE))
        environment = {key: v for key, v in os.environ.items() if key != "SKATE_ENGINE"}
        self.process = subprocess.Popen(
            [sys.executable, str(script), place, strategy, str(pause)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def summary(self) -> list[dict[str, Any]]:
        content = self.storage.read("experiment_state.json")
        return [] if content is None else list(json.loads(content).get("trials", []))

    def kill_after(self, ended: int) -> None:
        """Kill the driver when so many trials have ended and another one has a checkpoint."""
        deadline = time.monotonic() + 100
        while True:
            trials = self.summary()
            running = [trial for trial in trials if trial["status"] == "RUNNING"]
            if len(trials) > ended and running and running[0]["checkpoints"]:
                break
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def result(self) -> dict[str, Any]:
        output, _ = self.process.communicate(timeout=100)
        assert self.process.returncode == 0
        return dict(json.loads(output.splitlines()[-1]))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("strategy", ["random", "optuna", "asha", "bohb", "resources", "pbt"])
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path, strategy: str) -> None:
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    calm = Driver(tmp_path / "calm", strategy).result()
    killed = tmp_path / "killed"
    Driver(killed, strategy, pause=0.1).kill_after(1)
    Driver(killed, strategy, pause=0.1).kill_after(3)
    resumed = Driver(killed, strategy).result()
    assert resumed["x"] == calm["x"]
    assert resumed["best"] == calm["best"]
    assert resumed["loss"] == calm["loss"]
    assert resumed["steps"] == calm["steps"]
    if strategy == "resources":
        # They run two at a time on four CPUs, so trials have grown.
        assert 2 in resumed["cpus"]
    # At least one went on from a checkpoint rather than from the beginning.
    assert any(begin > 0 for begins in resumed["begins"] for begin in begins)
    for names, steps in zip(resumed["kept"], resumed["steps"], strict=True):
        assert len(names) == min(2, len(steps))
    if strategy == "pbt":
        return  # what a trial was before it became another one stays in its files
    for trial in (killed / "run").glob("*_000*"):
        assert len(list(trial.glob("checkpoint_*"))) <= 2
        lines = [json.loads(line) for line in (trial / "result.json").read_text().splitlines()]
        assert [line["training_iteration"] for line in lines] == list(range(1, len(lines) + 1))
        rows = (trial / "progress.csv").read_text().splitlines()
        assert len(rows) == len(lines) + 1


@pytest.mark.timeout(240)
def test_a_killed_run_goes_on_from_an_s3_server(
    tmp_path: Path, results_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, "runs", monkeypatch):
        (tmp_path / "calm").mkdir()
        calm = Driver(tmp_path / "calm", "random").result()
        Driver(tmp_path, "random", 0.1, "s3://runs/all").kill_after(1)
        # The other machine has nothing of it.
        shutil.rmtree(results_folder)
        resumed = Driver(tmp_path, "random", 0.0, "s3://runs/all").result()
    for what in ("x", "best", "loss", "steps"):
        assert resumed[what] == calm[what]
    assert any(begin > 0 for begins in resumed["begins"] for begin in begins)


@pytest.mark.timeout(240)
def test_a_killed_population_goes_on(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "pbt", pause=0.03)
    deadline = time.monotonic() + 100
    # Trials take turns: one has been stopped at its first perturbation, others wait.
    while sum(trial["reports"] >= 3 for trial in driver.summary()) < 8:
        assert driver.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.process.send_signal(signal.SIGKILL)
    driver.process.communicate()
    before = {trial["trial_id"]: trial for trial in driver.summary()}
    resumed = Driver(tmp_path, "pbt").result()
    assert len(resumed["steps"]) == 12
    after = {trial["trial_id"]: trial for trial in driver.summary()}
    assert set(before) <= set(after)
    assert {trial["status"] for trial in after.values()} == {"TERMINATED"}
    # What was copied and what went on began where a checkpoint was.
    assert any(begin > 0 for begins in resumed["begins"] for begin in begins)
    best = min((x - 3) ** 2 for x in resumed["x"])
    assert resumed["loss"] == pytest.approx(best + 1 / 9, abs=0.5)


def once(config: dict[str, Any]) -> None:
    tune.report(loss=config["x"])


class Flaky:
    """Fails as long as a file is there."""

    def __init__(self, flag: Path) -> None:
        self.__name__ = "flaky"
        self.flag = flag

    def __call__(self, config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
        for step in range(begin + 1, 4):
            if step == 3 and config["x"] == 1 and self.flag.exists():
                raise ValueError("not yet")
            tune.report(
                {"loss": config["x"], "begin": begin},
                checkpoint=tune.Checkpoint.from_dict({"step": step}),
            )


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("how", ["resume_errored", "restart_errored", None])
def test_failed_trials_go_on_or_start_anew_or_stay(tmp_path: Path, how: str | None) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    tuner = tune.Tuner(
        Flaky(flag),
        param_space={"x": tune.grid_search([0, 1, 2])},
        run_config=tune.RunConfig(name="run", storage_path=tmp_path, verbose=0),
    )
    assert tuner.fit().num_errors == 1
    flag.unlink()
    restored = tune.Tuner.restore(
        tmp_path / "run", Flaky(flag), **({} if how is None else {how: True})
    )
    grid = restored.fit()
    assert len(grid) == 3
    trial = grid.experiment.trials[1]
    if how is None:
        assert grid.num_errors == 1
        assert "not yet" in str(grid.errors[0])
        return
    assert grid.num_errors == 0
    begins = trial.history.column("begin")
    assert begins == ([0, 0, 2] if how == "resume_errored" else [0, 0, 0])
    assert not (tmp_path / "run" / trial.trial_id / "error.txt").exists()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("search_alg", [None, "optuna"])
def test_trials_that_have_ended_go_on_or_start_anew(tmp_path: Path, search_alg: str | None) -> None:
    def longer(config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
        for step in range(begin + 1, begin + 3):
            tune.report(
                {"loss": config["x"], "begin": begin},
                checkpoint=tune.Checkpoint.from_dict({"step": step}),
            )

    options: dict[str, Any] = {
        "config": {"x": tune.uniform(0, 1)},
        "num_samples": 2,
        "metric": "loss",
        "mode": "min",
        "search_alg": search_alg,
        "storage_path": tmp_path,
        "name": "run",
        "verbose": 0,
    }
    first = tune.run(longer, **options)
    shutil.rmtree(f"{first.trials[1].path}/checkpoint_000001")
    on = tune.run(longer, resume_config=tune.ResumeConfig(finished="resume"), **options)
    assert [trial.config for trial in on.trials] == [trial.config for trial in first.trials]
    # The second goes on from the checkpoint that is still there.
    begins = [trial.history.column("begin") for trial in on.trials]
    assert begins == [[0, 0, 2, 2], [0, 1, 1]]
    assert [trial.status for trial in on.trials] == ["TERMINATED"] * 2
    assert tune.ExperimentAnalysis(tmp_path / "run").trials[0].status == "TERMINATED"
    restored = tune.Tuner.restore(
        tmp_path / "run", longer, _resume_config=tune.ResumeConfig(finished="restart")
    ).fit()
    for trial in restored.experiment.trials:
        assert trial.history.column("begin") == [0, 0]
        assert trial.local_path is not None
        assert len((trial.local_path / "result.json").read_text().splitlines()) == 2


@pytest.mark.usefixtures("inline")
def test_trials_that_were_cut_short_start_anew(tmp_path: Path) -> None:
    options = {"config": {"x": 1}, "storage_path": tmp_path, "name": "run", "verbose": 0}
    tune.run(steps, callbacks=[Interrupt(3)], **options)
    anew = tune.ResumeConfig(unfinished=tune.ResumeConfig.ResumeType.RESTART)
    (trial,) = tune.run(steps, resume="AUTO", resume_config=anew, **options).trials
    assert set(trial.history.column("begin")) == {0}
    assert trial.status == "TERMINATED"


@pytest.mark.usefixtures("inline")
def test_a_run_that_is_over_is_restored_as_it_was(tmp_path: Path) -> None:
    space = {"x": tune.uniform(0, 1)}
    first = tune.run(
        once, config=space, num_samples=4, storage_path=tmp_path, name="a", verbose=0, seed=1
    )
    # It may have been moved meanwhile.
    (tmp_path / "a").rename(tmp_path / "b")
    second = tune.Tuner.restore(tmp_path / "b", once).fit()
    assert [result.config for result in second] == [trial.config for trial in first.trials]
    assert [result.metrics["loss"] for result in second if result.metrics] == [
        trial.last_result["loss"] for trial in first.trials
    ]
    # More of it: the searcher goes on where it was.
    third = tune.run(
        once, config=space, num_samples=6, storage_path=tmp_path, name="b", verbose=0, resume=True
    )
    assert [trial.config for trial in third.trials][:4] == [t.config for t in first.trials]
    assert len({trial.config["x"] for trial in third.trials}) == 6


@pytest.mark.usefixtures("inline")
def test_interrupted_trials_go_on(tmp_path: Path) -> None:
    class Interrupt(tune.Callback):
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            if trial.trial_id.endswith("2"):
                raise KeyboardInterrupt

    options: dict[str, Any] = {
        "config": {"x": tune.grid_search([1, 2, 3, 4, 5])},
        "storage_path": tmp_path,
        "name": "run",
        "verbose": 0,
        "max_concurrent_trials": 1,
    }
    first = tune.run(once, callbacks=[Interrupt()], **options)
    assert [trial.stop_reason for trial in first.trials][-1] == "interrupted"
    left = tune.Tuner.restore(tmp_path / "run", once, resume_unfinished=False).fit()
    assert left.experiment.trials[2].stop_reason == "interrupted"
    first = tune.run(once, callbacks=[Interrupt()], **{**options, "name": "again"})
    analysis = tune.run(once, resume="AUTO", **{**options, "name": "again"})
    assert [trial.last_result["loss"] for trial in analysis.trials] == [1, 2, 3, 4, 5]
    assert {trial.stop_reason for trial in analysis.trials} == {"completed"}


class Interrupt(tune.Callback):
    """Ctrl-C after so many results."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def steps(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 10):
        tune.report(
            {"loss": config["x"] + 1 / step, "begin": begin},
            checkpoint=tune.Checkpoint.from_dict({"step": step}),
        )


SCHEDULERS: dict[str, dict[str, Any]] = {
    "asynchyperband": {"max_t": 9},
    "hyperband": {"max_t": 9},
    "median_stopping_rule": {"grace_period": 2, "min_samples_required": 2},
    "pbt": {
        "time_attr": "training_iteration",
        "perturbation_interval": 3,
        "hyperparam_mutations": {"x": tune.uniform(0, 9)},
    },
    "pb2": {
        "time_attr": "training_iteration",
        "perturbation_interval": 3,
        "hyperparam_bounds": {"x": [0, 9]},
    },
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("after", [7, 30])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_goes_on(tmp_path: Path, scheduler: str, after: int) -> None:
    tuner = tune.Tuner(
        steps,
        param_space={"x": tune.uniform(0, 9)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=9,
            seed=3,
            scheduler=tune.create_scheduler(scheduler, **SCHEDULERS[scheduler]),
        ),
        run_config=tune.RunConfig(
            name="run", storage_path=tmp_path, verbose=0, callbacks=[Interrupt(after)]
        ),
    )
    tuner.fit()
    grid = tune.Tuner.restore(tmp_path / "run", steps).fit()
    assert grid.num_errors == 0
    assert len(grid) == 9
    assert {trial.status for trial in grid.experiment.trials} == {"TERMINATED"}
    assert all(trial.iterations for trial in grid.experiment.trials)
    assert not any(trial.stop_reason == "interrupted" for trial in grid.experiment.trials)


@pytest.mark.usefixtures("inline")
def test_a_trial_goes_on_from_the_last_checkpoint_that_is_kept(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage_path": tmp_path, "name": "run", "verbose": 0}
    # With the third result came a checkpoint that nobody has kept yet.
    tune.run(steps, config={"x": 1}, callbacks=[Interrupt(3)], **options)
    analysis = tune.run(steps, config={"x": 1}, resume=True, **options)
    assert analysis.trials[0].history.column("begin") == [0, 0, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.usefixtures("inline")
def test_another_run_in_the_same_folder_keeps_its_checkpoints(tmp_path: Path) -> None:
    space = {"x": tune.grid_search([1, 2])}
    options: dict[str, Any] = {"storage_path": tmp_path, "name": "run", "verbose": 0}
    first = tune.run(steps, config=space, **options)
    tune.run(steps, config=space, **options)
    tune.run(steps, config=space, resume=True, **options)
    for kept in first.experiment.checkpoints.values():
        assert all(Path(each.path or "").is_dir() for each in kept)


@pytest.mark.usefixtures("engine")
def test_trials_and_their_folders_have_the_names_that_the_user_gives(tmp_path: Path) -> None:
    def named(config: dict[str, Any]) -> None:
        steps(config)
        tune.report(loss=config["x"], begin=-1, shown=tune.get_context().get_trial_name())

    options: dict[str, Any] = {
        "config": {"x": tune.grid_search([1, 2, 3])},
        "storage_path": tmp_path,
        "name": "run",
        "verbose": 0,
        "max_concurrent_trials": 1,
        "trial_name_creator": lambda trial: f"{trial.trainable_name} {trial.config['x']}",
        "trial_dirname_creator": lambda trial: f"x={trial.config['x']}",
    }
    first = tune.run(named, callbacks=[Interrupt(13)], **options)
    assert [str(trial) for trial in first.trials] == ["named 1", "named 2"]
    # The second has one checkpoint that the state does not know, and so has the third, which is
    # made only now; a folder of somebody else is left alone, and so is what a trial wrote itself.
    known = tmp_path / "run/x=2/checkpoint_000000"
    for stray in ("x=2/checkpoint_000077", "x=3/checkpoint_000077", "other/checkpoint_000077"):
        shutil.copytree(known, tmp_path / "run" / stray)
    shutil.copytree(known, tmp_path / "run/x=2/checkpoint_of_mine")
    analysis = tune.run(named, resume=True, **options)
    assert [trial.name for trial in analysis.trials] == ["named 1", "named 2", "named 3"]
    assert [trial.last_result["shown"] for trial in analysis.trials] == [
        "named 1",
        "named 2",
        "named 3",
    ]
    assert analysis.trials[1].history.column("begin")[-2] > 0
    for trial in analysis.trials:
        folder = tmp_path / "run" / f"x={trial.config['x']}"
        assert trial.path == str(folder)
        assert len((folder / "result.json").read_text().splitlines()) == 10
        assert len(list(folder.glob("checkpoint_0*"))) == 9
    assert (tmp_path / "run/other/checkpoint_000077").exists()
    assert (tmp_path / "run/x=2/checkpoint_of_mine").exists()
    again = tune.ExperimentAnalysis(tmp_path / "run")
    assert {trial.trial_id for trial in again.trials} == {t.trial_id for t in analysis.trials}


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trial_dirname_creator": lambda trial: "same"}, ValueError, "'same' for two trials"),
        ({"trial_dirname_creator": lambda trial: "a/b"}, ValueError, "no name of a folder"),
        ({"trial_dirname_creator": lambda trial: "a" * 256}, ValueError, "longer than 255 bytes"),
        ({"trial_dirname_creator": lambda trial: ""}, ValueError, "an empty name"),
        ({"trial_name_creator": lambda trial: 7}, TypeError, "has to return text, got 7"),
    ],
)
def test_names_that_are_none(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        tune.run(once, config={"x": tune.grid_search([1, 2])}, verbose=0, **options)


@pytest.mark.usefixtures("inline")
def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    assert not tune.Tuner.can_restore(tmp_path)
    with pytest.raises(tune.TuneError, match="no run to resume at"):
        tune.Tuner.restore(tmp_path, once)
    options: dict[str, Any] = {"storage_path": tmp_path, "config": {"x": 1}, "verbose": 0}
    with pytest.raises(tune.TuneError, match="no run to resume at"):
        tune.run(once, name="none", resume=True, **options)
    assert len(tune.run(once, name="none", resume="AUTO", **options).trials) == 1
    with pytest.raises(ValueError, match="name="):
        tune.run(once, resume=True, **options)
    with pytest.raises(ValueError, match="resume wants"):
        tune.run(once, name="none", resume="PROMPTLY", **options)
    state = tmp_path / "none" / "experiment_state.pkl"
    fields = pickle.loads(state.read_bytes())
    state.write_bytes(pickle.dumps({**fields, "version": 99}))
    with pytest.raises(tune.TuneError, match="version 99"):
        tune.run(once, name="none", resume=True, **options)


@pytest.mark.usefixtures("inline")
def test_a_searcher_that_cannot_be_pickled_is_no_reason_to_fail(tmp_path: Path) -> None:
    class Stuck(tune.search.BasicVariantGenerator):
        def get_state(self) -> dict[str, Any]:
            return {"lock": threading.Lock()}

    with pytest.warns(RuntimeWarning, match="cannot be resumed"):
        analysis = tune.run(
            once, config={"x": 1}, search_alg=Stuck(), storage_path=tmp_path, name="r", verbose=0
        )
    assert len(analysis.trials) == 1
    assert not tune.Tuner.can_restore(tmp_path / "r")


def test_words_for_resuming() -> None:
    assert parse_resume(None) is None
    for wrong in ([], 1, {"AUTO"}):
        for config in (None, tune.ResumeConfig()):
            with pytest.raises(TypeError, match="resume wants True, False, None or a word"):
                parse_resume(wrong, config)  # type: ignore[arg-type]
    assert parse_resume(False) is None
    assert parse_resume(True) == parse_resume("LOCAL") == Resume()
    assert parse_resume("auto") == Resume(required=False)
    failed = tune.ResumeConfig(unfinished="skip", errored="resume")
    assert parse_resume("ERRORED_ONLY") == Resume(failed)
    assert parse_resume("AUTO+ERRORED") == Resume(tune.ResumeConfig(errored="resume"), False)
    anew = tune.ResumeConfig(unfinished="skip", errored="restart")
    assert parse_resume("AUTO+RESTART_ERRORED_ONLY") == Resume(anew, required=False)
    assert parse_resume(None, failed) == parse_resume(True, failed) == Resume(failed)
    assert parse_resume("AUTO", failed) == Resume(failed, required=False)
    kind = tune.ResumeConfig.ResumeType
    assert tune.ResumeConfig(kind.SKIP, kind.SKIP, kind.RESUME) == failed
    with pytest.raises(ValueError, match="resume wants True or 'AUTO'"):
        parse_resume("AUTO+ERRORED", failed)
    with pytest.raises(ValueError, match="resume wants True or 'AUTO'"):
        parse_resume(False, failed)
    with pytest.raises(ValueError, match="'again' is not a valid ResumeType"):
        tune.ResumeConfig(finished="again")
