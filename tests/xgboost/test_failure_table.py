"""Who dies when: one, the first, all at once, the one that replaces another; warm and elastic."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xgboost
from patience import until
from sessions import running

import skate
from skate import state
from skate.xgboost import RayDMatrix, RayParams, TrainingFailedError, session, train
from skate.xgboost.callback import DistributedCallback

Data = tuple[Any, Any]
#: Ranks, each with the moment at which it dies.
Plan = Sequence[tuple[int, str]]

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": "logloss"}
ROUNDS = 12
RANKS = (0, 1, 2)
WARM: dict[str, Any] = {}
#: Any number may be missing: more than there are, even.
ELASTIC: dict[str, Any] = {"elastic_training": True, "max_failed_actors": 5}

pytestmark = [pytest.mark.usefixtures("three_cpus"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def three_cpus() -> Iterator[None]:
    """A session with a CPU for each rank."""
    with running(num_cpus=3, engine="native", preload=["xgboost"]):
        yield


class Deaths:
    """Kills each rank of a plan at its moment, once."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def strike(self, moment: str) -> None:
        """Die if the plan says so."""
        rank = int(os.environ.get("RANK_OF_TEST", "-1"))
        marker = self.folder / f"{rank} {moment}"
        if (rank, moment) in self.plan and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "again" not in moment and any(self.folder.glob(f"{rank} *")):
            self.strike(f"{moment} again")


class InRounds(xgboost.callback.TrainingCallback):
    """Moments of the boosting loop."""

    def __init__(self, deaths: Deaths) -> None:
        self.deaths = deaths

    def before_training(self, model: Any) -> Any:
        self.deaths.strike("start")
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.deaths.strike(f"before {epoch}")
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.deaths.strike(f"after {epoch}")
        return False


class Around(DistributedCallback):
    """Moments before the boosting loop."""

    def __init__(self, deaths: Deaths) -> None:
        self.deaths = deaths

    def before_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
        os.environ["RANK_OF_TEST"] = str(actor.rank)
        self.deaths.strike("loading")

    def after_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
        self.deaths.strike("loaded")

    def before_train(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        self.deaths.strike("joined")


class Weights:
    """Weights of features that XGBoost looks at while all actors find the bins together."""

    def __init__(self, deaths: Deaths, columns: int) -> None:
        self.deaths, self.columns = deaths, columns

    def __len__(self) -> int:
        return self.columns

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.deaths.strike("bins")
        return np.ones(self.columns, np.float32)


def run(data: Data, folder: Path, plan: Plan, **params: Any) -> tuple[bytes, Any, Any]:
    """Train; return the model, the scores and the additional results."""
    deaths = Deaths(folder, plan)
    scores: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    dtrain = RayDMatrix(*data, feature_weights=Weights(deaths, data[0].shape[1]))
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=scores,
        additional_results=extra,
        verbose_eval=False,
        callbacks=[InRounds(deaths)],
        ray_params=RayParams(
            **{
                "num_actors": 3,
                "checkpoint_frequency": 5,
                "max_actor_restarts": 10,
                "distributed_callbacks": [Around(deaths)],
                **params,
            }
        ),
    )
    return bytes(model.save_raw()), scores, extra


