"""Callbacks for the training loops of boosting libraries, in trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from skate import tune
from skate.tune.schedulers import ASHAScheduler
from skate.tune.trial import Trial

np = pytest.importorskip("numpy")

ROUNDS = 6


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    return x, (x[:, 0] + 0.1 * rng.normal(size=200) > 0).astype(float)


def boost(**callback: Any) -> Callable[[dict[str, Any]], None]:
    """Return a trial that trains with XGBoost."""
    pytest.importorskip("xgboost")

    def train(config: dict[str, Any]) -> None:
        import xgboost

        from skate.tune.integration.xgboost import TuneReportCheckpointCallback

        matrix = xgboost.DMatrix(*data())
        params = {"objective": "binary:logistic", "eval_metric": ["error", "logloss"], "nthread": 1}
        if config.get("cv"):
            report = TuneReportCheckpointCallback(**callback)
            xgboost.cv(params, matrix, ROUNDS, nfold=3, callbacks=[report])
            return
        before = tune.get_checkpoint()
        xgboost.train(
            params,
            matrix,
            config.get("rounds", ROUNDS),
            evals=[(matrix, "eval")],
            xgb_model=None if before is None else TuneReportCheckpointCallback.get_model(before),
            callbacks=[TuneReportCheckpointCallback(**callback)],
            verbose_eval=False,
        )

    return train


def grow(**callback: Any) -> Callable[[dict[str, Any]], None]:
    """Return a trial that trains with LightGBM."""
    pytest.importorskip("lightgbm")

    def train(config: dict[str, Any]) -> None:
        import lightgbm

        from skate.tune.integration.lightgbm import TuneReportCheckpointCallback

        x, y = data()
        report = TuneReportCheckpointCallback(**callback)
        params = {
            "objective": "binary",
            "metric": ["binary_error", "binary_logloss"],
            "num_threads": 1,
            "verbose": -1,
        }
        rows = lightgbm.Dataset(x, y)
        if config.get("cv"):
            lightgbm.cv(params, rows, ROUNDS, nfold=3, callbacks=[report])
            return
        lightgbm.train(
            params, rows, ROUNDS, valid_sets=[rows], valid_names=["eval"], callbacks=[report]
        )

    return train


def run(trainable: Any, config: Mapping[str, Any] | None = None, **more: Any) -> Trial:
    analysis = tune.run(trainable, config=config or {}, verbose=0, **more)
    (trial,) = analysis.trials
    return trial


def model_of(trial: Trial, kind: str, **options: Any) -> Any:
    if kind == "xgboost":
        from skate.tune.integration.xgboost import TuneReportCheckpointCallback as Callback
    else:
        from skate.tune.integration.lightgbm import TuneReportCheckpointCallback as Callback
    assert trial.checkpoint is not None
    checkpoint = tune.Checkpoint.from_directory(trial.checkpoint.path or "")
    return Callback.get_model(checkpoint, **options)


@pytest.mark.usefixtures("engine")
def test_xgboost_reports_every_round_and_the_model_at_the_end() -> None:
    trial = run(boost())
    # One more report, with the model, after the last round.
    losses = trial.history.column("eval-logloss")
    assert len(losses) == ROUNDS + 1
    assert losses[0] > losses[-2] == losses[-1]
    assert set(trial.history.columns) >= {"eval-error", "eval-logloss"}
    assert model_of(trial, "xgboost").num_boosted_rounds() == ROUNDS


@pytest.mark.usefixtures("inline")
def test_xgboost_with_chosen_scores_and_models_now_and_then() -> None:
    trial = run(
        boost(
            metrics={"loss": "eval-logloss"},
            frequency=3,
            filename="model.json",
            results_postprocessing_fn=lambda scores: {**scores, "twice": 2 * scores["loss"]},
        )
    )
    assert trial.iterations == ROUNDS  # the last round has brought the model
    assert "eval-error" not in trial.last_result
    assert trial.last_result["twice"] == 2 * trial.last_result["loss"]
    assert model_of(trial, "xgboost", filename="model.json").num_boosted_rounds() == ROUNDS
    assert run(boost(checkpoint_at_end=False)).checkpoint is None


@pytest.mark.usefixtures("engine")
def test_xgboost_goes_on_from_its_model() -> None:
    failed = []

    def once(config: dict[str, Any]) -> None:
        begun = tune.get_checkpoint() is not None
        boost(frequency=2)({"rounds": 2 if begun else 4})
        if not begun:
            failed.append(1)
            raise ValueError("once")

    trial = run(once, max_failures=1)
    assert trial.failures == 1
    assert model_of(trial, "xgboost").num_boosted_rounds() == 6


@pytest.mark.usefixtures("inline")
def test_xgboost_in_cross_validation_has_scores_and_no_model() -> None:
    trial = run(boost(frequency=1), {"cv": True})
    assert trial.iterations == ROUNDS
    assert trial.checkpoint is None
    assert trial.last_result["test-logloss"] < 0.7
    assert trial.last_result["test-logloss-stdv"] >= 0
    means = run(
        boost(
            metrics="test-logloss",
            results_postprocessing_fn=lambda pairs: {n: pair[0] for n, pair in pairs.items()},
        ),
        {"cv": True},
    )
    assert means.last_result["test-logloss"] == trial.last_result["test-logloss"]


@pytest.mark.usefixtures("engine")
def test_lightgbm_reports_every_round_and_the_model_with_the_last() -> None:
    trial = run(grow(metrics=["eval-binary_logloss"]))
    losses = trial.history.column("eval-binary_logloss")
    assert len(losses) == ROUNDS
    assert losses[0] > losses[-1]
    assert "eval-binary_error" not in trial.last_result
    model = model_of(trial, "lightgbm")
    assert model.num_trees() == ROUNDS
    x, y = data()
    assert ((model.predict(x) > 0.5) == y).mean() > 0.9


@pytest.mark.usefixtures("inline")
def test_lightgbm_in_cross_validation_has_scores_and_no_model() -> None:
    trial = run(grow(), {"cv": True})
    assert trial.iterations == ROUNDS
    assert trial.checkpoint is None
    assert trial.last_result["valid-binary_logloss-mean"] < 0.7
    assert trial.last_result["valid-binary_logloss-stdv"] >= 0


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("make", [boost, grow])
def test_schedulers_end_trainings_in_the_middle(make: Any) -> None:
    trial = run(make(), scheduler=ASHAScheduler(max_t=3), metric="training_iteration", mode="max")
    assert (trial.status, trial.iterations) == ("TERMINATED", 3)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("make", [boost, grow])
def test_scores_that_do_not_exist_are_named(make: Any) -> None:
    with pytest.raises(tune.TuneError, match="there is no score 'eval-auc', only: eval-"):
        run(make(metrics="eval-auc"))
    with pytest.raises(tune.TuneError, match="frequency cannot be negative"):
        run(make(frequency=-1))


@pytest.mark.usefixtures("engine")
def test_a_class_may_say_when_it_is_to_be_saved() -> None:
    from skate.tune.result import SHOULD_CHECKPOINT

    class Counter(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.steps = 0

        def step(self) -> dict[str, Any]:
            self.steps += 1
            return {"steps": self.steps, SHOULD_CHECKPOINT: self.steps in (2, 3)}

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {"steps": self.steps}

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.steps = checkpoint["steps"]

    trial = run(Counter, stop={"training_iteration": 5})
    assert trial.checkpoint is not None
    assert trial.checkpoint.iteration == 3


def test_paths_of_ray() -> None:
    from skate.air.integrations.mlflow import MLflowLoggerCallback
    from skate.air.integrations.wandb import WandbLoggerCallback
    from skate.tune import logger
    from skate.tune.execution.placement_groups import PlacementGroupFactory
    from skate.tune.experiment import Trial as Same

    assert PlacementGroupFactory is tune.PlacementGroupFactory
    from skate.tune.integration import mlflow, wandb

    assert Same is Trial
    assert MLflowLoggerCallback is mlflow.MLflowLoggerCallback is logger.MLflowLoggerCallback
    assert WandbLoggerCallback is wandb.WandbLoggerCallback is logger.WandbLoggerCallback
    assert PlacementGroupFactory([{"CPU": 2}, {"CPU": 1}]).head_cpus == 2
    assert PlacementGroupFactory([{"GPU": 1}]).head_cpus == 0


@pytest.mark.usefixtures("engine")
def test_functions_as_ray_2_0_had_them() -> None:
    from skate import air
    from skate.air import session

    def train(config: dict[str, Any]) -> None:
        checkpoint = session.get_checkpoint()
        begin = checkpoint.to_dict()["step"] if checkpoint else 0
        resources = session.get_trial_resources()
        assert resources is not None
        for step in range(begin + 1, 4):
            session.report(
                {
                    "step": step,
                    "names": f"{session.get_experiment_name()} {session.get_trial_name()}",
                    "cpus": resources.head_cpus,
                },
                checkpoint=air.Checkpoint.from_dict({"step": step}),
            )
            if step == 2 and begin == 0:
                raise ValueError("once")

    (result,) = tune.Tuner(
        train,
        run_config=air.RunConfig(
            name="old", verbose=0, failure_config=air.FailureConfig(max_failures=1)
        ),
    ).fit()
    assert result.metrics is not None
    assert result.metrics["step"] == 3
    assert result.metrics["names"] == f"old {result.metrics['trial_id']}"
    assert result.metrics["cpus"] == 1
