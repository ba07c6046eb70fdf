"""Tune a distributed XGBoost model on the breast-cancer data.

Each trial trains one model on two actors, Optuna proposes the parameters, ASHA stops what does not
promise much.  At the end: the best parameters, their accuracy on test data that no decision has
seen, pictures, and the model.  Kill any worker with ``kill -9`` while it runs: it goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import skate
from skate import tune
from skate.xgboost import RayDMatrix, RayParams, predict, train

#: What is the same for all models.
FIXED = {"objective": "binary:logistic", "tree_method": "hist", "eval_metric": ["error", "logloss"]}
ROUNDS = 60
SPACE = {
    "eta": tune.loguniform(0.03, 0.5),
    "max_depth": tune.randint(2, 9),
    "subsample": tune.uniform(0.5, 1.0),
    "lambda": tune.loguniform(0.1, 10.0),
}
#: Two actors for each model, and as many new starts as it takes.
TWO_ACTORS = RayParams(num_actors=2, max_actor_restarts=-1)
SEED = 2026


class Split(NamedTuple):
    """Rows and labels of one part of the data."""

    x: Any
    y: Any


def load() -> tuple[Split, Split, Split]:
    """Return three fifths to train on, one to choose by, and one that is kept for the end."""
    x, y = load_breast_cancer(return_X_y=True)
    x_rest, x_test, y_rest, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=SEED
    )
    x_train, x_valid, y_train, y_valid = train_test_split(
        x_rest, y_rest, test_size=0.25, stratify=y_rest, random_state=SEED
    )
    return Split(x_train, y_train), Split(x_valid, y_valid), Split(x_test, y_test)


def search(training: Split, validation: Split, trials: int, folder: Path) -> Any:
    """Run the trials and return their analysis."""
    dtrain, dvalid = RayDMatrix(*training), RayDMatrix(*validation)

    def trial(config: dict[str, Any]) -> None:
        # Inside a trial, train() reports the scores of every round by itself.
        train(
            {**FIXED, **config},
            dtrain,
            num_boost_round=ROUNDS,
            evals=[(dtrain, "train"), (dvalid, "valid")],
            verbose_eval=False,
            ray_params=TWO_ACTORS,
        )

    return tune.run(
        trial,
        name="breast-cancer",
        config=SPACE,
        num_samples=trials,
        metric="valid-logloss",
        mode="min",
        search_alg=tune.create_searcher("optuna", seed=SEED),
        scheduler=tune.create_scheduler("asha", max_t=ROUNDS, grace_period=8),
        resources_per_trial=TWO_ACTORS.get_tune_resources(),
        max_failures=20,
        storage_path=folder / "trials",
    )


def final_model(config: Mapping[str, Any], rounds: int, training: Split, validation: Split) -> Any:
    """Train on all that may be trained on, now that the parameters are chosen."""
    both = RayDMatrix(
        np.concatenate([training.x, validation.x]), np.concatenate([training.y, validation.y])
    )
    return train(
        {**FIXED, **config}, both, num_boost_round=rounds, verbose_eval=False, ray_params=TWO_ACTORS
    )


def errors(model: Any, test: Split) -> int:
    """Return how many test rows the model gets wrong."""
    probability = predict(model, RayDMatrix(test.x), ray_params=TWO_ACTORS)
    return int(np.sum((probability > 0.5) != test.y))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=40, help="how many (default: 40)")
    arguments.add_argument("--results", type=Path, default=Path("results"), help="where to write")
    given = arguments.parse_args()
    folder: Path = given.results
    console = Console()
    started = time.perf_counter()

    training, validation, test = load()
    console.print(
        f"Breast-cancer data: {len(training.y)} rows to train on, {len(validation.y)} to choose by,"
        f" {len(test.y)} kept for the end."
    )
    # Workers are forks of a process that has imported these already.
    skate.init(preload=["xgboost", "skate.xgboost", "skate.tune"])
    analysis = search(training, validation, given.trials, folder)

    best = analysis.best_config
    curve = analysis.best_trial.history.column("valid-logloss")
    rounds = int(np.argmin(curve)) + 1
    tuned = final_model(best, rounds, training, validation)
    default = final_model({}, ROUNDS, training, validation)
    wrong = {"tuned": errors(tuned, test), "default parameters": errors(default, test)}

    tuned.save_model(folder / "best_model.json")
    tune.save_learning_curves(analysis, folder / "learning_curves.png")
    tune.save_report(analysis, folder / "report.html")
    skate.shutdown()

    console.print("\n[bold]Best configuration[/bold]")
    for name, value in best.items():
        console.print(f"  {name:<12} {value:.4g}")
    console.print(f"  {'rounds':<12} {rounds}")
    table = Table(title="On test data that no decision has seen", title_justify="left")
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column("wrong", justify="right")
    for name, count in wrong.items():
        accuracy = 1 - count / len(test.y)
        table.add_row(name, f"{accuracy:.2%}", f"{count} of {len(test.y)}")
    console.print(table)
    for name in ("learning_curves.png", "report.html", "best_model.json"):
        console.print(f"  {folder / name}", highlight=False)
    console.print(f"{len(analysis.trials)} trials in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
