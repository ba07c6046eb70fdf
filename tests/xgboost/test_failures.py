"""Actors die at all moments; the model is the one of a training without deaths."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import xgboost
from sessions import at_hand
from xgboost import collective

import skate
from skate.xgboost import RayDMatrix, RayParams, TrainingFailedError, attempts, predict, train

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": "logloss"}
ROUNDS = 12
TWO = RayParams(num_actors=2, checkpoint_frequency=5)

pytestmark = pytest.mark.usefixtures("native")


class Killer(xgboost.callback.TrainingCallback):
    """Kills the process of a rank with SIGKILL at a given moment, ``times`` times."""

    def __init__(self, folder: Path, moment: str, rank: int, times: int = 1) -> None:
        self.folder, self.moment, self.rank, self.times = folder, moment, rank, times

    def strike(self, moment: str) -> None:
        """Die if this is the moment and there were not enough deaths yet."""
        if moment != self.moment or collective.get_rank() != self.rank:
            return
        number = len(list(self.folder.iterdir()))
        if number < self.times:
            (self.folder / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def before_training(self, model: Any) -> Any:
        self.strike("start")
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.strike(f"before {epoch}")
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        # History and rounds have to fit together after a restart, too.
        assert len(evals_log["train"]["logloss"]) == epoch + 1
        assert model.num_boosted_rounds() == epoch + 1
        self.strike(f"after {epoch}")
        return False

    def after_training(self, model: Any) -> Any:
        self.strike("end")
        return model


@pytest.fixture(scope="module")
def undisturbed(data: Data) -> tuple[bytes, dict[str, Any]]:
    """The model and scores of a training in which nobody dies."""
    at_hand(num_cpus=2, engine="native", preload=["xgboost"])
    dtrain, result = RayDMatrix(*data), {}  # type: tuple[RayDMatrix, dict[str, Any]]
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=result,
        verbose_eval=False,
        ray_params=TWO,
    )
    return bytes(model.save_raw()), result


@pytest.fixture(autouse=True)
def everything_is_given_back() -> Iterator[None]:
    """Whatever happened, the CPUs are free again afterwards."""
    yield
    deadline = time.monotonic() + 20
    while skate.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, skate.available_resources()
        time.sleep(0.02)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("moment", "resumed_from"),
    [
        ("start", 0),
        ("before 0", 0),
        ("after 0", 0),
        ("before 7", 5),
        ("after 11", 10),
    ],
)
def test_a_death_changes_nothing(
    data: Data,
    undisturbed: tuple[bytes, dict[str, Any]],
    tmp_path: Path,
    rank: int,
    moment: str,
    resumed_from: int,
) -> None:
    dtrain = RayDMatrix(*data)
    result: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=result,
        additional_results=extra,
        verbose_eval=False,
        callbacks=[Killer(tmp_path, moment, rank)],
        ray_params=TWO,
    )
    assert bytes(model.save_raw()) == undisturbed[0]
    assert result == undisturbed[1]
    assert list(tmp_path.iterdir())
    if (moment, rank) == ("after 11", 1) and not extra["failures"]:
        return  # rank 0 had the complete model before rank 1 died
    (failure,) = extra["failures"]
    assert failure.rank == rank
    # The last news of a process that is killed may be lost with it.
    assert failure.resumed_from in (0, 5, resumed_from)
    assert failure.resumed_from <= resumed_from
    assert "SIGKILL" in failure.cause


def test_a_death_in_evaluation(data: Data, tmp_path: Path) -> None:
    dtrain = RayDMatrix(*data)
    marker = tmp_path / "died"

    def metric(margin: Any, matrix: xgboost.DMatrix) -> tuple[str, float]:
        if collective.get_rank() == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "zero", 0.0

    result: dict[str, Any] = {}
    train(
        PARAMS,
        dtrain,
        4,
        custom_metric=metric,
        evals=[(dtrain, "train")],
        evals_result=result,
        verbose_eval=False,
        ray_params=TWO,
    )
    assert marker.exists()
    assert result["train"]["zero"] == [0.0] * 4


def test_early_stopping_goes_on_where_it_was(data: Data, tmp_path: Path) -> None:
    x, y = data
    params = {**PARAMS, "max_depth": 8, "learning_rate": 0.4}
    dtrain, deval = RayDMatrix(x[:1200], y[:1200]), RayDMatrix(x[1200:], y[1200:])

    def run(callbacks: list[Any]) -> tuple[xgboost.Booster, dict[str, Any]]:
        result: dict[str, Any] = {}
        model = train(
            params,
            dtrain,
            200,
            evals=[(dtrain, "train"), (deval, "eval")],
            early_stopping_rounds=8,
            evals_result=result,
            verbose_eval=False,
            callbacks=callbacks,
            ray_params=RayParams(num_actors=2, checkpoint_frequency=2),
        )
        return model, result

    expected, scores = run([])
    rounds = expected.num_boosted_rounds()
    # In the middle of the rounds without improvement.
    model, result = run([Killer(tmp_path, f"after {rounds - 4}", 1)])
    assert list(tmp_path.iterdir())
    assert model.save_raw() == expected.save_raw()
    assert model.best_iteration == expected.best_iteration
    assert result == scores


def test_too_many_deaths_end_with_their_history(data: Data, tmp_path: Path) -> None:
    dtrain = RayDMatrix(*data)
    with pytest.raises(TrainingFailedError) as caught:
        train(
            PARAMS,
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            verbose_eval=False,
            callbacks=[Killer(tmp_path, "after 6", 1, times=10)],
            ray_params=RayParams(num_actors=2, max_actor_restarts=2, checkpoint_frequency=3),
        )
    assert len(caught.value.failures) == 3
    assert [failure.attempt for failure in caught.value.failures] == [0, 1, 2]
    assert str(caught.value).count("killed by SIGKILL") == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_without_restarts_the_first_death_ends_it(data: Data, tmp_path: Path) -> None:
    dtrain = RayDMatrix(*data)
    with pytest.raises(TrainingFailedError, match="allows 0 restarts"):
        train(
            PARAMS,
            dtrain,
            ROUNDS,
            evals=[(dtrain, "train")],
            verbose_eval=False,
            callbacks=[Killer(tmp_path, "before 2", 0)],
            ray_params=RayParams(num_actors=2, max_actor_restarts=0),
        )


@pytest.mark.parametrize("ranks", [(1,), (0,), (0, 1)])
def test_an_exception_of_the_user_ends_the_training_at_once(
    data: Data, ranks: tuple[int, ...]
) -> None:
    def objective(margin: Any, matrix: xgboost.DMatrix) -> tuple[Any, Any]:
        if collective.get_rank() in ranks:
            raise KeyError("no such thing")
        return margin - matrix.get_label(), margin * 0 + 1

    started = time.monotonic()
    with pytest.raises(KeyError, match="no such thing"):
        train({}, RayDMatrix(*data), ROUNDS, obj=objective, ray_params=TWO)
    assert time.monotonic() - started < 30


def test_an_error_of_xgboost_arrives(data: Data) -> None:
    with pytest.raises(xgboost.core.XGBoostError, match="no_such_objective"):
        train({"objective": "no_such_objective"}, RayDMatrix(*data), 3, ray_params=TWO)


def workers() -> list[psutil.Process]:
    """Return the worker processes of this session."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name() == "skate-worker":
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def in_background(work: Callable[[], None]) -> threading.Thread:
    """Run ``work`` in a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(6))
def test_random_kills(data: Data, undisturbed: tuple[bytes, dict[str, Any]], seed: int) -> None:
    """While starting, loading, joining, training: wherever the dice say."""
    dice = random.Random(seed)
    stop = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 3 and not stop.wait(dice.uniform(0.0, 0.3)):
            if found := workers():
                victim = dice.choice(found)
                victim.kill()
                killed.append(victim.pid)

    thread = in_background(kill)
    dtrain = RayDMatrix(*data)
    result: dict[str, Any] = {}
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=result,
        verbose_eval=False,
        ray_params=RayParams(num_actors=2, checkpoint_frequency=1, max_actor_restarts=-1),
    )
    stop.set()
    thread.join(timeout=10)
    assert bytes(model.save_raw()) == undisturbed[0]
    assert result == undisturbed[1]


def test_prediction_survives_a_kill(data: Data) -> None:
    x, y = data
    model = xgboost.train(PARAMS, xgboost.DMatrix(x, y), 5)
    victims: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 10
        while not victims and time.monotonic() < deadline:
            for process in workers()[:1]:
                process.kill()
                victims.append(process.pid)
            time.sleep(0.001)

    thread = in_background(kill)
    predicted = predict(model, RayDMatrix(x), ray_params=TWO)
    thread.join(timeout=15)
    assert (predicted == model.predict(xgboost.DMatrix(x))).all()


def test_two_trainings_on_the_cpus_of_one(data: Data) -> None:
    """Each gets all of its actors or none, so neither waits for the other for ever."""

    @skate.remote(num_cpus=0)
    def one(matrix: RayDMatrix) -> int:
        return train(PARAMS, matrix, 3, ray_params=TWO).num_boosted_rounds()

    dtrain = RayDMatrix(*data)
    assert skate.get([one.remote(dtrain) for _ in range(4)], timeout=50) == [3] * 4


def test_threads_of_one_process_train_at_the_same_time(data: Data) -> None:
    dtrain = RayDMatrix(*data)
    rounds: list[int] = []

    def one() -> None:
        rounds.append(train(PARAMS, dtrain, 3, ray_params=TWO).num_boosted_rounds())

    threads = [in_background(one) for _ in range(3)]
    for thread in threads:
        thread.join(timeout=50)
    assert rounds == [3, 3, 3]


def test_predictions_on_the_cpus_of_one(data: Data) -> None:
    x, y = data
    model = xgboost.train(PARAMS, xgboost.DMatrix(x, y), 2)
    matrix = RayDMatrix(x)
    shapes: list[Any] = []
    threads = [
        in_background(lambda: shapes.append(predict(model, matrix, TWO).shape)) for _ in range(4)
    ]
    for thread in threads:
        thread.join(timeout=50)
    assert shapes == [(len(y),)] * 4


def test_a_training_that_waits_for_cpus_says_so(
    data: Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @skate.remote(num_cpus=1)
    class Holder:
        def hold(self) -> None:
            """Nothing: being there is enough."""

    holder = Holder.remote()
    skate.get(holder.hold.remote(), timeout=20)
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.1)
    rounds: list[int] = []
    thread = in_background(
        lambda: rounds.append(
            train(PARAMS, RayDMatrix(*data), 2, ray_params=TWO).num_boosted_rounds()
        )
    )
    deadline = time.monotonic() + 20
    while "need {'CPU': 2.0}; free are {'CPU': 1" not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.01)
    assert not rounds
    skate.kill(holder)
    thread.join(timeout=30)
    assert rounds == [2]


def test_ctrl_c_ends_the_actors(data: Data, tmp_path: Path) -> None:
    class Announcer(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            (tmp_path / "trains").touch()
            return False

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / "trains").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    thread = in_background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(PARAMS, RayDMatrix(*data), 1_000_000, callbacks=[Announcer()], ray_params=TWO)
    thread.join(timeout=5)
