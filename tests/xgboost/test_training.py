"""The model is the one that XGBoost itself would have made."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost

import skate
from skate.xgboost import RayDMatrix, RayParams, RayShardingMode, train

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic", "max_depth": 4, "eval_metric": ["logloss", "error"]}
ROUNDS = 12
ONE = RayParams(num_actors=1)
TWO = RayParams(num_actors=2)


def plain(x: Any, y: Any, rounds: int = ROUNDS, **arguments: Any) -> xgboost.Booster:
    """Train with XGBoost alone."""
    dtrain = xgboost.DMatrix(x, y, enable_categorical=True)
    return xgboost.train(PARAMS, dtrain, rounds, verbose_eval=False, **arguments)


def margins(model: xgboost.Booster, x: Any) -> Any:
    """Return raw predictions, which show differences best."""
    return model.predict(xgboost.DMatrix(x, enable_categorical=True), output_margin=True)


@pytest.mark.usefixtures("inline")
class TestOneActor:
    def test_the_model_is_identical(self, data: Data) -> None:
        x, y = data
        result: dict[str, Any] = {}
        expected: dict[str, Any] = {}
        dtrain, matrix = RayDMatrix(x, y), xgboost.DMatrix(x, y)
        model = train(PARAMS, dtrain, ROUNDS, evals=[(dtrain, "train")], evals_result=result)
        reference = xgboost.train(
            PARAMS, matrix, ROUNDS, evals=[(matrix, "train")], evals_result=expected
        )
        assert type(model) is xgboost.Booster
        assert model.save_raw() == reference.save_raw()
        assert result == expected
        assert np.array_equal(margins(model, x), margins(reference, x))

    def test_row_and_column_sampling(self, data: Data) -> None:
        x, y = data
        params = {**PARAMS, "subsample": 0.5, "colsample_bytree": 0.5, "seed": 7}
        model = train(params, RayDMatrix(x, y), ROUNDS)
        reference = xgboost.train(params, xgboost.DMatrix(x, y), ROUNDS)
        assert model.save_raw() == reference.save_raw()

    @pytest.mark.parametrize(
        "params",
        [{"tree_method": "approx"}, {"booster": "gblinear"}, {"booster": "dart", "rate_drop": 0.2}],
        ids=lambda params: next(iter(params.values())),
    )
    def test_other_boosters_and_methods(self, data: Data, params: dict[str, Any]) -> None:
        x, y = data
        # Threads of gblinear race with each other, on purpose.
        params = {**PARAMS, **params, "nthread": 1}
        model = train(params, RayDMatrix(x, y), ROUNDS)
        reference = xgboost.train(params, xgboost.DMatrix(x, y), ROUNDS)
        assert np.allclose(margins(model, x), margins(reference, x), atol=1e-5)

    def test_prints_as_xgboost_does(self, data: Data, capfd: pytest.CaptureFixture[str]) -> None:
        x, y = data
        matrix, dtrain = xgboost.DMatrix(x, y), RayDMatrix(x, y)
        xgboost.train(PARAMS, matrix, 8, evals=[(matrix, "t")], verbose_eval=3)
        expected = capfd.readouterr().out
        train(PARAMS, dtrain, 8, evals=[(dtrain, "t")], verbose_eval=3)
        assert capfd.readouterr().out == expected
        assert expected.count("\n") == 4
        train(PARAMS, dtrain, 8, evals=[(dtrain, "t")], verbose_eval=False)
        assert capfd.readouterr().out == ""

    @pytest.mark.parametrize("form", ["booster", "file", "bytes"])
    def test_continuation(self, data: Data, tmp_path: Path, form: str) -> None:
        x, y = data
        half = plain(x[:500], y[:500], 5)
        half.save_model(tmp_path / "half.json")
        start = {"booster": half, "file": tmp_path / "half.json", "bytes": half.save_raw()}[form]
        model = train(PARAMS, RayDMatrix(x, y), 5, xgb_model=start)
        assert model.num_boosted_rounds() == 10
        assert model.save_raw() == plain(x, y, 5, xgb_model=half).save_raw()

    def test_no_rounds(self, data: Data) -> None:
        x, y = data
        model = train(PARAMS, RayDMatrix(x, y), 0)
        assert model.num_boosted_rounds() == 0

    def test_the_callers_arguments_stay_as_they_are(self, data: Data) -> None:
        x, y = data
        params = {**PARAMS, "nthread": 8}
        before = dict(params)
        evals = [(RayDMatrix(x, y), "t")]
        train(params, RayDMatrix(x, y), 1, evals=evals, verbose_eval=False)
        assert params == before
        assert len(evals) == 1


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x.astype(np.float64)),
        lambda x: np.asfortranarray(x),
        lambda x: x[:, ::-1][:, ::-1],
        lambda x: x.astype(np.int32),
        lambda x: pd.DataFrame(x),
        lambda x: scipy.sparse.csr_matrix(x + 1),
        lambda x: x.tolist(),
    ],
    ids=["float64", "float64-F", "float32-F", "strided", "int32", "pandas", "csr", "list"],
)
@pytest.mark.parametrize("sharding", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
def test_all_kinds_of_data(data: Data, convert: Any, sharding: RayShardingMode) -> None:
    x, y = data
    model = train(PARAMS, RayDMatrix(convert(x), y, sharding=sharding), ROUNDS)
    kind = convert(x)
    reference = plain(np.asarray(kind) if isinstance(kind, list) else kind, y)
    assert model.save_raw() == reference.save_raw()


class StopsAtOnce(xgboost.callback.TrainingCallback):
    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return True


@pytest.mark.usefixtures("native")
class TestTwoActors:
    @pytest.mark.parametrize(("rounds", "callbacks"), [(0, []), (5, [StopsAtOnce()])])
    def test_no_round_at_all(self, data: Data, rounds: int, callbacks: list[Any]) -> None:
        x, y = data
        model = train(PARAMS, RayDMatrix(x, y), rounds, callbacks=callbacks, ray_params=TWO)
        assert model.num_boosted_rounds() == 0
        assert np.allclose(margins(model, x), margins(plain(x, y, 0), x), atol=1e-5)

    @pytest.mark.parametrize("sharding", [RayShardingMode.BATCH, RayShardingMode.INTERLEAVED])
    def test_the_model_is_close(self, data: Data, sharding: RayShardingMode) -> None:
        x, y = data
        result: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        dtrain = RayDMatrix(x, y, sharding=sharding)
        model = train(
            PARAMS,
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            evals_result=result,
            additional_results=extra,
            verbose_eval=False,
            ray_params=TWO,
        )
        expected: dict[str, Any] = {}
        matrix = xgboost.DMatrix(x, y)
        plain(x, y, evals=[(matrix, "train")], evals_result=expected)
        assert np.allclose(margins(model, x), margins(plain(x, y), x), atol=1e-4)
        assert list(result["train"]) == ["logloss", "error"]
        assert np.allclose(result["train"]["logloss"], expected["train"]["logloss"], atol=1e-5)
        assert extra["total_n"] == len(y)
        assert extra["restarts"] == 0
        assert 0 < extra["training_time_s"] <= extra["total_time_s"]

    def test_twice_the_same(self, data: Data) -> None:
        x, y = data
        first, second = (train(PARAMS, RayDMatrix(x, y), 5, ray_params=TWO) for _ in range(2))
        assert first.save_raw() == second.save_raw()

    def test_floats_with_many_values(self) -> None:
        rng = np.random.default_rng(1)
        x = rng.normal(size=(20_000, 5)).astype(np.float32)
        y = (x[:, 0] + x[:, 1] ** 2 > 1).astype(np.float32)
        model = train(PARAMS, RayDMatrix(x, y), ROUNDS, ray_params=TWO)
        # Bins differ a little, so trees do.
        wrong = np.mean((margins(model, x) > 0) != y)
        wrong_alone = np.mean((margins(plain(x, y), x) > 0) != y)
        assert wrong < wrong_alone + 0.005

    def test_weights_and_base_margin(self, data: Data) -> None:
        x, y = data
        rng = np.random.default_rng(2)
        extra = {"weight": rng.uniform(0.1, 2, len(y)), "base_margin": rng.normal(size=len(y))}
        model = train(PARAMS, RayDMatrix(x, y, **extra), ROUNDS, ray_params=TWO)
        reference = xgboost.train(PARAMS, xgboost.DMatrix(x, y, **extra), ROUNDS)
        assert np.allclose(margins(model, x), margins(reference, x), atol=1e-3)

    def test_missing_values(self, data: Data) -> None:
        x, y = data
        holed = x.copy()
        holed[::3, 0] = -1
        model = train(PARAMS, RayDMatrix(holed, y, missing=-1.0), ROUNDS, ray_params=TWO)
        reference = xgboost.train(PARAMS, xgboost.DMatrix(holed, y, missing=-1.0), ROUNDS)
        assert np.allclose(margins(model, x), margins(reference, x), atol=1e-4)

    def test_data_frame_with_categories(self, data: Data) -> None:
        x, y = data
        frame = pd.DataFrame(x, columns=list("abcdef"))
        frame["colour"] = pd.Categorical.from_codes((x[:, 0] % 4).astype(int), list("wxyz"))
        frame["y"] = y
        frame["id"] = range(len(y))
        dtrain = RayDMatrix(frame, label="y", ignore=["id"], enable_categorical=True)
        model = train(PARAMS, dtrain, ROUNDS, ray_params=TWO)
        features = frame.drop(columns=["y", "id"])
        assert model.feature_names == [*"abcdef", "colour"]
        assert model.feature_types is not None
        assert model.feature_types[-1] == "c"
        reference = plain(features, y)
        assert np.allclose(margins(model, features), margins(reference, features), atol=1e-4)

    def test_ranking(self, data: Data) -> None:
        x, y = data
        qid = np.repeat(np.arange(len(y) // 20), 20)
        params = {"objective": "rank:ndcg", "lambdarank_pair_method": "topk", "max_depth": 3}
        result: dict[str, Any] = {}
        dtrain = RayDMatrix(x, y, qid=qid)
        train(
            {**params, "eval_metric": "ndcg@5"},
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            evals_result=result,
            verbose_eval=False,
            ray_params=TWO,
        )
        curve = result["train"]["ndcg@5"]
        assert curve[-1] > curve[0]
        assert curve[-1] > 0.9

    def test_early_stopping(self, data: Data) -> None:
        x, y = data
        train_part, test_part = (x[:1200], y[:1200]), (x[1200:], y[1200:])
        params = {**PARAMS, "max_depth": 8, "eval_metric": "logloss"}
        matrix = xgboost.DMatrix(*train_part)
        reference = xgboost.train(
            params,
            matrix,
            200,
            evals=[(xgboost.DMatrix(*test_part), "eval")],
            early_stopping_rounds=3,
            verbose_eval=False,
        )
        result: dict[str, Any] = {}
        model = train(
            params,
            RayDMatrix(*train_part),
            200,
            evals=[(RayDMatrix(*test_part), "eval")],
            early_stopping_rounds=3,
            evals_result=result,
            verbose_eval=False,
            ray_params=TWO,
        )
        assert model.num_boosted_rounds() == reference.num_boosted_rounds() < 200
        assert model.best_iteration == reference.best_iteration
        assert model.best_score == pytest.approx(reference.best_score, abs=1e-4)
        assert len(result["eval"]["logloss"]) == model.num_boosted_rounds()

    def test_custom_objective_and_metric(self, data: Data) -> None:
        x, y = data

        def logistic(margin: Any, matrix: xgboost.DMatrix) -> tuple[Any, Any]:
            probability = 1 / (1 + np.exp(-margin))
            return probability - matrix.get_label(), probability * (1 - probability)

        def wrong(margin: Any, matrix: xgboost.DMatrix) -> tuple[str, float]:
            return "wrong", float(np.mean((margin > 0) != matrix.get_label()))

        result: dict[str, Any] = {}
        dtrain = RayDMatrix(x, y)
        model = train(
            {"max_depth": 4, "disable_default_eval_metric": True},
            dtrain,
            ROUNDS,
            obj=logistic,
            custom_metric=wrong,
            evals=[(dtrain, "train")],
            evals_result=result,
            verbose_eval=False,
            ray_params=TWO,
        )
        reference = xgboost.train({"max_depth": 4}, xgboost.DMatrix(x, y), ROUNDS, obj=logistic)
        assert np.allclose(margins(model, x), margins(reference, x), atol=1e-3)
        assert len(result["train"]["wrong"]) == ROUNDS
        assert result["train"]["wrong"][-1] < 0.2

    def test_callbacks_run_in_the_actors(self, data: Data, tmp_path: Path) -> None:
        x, y = data

        class Notes(xgboost.callback.TrainingCallback):
            def after_training(self, model: Any) -> Any:
                (tmp_path / str(os.getpid())).write_text(str(model.num_boosted_rounds()))
                return model

        halved = xgboost.callback.LearningRateScheduler(lambda epoch: 0.3 * 0.5**epoch)
        model = train(PARAMS, RayDMatrix(x, y), 5, callbacks=[Notes(), halved], ray_params=TWO)
        reference = plain(
            x,
            y,
            5,
            callbacks=[xgboost.callback.LearningRateScheduler(lambda epoch: 0.3 * 0.5**epoch)],
        )
        assert np.allclose(margins(model, x), margins(reference, x), atol=1e-4)
        notes = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert set(notes.values()) == {"5"}
        assert len(notes) == 2
        assert str(os.getpid()) not in notes

    def test_fewer_evaluation_rows_than_actors(self, data: Data) -> None:
        x, y = data
        result: dict[str, Any] = {}
        train(
            PARAMS,
            RayDMatrix(x, y),
            3,
            evals=[(RayDMatrix(x[:1], y[:1]), "one")],
            evals_result=result,
            verbose_eval=False,
            ray_params=TWO,
        )
        assert len(result["one"]["logloss"]) == 3

    def test_a_matrix_serves_many_trainings(self, data: Data) -> None:
        x, y = data
        dtrain = RayDMatrix(x, y)

        @skate.remote
        def elsewhere(matrix: RayDMatrix) -> bytes:
            return bytes(train(PARAMS, matrix, 3, ray_params=TWO).save_raw())

        here = bytes(train(PARAMS, dtrain, 3, ray_params=TWO).save_raw())
        assert skate.get(elsewhere.remote(dtrain), timeout=50) == here

    def test_more_actors_than_cpus_share_them(self, data: Data) -> None:
        x, y = data
        model = train(PARAMS, RayDMatrix(x, y), 3, ray_params=RayParams(num_actors=3))
        assert np.allclose(margins(model, x), margins(plain(x, y, 3), x), atol=1e-4)


@pytest.mark.parametrize(
    ("each", "expected"), [(1, {"0": "0", "1": "1"}), (0.5, {"0": "0", "1": "0"})]
)
def test_each_actor_sees_its_gpus(
    data: Data, tmp_path: Path, each: float, expected: dict[str, str]
) -> None:
    class Notes(xgboost.callback.TrainingCallback):
        def before_training(self, model: Any) -> Any:
            rank = xgboost.collective.get_rank()
            (tmp_path / str(rank)).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
            return model

    skate.shutdown()
    with skate.init(num_cpus=2, num_gpus=2, engine="native"):
        train(
            {**PARAMS, "device": "cpu"},
            RayDMatrix(*data),
            2,
            callbacks=[Notes()],
            ray_params=RayParams(num_actors=2, gpus_per_actor=each),
        )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == expected


def test_a_model_that_was_trained_on_gpus_is_not_bound_to_one(
    data: Data, recwarn: pytest.WarningsRecorder
) -> None:
    # Without a GPU XGBoost warns, and goes on with CPUs: in the actor, not where the model is.
    x, y = data
    skate.shutdown()
    with skate.init(num_cpus=2, num_gpus=1, engine="native"):
        model = train({**PARAMS, "device": "cuda"}, RayDMatrix(x, y), 2)
    assert np.array_equal(margins(model, x), margins(plain(x, y, 2), x))
    assert not [
        str(warning.message) for warning in recwarn if "cuda" in str(warning.message).lower()
    ]


@pytest.mark.usefixtures("native")
def test_trees_are_updated_with_other_data(data: Data, tmp_path: Path) -> None:
    class Dies(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            marker = tmp_path / "died"
            if epoch == 4 and xgboost.collective.get_rank() == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    x, y = data
    first = plain(x, y, 6)
    params = {**PARAMS, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    expected = xgboost.train(params, xgboost.DMatrix(x, 1 - y), 6, xgb_model=first)

    def updated(actors: int, callbacks: list[Any]) -> xgboost.Booster:
        distribution = RayParams(num_actors=actors, checkpoint_frequency=2)
        return train(
            params,
            RayDMatrix(x, 1 - y),
            6,
            xgb_model=first,
            callbacks=callbacks,
            ray_params=distribution,
        )

    one, two, disturbed = updated(1, []), updated(2, []), updated(2, [Dies()])
    assert one.num_boosted_rounds() == two.num_boosted_rounds() == 6
    assert np.array_equal(margins(one, x), margins(expected, x))
    assert (tmp_path / "died").exists()
    assert np.array_equal(margins(disturbed, x), margins(two, x))
