"""Distributed trainings inside Tune trials."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xgboost
from patience import until
from sessions import running
from xgboost import collective

import skate
from skate import state, tune
from skate.xgboost import RayDMatrix, RayParams, train
from skate.xgboost.tune import TuneReportCallback

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": ["error", "logloss"]}
ROUNDS = 6
TWO = RayParams(num_actors=2)
SPACE = {"eta": tune.grid_search([0.05, 0.1, 0.2, 0.3])}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two CPUs: as many as one training needs."""
    monkeypatch.setenv("SKATE_RESULTS_DIR", str(tmp_path / "results"))
    with running(num_cpus=2, engine="native", preload=["xgboost"]):
        yield


def trainable(data: Data, callbacks: list[Any] | None = None) -> Any:
    """Return a function that trains in a trial."""
    dtrain = RayDMatrix(*data)

    def trial(config: dict[str, Any]) -> None:
        train(
            {**PARAMS, **config},
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            callbacks=callbacks,
            verbose_eval=False,
            ray_params=TWO,
        )

    return trial


def run(function: Any, **options: Any) -> Any:
    """Run trials quietly."""
    defaults: dict[str, Any] = {
        "config": SPACE,
        "verbose": 0,
        "resources_per_trial": TWO.get_tune_resources(),
    }
    return tune.run(function, **{**defaults, **options})


def test_every_round_is_reported(data: Data) -> None:
    analysis = run(trainable(data), metric="train-logloss", mode="min")
    assert len(analysis.trials) == 4
    for trial in analysis.trials:
        curve = trial.history.column("train-logloss")
        assert len(curve) == ROUNDS
        assert curve == sorted(curve, reverse=True)
        assert "train-error" in trial.last_result
    assert analysis.best_config == {"eta": 0.3}


def test_what_is_reported_can_be_chosen(data: Data) -> None:
    callback = TuneReportCallback({"loss": "train-logloss"}, frequency=2)
    analysis = run(trainable(data, [callback]), metric="loss")
    for trial in analysis.trials:
        assert trial.iterations == ROUNDS // 2
        assert "train-logloss" not in trial.last_result


def test_a_score_that_does_not_exist_is_named(data: Data) -> None:
    with pytest.raises(tune.TuneError, match="no score 'eval-auc', only: train-error"):
        run(trainable(data, [TuneReportCallback("eval-auc")]), metric="eval-auc")


def test_outside_of_trials_nothing_is_reported(data: Data) -> None:
    model = train(PARAMS, RayDMatrix(*data), 2, callbacks=[TuneReportCallback("x")])
    assert model.num_boosted_rounds() == 2


def test_trials_without_resources_do_not_wait_for_each_other(data: Data) -> None:
    # Each of two trials holds a CPU, so neither would ever get two more.
    analysis = run(trainable(data), resources_per_trial=None, metric="train-logloss")
    assert [trial.iterations for trial in analysis.trials] == [ROUNDS] * 4


def test_a_trial_lends_its_gpus_to_its_actors(data: Data, tmp_path: Path) -> None:
    class Notes(xgboost.callback.TrainingCallback):
        def before_training(self, model: Any) -> Any:
            (tmp_path / os.environ["CUDA_VISIBLE_DEVICES"]).touch()
            return model

    skate.shutdown()
    skate.init(num_cpus=2, num_gpus=4, engine="native")
    dtrain = RayDMatrix(*data)

    def trial(config: dict[str, Any]) -> dict[str, Any]:
        sharing = RayParams(num_actors=2, gpus_per_actor=1)
        train({"device": "cpu"}, dtrain, 2, callbacks=[Notes()], ray_params=sharing)
        return {"ok": 1}

    run(trial, config={}, num_samples=2, resources_per_trial={"cpu": 1, "gpu": 2})
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1", "2", "3"}


def test_trials_that_take_no_resources_take_turns(data: Data) -> None:
    # All of them ask for two CPUs at the same time.
    analysis = run(trainable(data), resources_per_trial={"cpu": 0}, metric="train-logloss")
    assert [trial.iterations for trial in analysis.trials] == [ROUNDS] * 4


def test_a_death_in_a_trial_is_not_seen_in_its_results(data: Data, tmp_path: Path) -> None:
    class Killer(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            marker = tmp_path / "died"
            if epoch == 3 and collective.get_rank() == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    options = {"metric": "train-logloss", "config": {"eta": tune.grid_search([0.1, 0.1])}}
    disturbed, undisturbed = run(trainable(data, [Killer()]), **options).trials
    assert (tmp_path / "died").exists()
    assert disturbed.failures == undisturbed.failures == 0
    name = "train-logloss"
    assert disturbed.history.column(name) == undisturbed.history.column(name)


def test_asha_stops_trainings_in_the_middle(data: Data) -> None:
    dtrain = RayDMatrix(*data)

    def trial(config: dict[str, Any]) -> None:
        train(
            {**PARAMS, **config},
            dtrain,
            300,
            evals=[(dtrain, "train")],
            verbose_eval=False,
            ray_params=TWO,
        )

    analysis = run(
        trial,
        config={"eta": tune.grid_search([0.3, 0.003, 0.002, 0.001])},
        metric="train-logloss",
        mode="min",
        scheduler=tune.create_scheduler("asha", max_t=300, grace_period=5, reduction_factor=2),
    )
    assert analysis.best_config == {"eta": 0.3}
    assert all(trial.iterations == 5 for trial in analysis.trials[1:])
    assert all(trial.early_stopped for trial in analysis.trials[1:])
    # Nothing of the trainings goes on.
    until(lambda: not [each for each in state.list_actors() if each.state != "DEAD"])
    until(lambda: skate.available_resources().get("CPU") == 2)


def test_a_trial_that_is_started_again_goes_on_from_its_checkpoint(
    data: Data, tmp_path: Path
) -> None:
    dtrain = RayDMatrix(*data)

    class Rounds(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            with (tmp_path / f"rounds-{collective.get_rank()}").open("a") as file:
                file.write(f"{epoch} ")
            return False

    def trial(config: dict[str, Any]) -> None:
        class Crash(TuneReportCallback):
            def chosen(self, rounds: int, scores: Any) -> dict[str, float]:
                marker = tmp_path / "crashed"
                if rounds == 5 and config["crash"] and not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().chosen(rounds, scores)

        train(
            PARAMS,
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            callbacks=[Crash(), *([Rounds()] if config["crash"] else [])],
            verbose_eval=False,
            ray_params=RayParams(num_actors=2, checkpoint_frequency=2),
        )

    analysis = run(
        trial,
        config={"crash": tune.grid_search([True, False])},
        metric="train-logloss",
        mode="min",
        max_failures=1,
    )
    disturbed, undisturbed = analysis.trials
    assert disturbed.failures == 1
    assert disturbed.history.column("train-logloss") == undisturbed.history.column("train-logloss")
    # The second time did not begin with the first round.
    assert (tmp_path / "rounds-0").read_text().split().count("0") == 1
    models = [
        Path(trial.checkpoint.path, "model.ubj").read_bytes() for trial in (disturbed, undisturbed)
    ]
    assert models[0] == models[1]
    assert xgboost.Booster(model_file=bytearray(models[0])).num_boosted_rounds() == ROUNDS
