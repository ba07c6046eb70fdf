"""Warm restarts and elastic training: who keeps what, who goes on, who joins."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sessions import at_hand
from xgboost import collective

from skate.xgboost import RayDMatrix, RayParams, session, train
from skate.xgboost.actor import IDLE_S
from skate.xgboost.callback import DistributedCallback
from skate.xgboost.cuts import Cuts

Data = tuple[Any, Any]

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": "logloss"}
ROUNDS = 16

pytestmark = [pytest.mark.usefixtures("native"), pytest.mark.timeout(120)]


class Witness(xgboost.callback.TrainingCallback):
    """Kills ranks after given rounds, once each, and notes who trains each round."""

    def __init__(self, folder: Path, deaths: dict[int, int]) -> None:
        self.folder, self.deaths = folder, deaths

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        rank = session.get_actor_rank()
        size = collective.get_world_size()
        (self.folder / f"{epoch:02}-{rank}-{os.getpid()}-{size}").touch()
        marker = self.folder / f"died-{rank}"
        if self.deaths.get(rank) == epoch and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    def processes(self, rank: int) -> set[str]:
        """Return the ids of the processes that have trained as a rank."""
        notes = [path.name.split("-") for path in self.folder.iterdir()]
        return {note[2] for note in notes if note[0] != "died" and note[1] == str(rank)}

    def sizes(self) -> list[set[int]]:
        """Return how many have taken part, by round; several numbers where it was repeated."""
        by_round: dict[int, set[int]] = {}
        for path in self.folder.iterdir():
            note = path.name.split("-")
            if note[0] != "died":
                by_round.setdefault(int(note[0]), set()).add(int(note[3]))
        return [by_round[index] for index in sorted(by_round)]


def run(data: Data, callback: Any = None, **params: Any) -> tuple[xgboost.Booster, Any, Any]:
    """Train; return the model, the scores and the additional results."""
    scores: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    dtrain = RayDMatrix(*data)
    model = train(
        PARAMS,
        dtrain,
        ROUNDS,
        evals=[(dtrain, "train")],
        evals_result=scores,
        additional_results=extra,
        verbose_eval=False,
        callbacks=[callback] if callback else None,
        ray_params=RayParams(**{"num_actors": 3, "checkpoint_frequency": 4, **params}),
    )
    return model, scores, extra


@pytest.fixture(scope="module")
def undisturbed(data: Data) -> tuple[bytes, Any]:
    """What a training makes in which nobody dies."""
    at_hand(num_cpus=2, engine="native", preload=["xgboost"])
    model, scores, _ = run(data)
    return bytes(model.save_raw()), scores


@pytest.mark.parametrize("seed", range(4))
def test_only_the_dead_are_replaced(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    deaths = {rank: dice.randrange(1, 15) for rank in dice.sample(range(3), dice.randint(1, 2))}
    witness = Witness(tmp_path, deaths)
    model, scores, extra = run(data, witness)
    assert bytes(model.save_raw()) == undisturbed[0]
    assert scores == undisturbed[1]
    assert {failure.rank for failure in extra["failures"]} == set(deaths)
    for rank in range(3):
        assert len(witness.processes(rank)) == 1 + (rank in deaths)


def test_two_that_die_together_count_once(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path
) -> None:
    model, scores, extra = run(data, Witness(tmp_path, {0: 6, 2: 6}), max_actor_restarts=2)
    assert (bytes(model.save_raw()), scores) == undisturbed
    assert len(extra["failures"]) == 2


def test_who_does_not_come_out_of_its_world_is_not_replaced(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path
) -> None:
    class Sleeper(Witness):
        """In the round in which rank 1 has died, another one is out of reach for long."""

        def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            marker = self.folder.parent / f"slept-{session.get_actor_rank()}"
            if epoch == 7 and session.get_actor_rank() == 2 and not marker.exists():
                marker.touch()
                time.sleep(IDLE_S + 1)
            return False

    folder = tmp_path / "notes"
    folder.mkdir()
    witness = Sleeper(folder, {1: 6})
    model, scores, _ = run(data, witness)
    assert (bytes(model.save_raw()), scores) == undisturbed
    assert len(witness.processes(2)) == 1


ELASTIC: dict[str, Any] = {"elastic_training": True, "max_failed_actors": 1}


def test_the_others_go_on_and_the_replacement_joins(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path
) -> None:
    class Patient(Witness):
        """A late round waits until rank 0 is asked to let the dead one join before the end."""

        def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            actor: Any = session._current()
            deadline = time.monotonic() + 60
            late = epoch == 13 and collective.get_world_size() == 2
            while late and actor.rank == 0 and not actor.wants_pause():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return False

    witness = Patient(tmp_path, {1: 5})
    model, scores, extra = run(data, witness, **ELASTIC)
    sizes = witness.sizes()
    assert len(sizes) == len(scores["train"]["logloss"]) == model.num_boosted_rounds() == ROUNDS
    assert any(2 in size for size in sizes)
    assert sizes[-1] == {3}
    assert [failure.rank for failure in extra["failures"]] == [1]
    assert len(witness.processes(0)) == len(witness.processes(2)) == 1
    assert scores["train"]["logloss"][-1] < undisturbed[1]["train"]["logloss"][-1] + 0.02


def test_more_missing_than_allowed_are_waited_for(data: Data, tmp_path: Path) -> None:
    witness = Witness(tmp_path, {0: 6, 2: 6})
    model, _, extra = run(data, witness, **ELASTIC)
    assert model.num_boosted_rounds() == ROUNDS
    assert {failure.rank for failure in extra["failures"]} == {0, 2}


@pytest.mark.parametrize("seed", range(20))
def test_bins_can_be_carried_to_another_actor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 2000))
    kinds = [
        rng.normal(size=rows) * 10.0 ** rng.integers(-3, 8),
        -np.abs(rng.normal(size=rows)),
        np.abs(rng.normal(size=rows)),
        rng.integers(-300, 300, rows).astype(float),
        np.full(rows, rng.normal()),
        np.full(rows, np.nan),
        np.zeros(rows),
    ]
    x = np.column_stack(kinds).astype(np.float32)
    x[rng.random(rows) < 0.3, 0] = np.nan
    bins = int(rng.choice([2, 16, 256]))
    whole = xgboost.QuantileDMatrix(x, x[:, 2], max_bin=bins)
    reference = Cuts.of(whole).reference(1)
    half = xgboost.QuantileDMatrix(x[::2], x[::2, 2], max_bin=bins, ref=reference)
    assert Cuts.of(half).same_as(Cuts.of(whole))


@pytest.mark.parametrize("ranks", [(0,), (1, 2)])
def test_deaths_while_loading(
    data: Data, undisturbed: tuple[bytes, Any], tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    class Killer(DistributedCallback):
        def before_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
            marker = tmp_path / str(actor.rank)
            if actor.rank in ranks and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    model, scores, extra = run(data, distributed_callbacks=[Killer()])
    assert (bytes(model.save_raw()), scores) == undisturbed
    assert sorted(failure.rank for failure in extra["failures"]) == list(ranks)


def test_matrices_without_bins_are_made_anew(data: Data, tmp_path: Path) -> None:
    first = train(PARAMS, RayDMatrix(*data), 2, ray_params=RayParams(num_actors=2))

    def goes_on(callbacks: list[Any]) -> bytes:
        model = train(
            PARAMS,
            RayDMatrix(*data),
            ROUNDS,
            xgb_model=first,
            callbacks=callbacks,
            ray_params=RayParams(num_actors=3, checkpoint_frequency=4),
        )
        return bytes(model.save_raw())

    assert goes_on([Witness(tmp_path, {1: 7})]) == goes_on([])
    assert (tmp_path / "died-1").exists()


def test_what_actors_say(data: Data, tmp_path: Path) -> None:
    class Hooks(DistributedCallback):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith(("on_stop", "before_train", "after_train")):
                return lambda actor, *_: session.put_queue(f"{name} {actor.rank}")
            return super().__getattribute__(name)

    class Caller(xgboost.callback.TrainingCallback):
        def before_training(self, model: Any) -> Any:
            assert session.get_rabit_rank() == session.get_actor_rank()
            if session.get_actor_rank() == 0:
                session.put_queue(lambda: (tmp_path / str(os.getpid())).touch())
            return model

    _, _, extra = run(data, Caller(), distributed_callbacks=[Hooks()], num_actors=2)
    for rank in range(2):
        assert extra["callback_returns"][rank] == [
            f"{name} {rank}" for name in ("before_train", "after_train", "on_stop")
        ]
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]
    with pytest.raises(RuntimeError, match="where an actor trains"):
        session.put_queue(1)