@pytest.fixture(scope="module")
def undisturbed(
    data: Data, three_cpus: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, Any]:
    """What a training makes in which nobody dies."""
    model, scores, _ = run(data, tmp_path_factory.mktemp("nobody"), [])
    return model, scores


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Whatever happened: no actor, no placement group, no object, and all CPUs are free.

    Without the help of the garbage collector: it may not look for a long time.
    """
    gc.collect()
    gc.disable()
    try:
        yield
        until(lambda: skate.available_resources().get("CPU") == 3)
        until(lambda: not [each for each in state.list_actors() if each.state != "DEAD"])
        until(
            lambda: not [each for each in state.list_placement_groups() if each.state != "REMOVED"]
        )
        until(lambda: not state.list_objects())
    finally:
        gc.enable()


def check(model: bytes, scores: Any, undisturbed: tuple[bytes, Any], mode: dict[str, Any]) -> None:
    """A warm restart changes nothing; an elastic training is as good, and complete."""
    if mode is WARM:
        assert model == undisturbed[0]
        assert scores == undisturbed[1]
    assert xgboost.Booster(model_file=bytearray(model)).num_boosted_rounds() == ROUNDS
    losses, expected = scores["train"]["logloss"], undisturbed[1]["train"]["logloss"]
    assert len(losses) == ROUNDS
    assert losses[-1] < expected[-1] + 0.03


@pytest.mark.parametrize("mode", [WARM, ELASTIC], ids=["warm", "elastic"])
@pytest.mark.parametrize("ranks", [(0,), (2,), RANKS], ids=str)
@pytest.mark.parametrize(
    "moment",
    ["loading", "bins", "joined", "start", "after 0", "before 7", "after 11"],
)
def test_deaths(
    data: Data,
    undisturbed: tuple[bytes, Any],
    tmp_path: Path,
    moment: str,
    ranks: tuple[int, ...],
    mode: dict[str, Any],
) -> None:
    model, scores, extra = run(data, tmp_path, [(rank, moment) for rank in ranks], **mode)
    check(model, scores, undisturbed, mode)
    dead = {failure.rank for failure in extra["failures"]}
    # Rank 0 may be done, or dead, and the others be ended with it, before they come to die.
    assert dead <= set(ranks)
    assert dead or (moment == "after 11" and 0 not in ranks)
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [WARM, ELASTIC], ids=["warm", "elastic"])
@pytest.mark.parametrize("moment", ["loading", "loaded", "joined"])
@pytest.mark.parametrize("rank", [0, 1])
def test_who_replaces_another_dies_too(
    data: Data,
    undisturbed: tuple[bytes, Any],
    tmp_path: Path,
    rank: int,
    moment: str,
    mode: dict[str, Any],
) -> None:
    plan = [(rank, "after 2"), (rank, f"{moment} again")]
    model, scores, extra = run(data, tmp_path, plan, **mode)
    check(model, scores, undisturbed, mode)
    if mode is WARM:
        assert [failure.rank for failure in extra["failures"]] == [rank, rank]


@pytest.mark.parametrize("seed", range(6))
def test_many_deaths_wherever_the_dice_say(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    moments = ["loading", "bins", "joined", "start", *(f"after {index}" for index in range(11))]
    moments += [f"{moment} again" for moment in moments]
    plan = [(rank, moment) for rank in RANKS for moment in dice.sample(moments, 3)]
    mode = WARM if seed % 2 else ELASTIC
    model, scores, _ = run(data, tmp_path, plan, **mode)
    check(model, scores, undisturbed, mode)


@pytest.mark.parametrize("mode", [WARM, ELASTIC], ids=["warm", "elastic"])
def test_more_than_allowed_end_with_their_history(
    data: Data, tmp_path: Path, mode: dict[str, Any]
) -> None:
    plan = [(0, "after 2"), (1, "after 4"), (2, "after 6")]
    with pytest.raises(TrainingFailedError, match="allows 2 restarts") as caught:
        run(data, tmp_path, plan, **{**mode, "max_actor_restarts": 2})
    failures = caught.value.failures
    del caught  # and what its traceback holds
    assert [failure.rank for failure in failures] == [0, 1, 2]
    assert all("SIGKILL" in failure.cause for failure in failures)


@pytest.mark.parametrize("method", ["before_training", "after_iteration"])
def test_an_exception_of_the_user_does_not_hold_the_data(
    data: Data, tmp_path: Path, method: str
) -> None:
    class Raises(xgboost.callback.TrainingCallback):
        def __getattribute__(self, name: str) -> Any:
            if name == method:
                raise LookupError(name)
            return super().__getattribute__(name)

    with contextlib.suppress(LookupError):
        train(PARAMS, RayDMatrix(*data), callbacks=[Raises()], ray_params=RayParams(num_actors=3))
        pytest.fail("it did not raise")


class Stops(InRounds):
    """Stops the process of rank 1 once, as Ctrl-Z would."""

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        marker = self.deaths.folder / "stopped"
        if epoch == 6 and session.get_actor_rank() == 1 and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return False


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_an_actor_that_is_stopped(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path, end: signal.Signals
) -> None:
    def stopped() -> psutil.Process | None:
        marker = tmp_path / "stopped"
        if not marker.exists() or not marker.read_text():
            return None
        process = psutil.Process(int(marker.read_text()))
        return process if process.status() == psutil.STATUS_STOPPED else None

    def wake() -> None:
        process = until(stopped)
        assert process is not None
        process.send_signal(end)

    thread = threading.Thread(target=wake, daemon=True)
    thread.start()
    dtrain = RayDMatrix(*data)
    scores: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=scores,
        additional_results=extra,
        verbose_eval=False,
        callbacks=[Stops(Deaths(tmp_path, []))],
        ray_params=RayParams(num_actors=3),
    )
    thread.join(timeout=20)
    assert scores == undisturbed[1]
    assert len(extra["failures"]) == (end is signal.SIGKILL)
    assert model.num_boosted_rounds() == ROUNDS
