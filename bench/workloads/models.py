"""Tune with something to train: ASHA on scikit-learn's MLP and its handwritten digits."""

from __future__ import annotations

import importlib
import statistics
import tempfile
from typing import Any

from _system import SYSTEM, check, load, main, seconds

CONFIGURATIONS = 64
#: How many such sets the quality is measured with.  Both systems stop by the same rule, but which
#: trials have come to a rung before depends on who is faster: 0.03 points for one set.
SETS = 5
#: Passes over the data at most, and before the first decision.
EPOCHS = 27
GRACE = 1
REDUCTION = 3
BATCH = 32

api = load()
tune = importlib.import_module(f"{SYSTEM}.tune")
schedulers = importlib.import_module(f"{SYSTEM}.tune.schedulers")


def configurations(seed: int) -> list[dict[str, Any]]:
    """Return the same ones for both systems, each with the seed of its training."""
    import numpy

    generator = numpy.random.default_rng(seed)
    return [
        {
            "hidden": int(generator.choice([16, 32, 64, 128])),
            "rate": float(10 ** generator.uniform(-4.5, -0.5)),
            "alpha": float(10 ** generator.uniform(-6, 0)),
            "momentum": float(generator.uniform(0.0, 0.99)),
            "seed": number,
        }
        for number in range(CONFIGURATIONS)
    ]


def train(config: dict[str, Any]) -> None:
    import numpy
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    chosen = config["model"]
    images, digits = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, digits, test_size=0.3, random_state=0, stratify=digits)
    learned, held_out, targets, wanted = parts
    model = MLPClassifier(
        (chosen["hidden"],),
        solver="sgd",
        learning_rate_init=chosen["rate"],
        alpha=chosen["alpha"],
        momentum=chosen["momentum"],
        batch_size=BATCH,
        random_state=chosen["seed"],
    )
    for _ in range(EPOCHS):
        model.partial_fit(learned, targets, classes=numpy.arange(10))
        tune.report({"accuracy": float(model.score(held_out, wanted))})


def _run(candidates: list[dict[str, Any]]) -> float:
    """Return the best accuracy on what was held out."""
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            train,
            param_space={"model": tune.grid_search(candidates)},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                scheduler=schedulers.ASHAScheduler(
                    max_t=EPOCHS, grace_period=GRACE, reduction_factor=REDUCTION
                ),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        check(len(results) == len(candidates))
        check(not results.errors)
        return float(results.get_best_result().metrics["accuracy"])


def asha_time() -> float:
    """Seconds for 64 configurations, after a run of two."""
    candidates = configurations(0)
    _run(candidates[:2])
    return seconds(lambda: check(_run(candidates) > 0.9))


def asha_accuracy() -> float:
    """Return the best accuracy that is found, in percent, the mean over several sets."""
    return statistics.mean(100 * _run(configurations(seed)) for seed in range(SETS))


if __name__ == "__main__":
    api.init()
    main(asha_time, asha_accuracy)
    api.shutdown()
