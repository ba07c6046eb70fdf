"""Tune without anything to train: the time of the orchestration."""

from __future__ import annotations

import importlib
import tempfile

from _system import SYSTEM, check, load, main, seconds

TRIALS = 50
REPORTS = 10

api = load()
tune = importlib.import_module(f"{SYSTEM}.tune")


def empty(config: dict[str, float]) -> None:
    for step in range(REPORTS):
        tune.report({"loss": config["x"] * step})


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


if __name__ == "__main__":
    api.init()
    main(empty_trials)
    api.shutdown()
