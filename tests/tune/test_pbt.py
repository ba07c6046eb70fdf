"""Population Based Training: who takes over whom, with what, and when."""

from __future__ import annotations

import collections
import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from climbing import climb
from scheduler_board import Board

from skate import tune
from skate.tune.error import MetricError, TuneError
from skate.tune.schedulers import PopulationBasedTraining, TrialScheduler
from skate.tune.schedulers.explore import explore
from skate.tune.schedulers.trial_scheduler import Exploit
from skate.tune.search.optuna import OptunaSearch

GO, PAUSE = TrialScheduler.CONTINUE, TrialScheduler.PAUSE


def make(**options: Any) -> PopulationBasedTraining:
    options = {
        "time_attr": "training_iteration",
        "perturbation_interval": 4,
        "hyperparam_mutations": {"x": tune.uniform(0, 1)},
        **options,
    }
    return PopulationBasedTraining(**options)


def population(scheduler: PopulationBasedTraining, size: int = 8) -> Board:
    board = Board(scheduler, total=size)
    for number in range(size):
        board.add(x=number / size)
    return board


def test_the_worst_quarter_goes_on_as_changed_copies_of_the_best() -> None:
    board = population(make())
    verdicts = [board.report(t, 4, score) for score, t in enumerate(board.trials)]
    # Scores rise: each is the best so far when it is judged.
    assert verdicts == [GO] * 8
    assert board.scheduler.quantiles() == (["t0", "t1"], ["t6", "t7"])
    worst = board.report(board.trials[0], 8, -1.0)
    assert isinstance(worst, Exploit)
    assert worst.source.trial_id in ("t6", "t7")
    assert worst.config["x"] != worst.source.config["x"]
    # The second worst is judged with the score that the first has not improved yet.
    assert isinstance(board.report(board.trials[1], 8, 0.5), Exploit)
    assert board.report(board.trials[2], 8, 2.0) == GO
    assert board.report(board.trials[7], 8, 9.0) == GO


def test_trials_wait_at_the_perturbation_interval_and_not_before_burn_in() -> None:
    board = population(make(burn_in_period=6))
    trial = board.trials[0]
    assert board.scheduler.next_decision(trial) == {"training_iteration": 6}
    assert board.report(trial, 5, 0.0) == GO
    assert board.scheduler.next_decision(trial) == {"training_iteration": 6}
    assert board.report(trial, 6, 0.0) == GO
    assert board.scheduler.next_decision(trial) == {"training_iteration": 10}


def test_a_clone_is_judged_one_interval_after_its_checkpoint() -> None:
    board = population(make(), 2)
    bad, good = board.trials
    board.report(good, 6, 1.0)
    assert isinstance(board.report(bad, 4, 0.0), Exploit)
    assert board.scheduler.next_decision(bad) == {"training_iteration": 10}


