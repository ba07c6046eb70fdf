"""Tune without anything to train: the time of the orchestration."""

from __future__ import annotations

import importlib
import resource
import statistics
import tempfile
import time
from typing import Any

from _system import SYSTEM, check, load, main, seconds

TRIALS = 50
MANY_TRIALS = 1000
REPORTS = 10
#: How often each of four trials reports.
MANY_REPORTS = 10_000
#: Trials of the population, the steps of each, and what it does between two decisions.
POPULATION = 8
STEPS = 80
INTERVAL = 4
STEP_S = 0.01
CHECKPOINT_BYTES = 10_000_000

api = load()
tune = importlib.import_module(f"{SYSTEM}.tune")
schedulers = importlib.import_module(f"{SYSTEM}.tune.schedulers")


def empty(config: dict[str, float]) -> None:
    for step in range(REPORTS):
        tune.report({"loss": config["x"] * step})


def busy(config: dict[str, float]) -> None:
    for step in range(MANY_REPORTS):
        tune.report({"loss": config["x"], "step": step})


def _run(trials: int, folder: str) -> None:
    results = tune.Tuner(
        empty,
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min"),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    ).fit()
    check(len(results) == trials)
    check(all(result.metrics["training_iteration"] == REPORTS for result in results))


def empty_trials() -> float:
    """Seconds for 50 trials with 10 reports each, after a run of 2 trials."""
    with tempfile.TemporaryDirectory() as folder:
        _run(2, folder)
        return seconds(lambda: _run(TRIALS, folder))


def flatness() -> float:
    """How much longer a trial takes in runs of 1,000 trials than in runs of 50, as a factor.

    They take turns: 50 trials are over so soon that one run says little.
    """
    with tempfile.TemporaryDirectory() as folder:
        _run(2, folder)
        few, many = [], []
        for _ in range(3):
            few += [seconds(lambda: _run(TRIALS, folder)) / TRIALS for _ in range(5)]
            many.append(seconds(lambda: _run(MANY_TRIALS, folder)) / MANY_TRIALS)
        return statistics.median(many) / statistics.median(few)


def driver_memory() -> float:
    """MB of memory of the driver at most, in a run of 1,000 trials."""
    with tempfile.TemporaryDirectory() as folder:
        _run(MANY_TRIALS, folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def reports() -> float:
    """Reports per second of four trials that report as fast as they can."""

    def run(folder: str) -> None:
        results = tune.Tuner(
            tune.with_resources(busy, {"cpu": 0.5}),
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=4, metric="loss", mode="min"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        check(all(result.metrics["training_iteration"] == MANY_REPORTS for result in results))

    with tempfile.TemporaryDirectory() as folder:
        _run(2, folder)
        return 4 * MANY_REPORTS / seconds(lambda: run(folder))


def clone() -> float:
    """Milliseconds of an exploit step of PBT, of ten the second slowest (the 90th percentile).

    From the result by which PBT decides, in the driver, to the first report of the clone, in the
    driver.  The clone has its weights and its configuration by then.  Eight trials with checkpoints
    of 10 MB on two CPUs.
    """
    import numpy

    from skate.tune import Callback
    from skate.tune.schedulers.trial_scheduler import Exploit

    def train(config: dict[str, Any]) -> None:
        checkpoint = tune.get_checkpoint()
        state: dict[str, Any] = {"weights": numpy.zeros(CHECKPOINT_BYTES // 8), "step": 0}
        if checkpoint is not None:
            state = checkpoint.to_dict()
            check(state["weights"][0] == state["weights"][-1] == state["step"])
            tune.report({"loss": 0.0, "cloned": config["rate"], "step": state["step"]})
        weights = state["weights"]
        for step in range(state["step"] + 1, STEPS + 1):
            time.sleep(STEP_S)
            weights = weights + 1
            saved = None
            if step % INTERVAL == 0:
                saved = tune.Checkpoint.from_dict({"weights": weights, "step": step})
            loss = config["rate"] * step
            tune.report({"loss": loss, "cloned": None, "step": step}, checkpoint=saved)

    decided: dict[str, float] = {}
    took: list[float] = []

    class Population(schedulers.PopulationBasedTraining):  # type: ignore[name-defined,misc]  # imported by name
        def on_trial_result(self, controller: Any, trial: Any, result: Any) -> Any:
            now = time.perf_counter()
            verdict = super().on_trial_result(controller, trial, result)
            if isinstance(verdict, Exploit):
                decided[trial.trial_id] = now
            return verdict

    class Watch(Callback):
        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            if result["cloned"] is not None:
                took.append(time.perf_counter() - decided.pop(trial.trial_id))
                check(result["cloned"] == trial.config["rate"])

    with tempfile.TemporaryDirectory() as folder:
        scheduler = Population(
            "step",
            perturbation_interval=INTERVAL,
            hyperparam_mutations={"rate": tune.uniform(0, 1)},
        )
        results = tune.Tuner(
            tune.with_resources(train, {"cpu": 2 / POPULATION}),
            tune_config=tune.TuneConfig(
                num_samples=POPULATION, metric="loss", mode="max", scheduler=scheduler
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Watch()]),
        ).fit()
        check(not results.errors)
        # As many as half of the trials at least: how many there are is partly chance.
        check(len(took) == scheduler.perturbations >= POPULATION / 2)
        return 1000 * sorted(took)[int(0.9 * len(took))]


if __name__ == "__main__":
    api.init()
    main(empty_trials, flatness, driver_memory, reports, clone)
    api.shutdown()
