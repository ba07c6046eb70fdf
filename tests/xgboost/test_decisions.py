"""The plain classes: restarts, scores, resources."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from skate.xgboost import RayParams, TrainingFailedError
from skate.xgboost.messages import Checkpoint, Scores
from skate.xgboost.params import ray_params, resolve
from skate.xgboost.progress import ProgressLines
from skate.xgboost.restarts import RestartPolicy
from skate.xgboost.scores import ScoreLog


class TestRestartPolicy:
    def test_gives_up_with_the_history_after_the_last_restart(self) -> None:
        policy = RestartPolicy(allowed=1)
        policy.on_death(0, 3, "killed by SIGKILL")
        policy.checkpoint = Checkpoint(5, b"", {}, None)
        with pytest.raises(TrainingFailedError) as caught:
            policy.on_death(1, 7, "exited with code 3")
        message = str(caught.value)
        assert "allows 1 restarts" in message
        assert "attempt 1: the training actor of rank 0 died after 3 rounds" in message
        assert "died after 7 rounds, 5 of them in a checkpoint: exited with code 3" in message
        assert [failure.rank for failure in caught.value.failures] == [0, 1]

    def test_no_limit(self) -> None:
        policy = RestartPolicy(allowed=-1)
        for _ in range(100):
            policy.on_death(0, 0, "killed by SIGKILL")
        assert len(policy.failures) == 100

    def test_deaths_at_the_same_time_count_once(self) -> None:
        policy = RestartPolicy(allowed=1)
        policy.on_death(0, 3, "killed by SIGKILL")
        policy.on_death(2, 3, "killed by SIGKILL", together=True)
        assert policy.restarts == 1
        assert [failure.attempt for failure in policy.failures] == [0, 0]
        with pytest.raises(TrainingFailedError):
            policy.on_death(2, 3, "killed by SIGKILL")

    def test_goes_on_without_some_once_it_has_started(self) -> None:
        policy = RestartPolicy(allowed=1, may_miss=2)
        assert [policy.goes_on_without(n, started=True) for n in range(4)] == [
            *(False, True, True, False)
        ]
        assert not policy.goes_on_without(1, started=False)
        assert not RestartPolicy(allowed=1).goes_on_without(1, started=True)

    def test_no_restart(self) -> None:
        with pytest.raises(TrainingFailedError):
            RestartPolicy(allowed=0).on_death(0, 0, "killed by SIGKILL")


def scores(value: float) -> Scores:
    return {"eval": {"logloss": value}}


class TestScoreLog:
    def test_rounds_that_a_restart_repeats_are_announced_once(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        reported: list[int] = []
        log = ScoreLog(1, lambda rounds, *_: reported.append(rounds))
        for index in range(7):
            log.add(index, scores(index))
        log.rewind(5)
        assert log.history == {"eval": {"logloss": [0, 1, 2, 3, 4]}}
        for index in range(5, 9):
            log.add(index, scores(index))
        log.finish()
        assert log.history == {"eval": {"logloss": list(range(9))}}
        assert reported == list(range(1, 10))
        assert capsys.readouterr().out.splitlines() == [
            f"[{index}]\teval-logloss:{index:.5f}" for index in range(9)
        ]

    def test_prints_every_so_many_rounds_and_the_last(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = ScoreLog(4, None)
        for index in range(6):
            log.add(index, scores(0.25))
        log.finish()
        printed = capsys.readouterr().out.splitlines()
        assert [line.partition("\t")[0] for line in printed] == ["[0]", "[4]", "[5]"]

    def test_prints_nothing_without_a_period(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = ScoreLog(0, None)
        log.add(0, scores(1))
        log.finish()
        assert capsys.readouterr().out == ""


class TestRayParams:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"num_actors": -1},
            {"num_actors": 1.5},
            {"num_actors": True},
            {"cpus_per_actor": -2},
            {"cpus_per_actor": float("nan")},
            {"cpus_per_actor": "all"},
            {"max_actor_restarts": -2},
            {"checkpoint_frequency": -1},
            {"resources_per_actor": [1]},
            {"resources_per_actor": {"slot": "one"}},
            {"resources_per_actor": {"slot": -1}},
            {"elastic_training": "yes"},
            {"distributed_callbacks": 3},
            {"gpus_per_actor": -0.5},
        ],
    )
    def test_refuses_what_cannot_be(self, wrong: Mapping[str, object]) -> None:
        (name,) = wrong
        with pytest.raises((TypeError, ValueError), match=name):
            RayParams(**wrong)  # type: ignore[arg-type]  # wrong on purpose

    @pytest.mark.parametrize("zero", ["max_failed_actors", "max_actor_restarts"])
    def test_elastic_training_needs_something_to_be_elastic_with(self, zero: str) -> None:
        given = {"max_failed_actors": 1, "max_actor_restarts": 1, zero: 0}
        with pytest.raises(ValueError, match=zero):
            RayParams(num_actors=2, elastic_training=True, **given)  # type: ignore[arg-type]

    def test_takes_the_numbers_of_numpy(self) -> None:
        np = pytest.importorskip("numpy")
        given = {"num_actors": np.int64(3), "cpus_per_actor": np.float32(1)}
        assert ray_params(given) == RayParams(num_actors=3, cpus_per_actor=1)

    def test_may_be_a_dict(self) -> None:
        assert ray_params({"num_actors": 3}) == RayParams(num_actors=3)
        assert ray_params(None) == RayParams()
        with pytest.raises(TypeError, match="num_actors"):
            ray_params({"actors": 3})
        with pytest.raises(TypeError, match="ray_params"):
            ray_params(3)  # type: ignore[arg-type]  # wrong on purpose

    @pytest.mark.usefixtures("inline")
    def test_cpus_are_shared_evenly(self) -> None:
        def cpus(actors: int, in_trial: bool = False) -> float:
            return resolve(RayParams(num_actors=actors), {}, in_trial=in_trial).cpus

        assert [cpus(0), cpus(1), cpus(2), cpus(3)] == [2, 2, 1, 0.6666]
        assert cpus(1, in_trial=True) == 1

    @pytest.mark.usefixtures("inline")
    def test_gpus_follow_the_device(self) -> None:
        assert resolve(RayParams(), {"device": "cuda"}, in_trial=False).gpus == 1
        assert resolve(RayParams(), {"device": "cpu"}, in_trial=False).gpus == 0
        assert resolve(RayParams(gpus_per_actor=2), {}, in_trial=False).gpus == 2
        half = RayParams(num_actors=1, gpus_per_actor=0.5)
        assert resolve(half, {"device": "cuda:0"}, in_trial=False).gpus == 0.5

    @pytest.mark.usefixtures("inline")
    @pytest.mark.parametrize("each", [0, 0.5])
    def test_actors_that_train_together_do_not_share_a_gpu(self, each: float) -> None:
        with pytest.raises(ValueError, match="NCCL"):
            resolve(
                RayParams(num_actors=2, gpus_per_actor=each), {"device": "cuda"}, in_trial=False
            )

    @pytest.mark.usefixtures("inline")
    @pytest.mark.parametrize(("device", "each"), [("cuda:1", -1), ("cuda:1", 0.5), ("gpu:2", 2)])
    def test_an_actor_does_not_use_the_gpus_of_others(self, device: str, each: float) -> None:
        with pytest.raises(ValueError, match=f"device='{device}': an actor sees"):
            resolve(RayParams(gpus_per_actor=each), {"device": device}, in_trial=False)
        two = RayParams(gpus_per_actor=2)
        assert resolve(two, {"device": "cuda:1"}, in_trial=False).gpus == 2

    @pytest.mark.usefixtures("inline")
    def test_trials_reserve_for_the_actors_only(self) -> None:
        needs = RayParams(num_actors=2, resources_per_actor={"slot": 1}).get_tune_resources()
        assert needs.bundles == [{}, {"CPU": 1, "slot": 1}, {"CPU": 1, "slot": 1}]


class TestProgressLines:
    def test_shows_rounds_and_what_is_left(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        lines = ProgressLines(True, 4, 100, clock=lambda: now)
        lines.loading(0)
        now = 6
        lines.loading(3)
        now = 10
        lines.training(0, 4)
        now = 20
        lines.training(20, 3)
        now = 21
        lines.training(21, 3)
        assert capsys.readouterr().out.splitlines() == [
            "xgboost: 3 of 4 actors have loaded",
            "xgboost: 20 of 100 rounds, 0.5 s each, about 40 s to go, 3 of 4 actors",
        ]

    @pytest.mark.parametrize("verbose", [None, False])  # standard output is no terminal in a test
    def test_says_nothing_where_nobody_looks(
        self, verbose: bool | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        times = itertools.count(0, 100)
        lines = ProgressLines(verbose, 4, 100, clock=lambda: next(times))
        lines.loading(3)
        lines.training(50, 4)
        assert capsys.readouterr().out == ""