def test_quantiles_of_small_populations() -> None:
    for size, bad in ((1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (9, 3)):
        board = population(make(), size)
        for score, trial in enumerate(board.trials):
            board.report(trial, 4, score)
        worst, best = board.scheduler.quantiles()
        assert (len(worst), len(best)) == (bad, bad)
        assert not set(worst) & set(best)


def test_those_that_ended_are_no_models() -> None:
    board = population(make(), 4)
    for score, trial in enumerate(board.trials):
        board.report(trial, 4, score)
    board.end(board.trials[3])
    exploit = board.report(board.trials[0], 8, -1.0)
    assert isinstance(exploit, Exploit)
    assert exploit.source is board.trials[2]


def test_explore_has_the_distribution_of_the_paper() -> None:
    rng = random.Random(1)
    ways = {
        "lr": tune.loguniform(1e-4, 1.0),
        "layers": [1, 2, 4, 8],
        "act": tune.choice(["relu", "tanh"]),
        "nested": {"n": tune.randint(1, 1000)},
        "own": lambda: 7.0,
    }
    config = {"lr": 0.01, "layers": 1, "act": "relu", "nested": {"n": 100}, "own": 1.0, "fix": 3}
    before = copy.deepcopy(config)
    seen: dict[str, collections.Counter[Any]] = collections.defaultdict(collections.Counter)
    for _ in range(4000):
        new = explore(config, ways, 0.25, (1.2, 0.8), rng)
        assert new["fix"] == 3
        for name, value in {**new, "nested": new["nested"]["n"]}.items():
            seen[name][value] += 1
    assert config == before

    def share(name: str, value: Any) -> float:
        return seen[name][value] / 4000

    # A quarter is drawn anew, the rest is multiplied by 1.2 or 0.8 with even chances.
    assert share("lr", 0.01 * 1.2) == pytest.approx(0.375, abs=0.04)
    assert share("lr", 0.01 * 0.8) == pytest.approx(0.375, abs=0.04)
    assert share("own", 7.0) == pytest.approx(0.25, abs=0.04)
    # Integers stay integers.
    assert share("nested", 120) == pytest.approx(0.375, abs=0.04)
    assert share("nested", 80) == pytest.approx(0.375, abs=0.04)
    # Neighbours in the list; at its end, half of the moves stay.
    assert share("layers", 1) == pytest.approx(0.375 + 0.0625, abs=0.04)
    assert share("layers", 2) == pytest.approx(0.375 + 0.0625, abs=0.04)
    assert share("layers", 8) == pytest.approx(0.0625, abs=0.03)
    assert share("act", "tanh") == pytest.approx(0.5, abs=0.04)


def test_values_that_are_not_in_the_list_are_drawn_anew() -> None:
    drawn = {explore({"x": 5}, {"x": [1, 2]}, 0, (1.2,), random.Random(s))["x"] for s in range(9)}
    assert drawn == {1, 2}


def test_what_the_space_lacks_is_drawn() -> None:
    random.seed(3)
    mutations = {"lr": tune.uniform(0, 1), "opt": {"momentum": [0.5, 0.9]}, "x": [1]}
    board = Board(make(hyperparam_mutations=mutations))
    trial = board.add(x=4)
    assert trial.config["x"] == 4
    assert 0 <= trial.config["lr"] <= 1
    assert trial.config["opt"]["momentum"] in (0.5, 0.9)
    assert set(trial.evaluated_params) == {"lr", "opt/momentum"}


def test_the_users_explore_function_has_the_last_word() -> None:
    def clip(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "x": -5.0}

    board = population(make(custom_explore_fn=clip), 2)
    board.report(board.trials[1], 4, 1.0)
    exploit = board.report(board.trials[0], 4, 0.0)
    assert isinstance(exploit, Exploit)
    assert exploit.config == {"x": -5.0}
    board = population(make(custom_explore_fn=lambda config: None), 2)
    board.report(board.trials[1], 4, 1.0)
    with pytest.raises(TypeError, match="has to return the configuration"):
        board.report(board.trials[0], 4, 0.0)


def test_with_fewer_slots_trials_take_turns() -> None:
    board = Board(make(), total=3)
    first, second = board.add(x=0.1), board.add(x=0.2)
    assert board.report(first, 4, 1.0) == PAUSE  # the third has not been made
    third = board.add(runs=False, x=0.3)
    assert board.next() is third
    third.status = third.RUNNING
    assert board.report(second, 4, 2.0) == PAUSE
    assert board.next() is first
    # Bad ones change while they are paused.
    assert board.report(third, 4, 0.0) == PAUSE
    assert third.checkpoint is second.checkpoint


def test_who_is_set_back_to_where_the_others_are_comes_after_them() -> None:
    """Otherwise the worst one is run, judged and set back for ever."""
    board = Board(make(), total=3)
    first, second, third = (board.add(runs=False, x=x) for x in (0.1, 0.2, 0.3))
    for score, trial in enumerate((first, second, third)):
        assert board.next() is trial
        assert board.report(trial, 4, score) == PAUSE or trial is third
    third.status = third.PAUSED
    assert board.next() is first
    assert board.report(first, 8, 0.0) == PAUSE
    assert first.checkpoint is third.checkpoint
    assert board.next() is second


def test_all_meet_when_synchronous() -> None:
    board = population(make(synch=True), 4)
    for score, trial in enumerate(board.trials[:3]):
        assert board.scheduler.next_decision(trial) == {"training_iteration": 4}
        assert board.report(trial, 4, score) == PAUSE
    assert board.next() is None  # they wait
    configs = [trial.config for trial in board.trials]
    assert board.report(board.trials[3], 5, 3.0) == PAUSE
    assert [t.config is c for t, c in zip(board.trials, configs, strict=True)] == [
        False,
        True,
        True,
        True,
    ]
    assert board.trials[0].checkpoint is board.trials[3].checkpoint
    assert board.next() is board.trials[1]
    assert board.scheduler.next_decision(board.trials[1]) == {"training_iteration": 8}


def test_nobody_waits_for_one_that_ended() -> None:
    board = population(make(synch=True), 3)
    for score, trial in enumerate(board.trials[:2]):
        board.report(trial, 4, score)
    assert board.next() is None
    board.end(board.trials[2])
    assert board.trials[0].checkpoint is board.trials[1].checkpoint
    assert board.next() is board.trials[0] or board.next() is board.trials[1]


def test_a_trainable_without_checkpoints_is_told_so() -> None:
    board = population(make(), 2)
    board.saves = False
    for round_ in (1, 2):
        board.report(board.trials[1], 4 * round_, 1.0)
        assert board.report(board.trials[0], 4 * round_, 0.0) == GO
    board.report(board.trials[1], 12, 1.0)
    with pytest.raises(TuneError, match=r"t1, which has none.*tune.report\(metrics, checkpoint="):
        board.report(board.trials[0], 12, 0.0)


def test_missing_attributes() -> None:
    board = population(make(), 2)
    with pytest.raises(MetricError, match="goes by 'training_iteration'"):
        board.scheduler.on_trial_result(board, board.trials[0], {"score": 1.0})
    lax = population(make(require_attrs=False), 2)
    assert lax.scheduler.on_trial_result(lax, lax.trials[0], {"score": 1.0}) == GO


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hyperparam_mutations": None}, ValueError, "nothing to change"),
        ({"hyperparam_mutations": {"x": 3}}, TypeError, "wants a list of values, a domain"),
        ({"hyperparam_mutations": {"a": {"x": []}}}, ValueError, "'a/x'. has no values"),
        (
            {"hyperparam_mutations": {"x": tune.sample_from(lambda config: 1)}},
            ValueError,
            "cannot see the rest",
        ),
        ({"quantile_fraction": 0.6}, ValueError, "between 0 and 0.5"),
        ({"perturbation_interval": 0}, ValueError, "above 0"),
        ({"resample_probability": 2}, ValueError, "between 0 and 1"),
        ({"perturbation_factors": ()}, ValueError, "at least one"),
        ({"mode": "best"}, ValueError, "min"),
    ],
)
def test_arguments_without_sense(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_state_goes_on_as_if_nothing_had_happened() -> None:
    board = population(make(), 6)
    for score, trial in enumerate(board.trials):
        board.report(trial, 4, score)
    other = make()
    other.set_state(pickle.loads(pickle.dumps(board.scheduler.get_state())))
    twin = Board(other, total=6)
    twin.trials = copy.deepcopy(board.trials)
    for step in (8, 12, 16):
        for number in range(6):
            score = random.Random(step * number).random()
            mine = board.report(board.trials[number], step, score)
            its = twin.report(twin.trials[number], step, score)
            if isinstance(mine, Exploit):
                assert isinstance(its, Exploit)
                assert its.config == mine.config
                assert its.source.trial_id == mine.source.trial_id
            else:
                assert its == mine


def test_search_algorithms_do_not_go_with_it(inline: None) -> None:
    with pytest.raises(ValueError, match="leave search_alg=OptunaSearch out"):
        tune.run(
            lambda config: None,
            config={"x": tune.uniform(0, 1)},
            search_alg=OptunaSearch(),
            scheduler=make(),
            metric="score",
            mode="max",
        )


class Climber(tune.Trainable):
    """Its score grows by x each step."""

    def setup(self, config: dict[str, Any]) -> None:
        self.score = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        self.score += self.config["x"]
        return {"score": self.score}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"score": self.score}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.score = checkpoint["score"]


@pytest.mark.parametrize("synch", [False, True])
@pytest.mark.parametrize("trainable", [climb, Climber])
def test_whole_runs(engine: str, tmp_path: Path, trainable: Any, synch: bool) -> None:
    scheduler = make(synch=synch, hyperparam_mutations={"x": tune.uniform(0, 1)})
    analysis = tune.run(
        trainable,
        num_samples=4,
        stop={"training_iteration": 24},
        scheduler=scheduler,
        metric="score",
        mode="max",
        verbose=0,
        storage_path=str(tmp_path),
        name="climb",
    )
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 4
    assert scheduler.perturbations > 0
    assert [t.last_result["training_iteration"] for t in analysis.trials] == [24] * 4
    rows = [json.loads(line) for line in (tmp_path / "climb/pbt_global.txt").open()]
    assert len(rows) == scheduler.perturbations
    target, _, _, _, _, config = rows[-1]
    last = (tmp_path / f"climb/pbt_policy_{target}.txt").read_text().splitlines()[-1]
    assert json.loads(last) == rows[-1]
    (trial,) = [trial for trial in analysis.trials if trial.trial_id == target]
    assert trial.config == config
    assert trial.evaluated_params == config
