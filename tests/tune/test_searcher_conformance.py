"""What every searcher promises, whatever library it comes from.

A searcher is covered when it stands in ``SEARCHERS``; what its library cannot do stands there too.
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from skate import tune
from skate.tune.search import (
    FINISHED,
    BasicVariantGenerator,
    ConcurrencyLimiter,
    Repeater,
    Searcher,
)


@dataclass(frozen=True)
class Case:
    """A searcher, and what of the contract it can keep.

    Attributes:
        make: makes a searcher; takes a seed and further arguments of its constructor.
        needs: the libraries it is skipped without.
        room: how many configurations it hands out before it has to hear of a result.
        repeat: how often it hands out each configuration.
        conditional: whether it copes with parameters that only some trials have.
        parameters: what its configurations have beside those of the space.
    """

    make: Callable[..., Searcher]
    needs: Sequence[str] = ()
    room: float = math.inf
    repeat: int = 1
    conditional: bool = True
    parameters: frozenset[str] = field(default_factory=frozenset)


def basic(seed: int, **options: Any) -> Searcher:
    return BasicVariantGenerator(random_state=seed, **options)


def with_optuna(seed: int, **options: Any) -> Searcher:
    from skate.tune.search.optuna import OptunaSearch

    return OptunaSearch(seed=seed, **options)


def with_sampler(name: str, **settings: Any) -> Callable[..., Searcher]:
    def make(seed: int, **options: Any) -> Searcher:
        import optuna

        sampler = getattr(optuna.samplers, name)(seed=seed, **settings)
        return with_optuna(seed, sampler=sampler, **options)

    return make


def limited(
    inner: Callable[..., Searcher], number: int, **settings: Any
) -> Callable[..., Searcher]:
    return lambda seed, **options: ConcurrencyLimiter(inner(seed, **options), number, **settings)


def repeated(inner: Callable[..., Searcher]) -> Callable[..., Searcher]:
    return lambda seed, **options: Repeater(inner(seed, **options), 2)


INDEX = frozenset({"__trial_index__"})
SEARCHERS: dict[str, Case] = {
    "random": Case(basic),
    "optuna": Case(with_optuna, ["optuna"]),
    "optuna-random": Case(with_sampler("RandomSampler"), ["optuna"]),
    "optuna-tpe-multivariate": Case(
        with_sampler("TPESampler", multivariate=True, group=True, n_startup_trials=3), ["optuna"]
    ),
    "optuna-nsga2": Case(with_sampler("NSGAIISampler", population_size=4), ["optuna"]),
    "optuna-cmaes": Case(
        with_sampler("CmaEsSampler", n_startup_trials=2, warn_independent_sampling=False),
        ["optuna", "cmaes"],
    ),
    "optuna-qmc": Case(
        with_sampler("QMCSampler", warn_independent_sampling=False), ["optuna", "scipy"]
    ),
    "limited-random": Case(limited(basic, 2), room=2),
    "limited-optuna": Case(limited(with_optuna, 3), ["optuna"], room=3),
    "batches-of-optuna": Case(limited(with_optuna, 3, batch=True), ["optuna"], room=3),
    "repeated-random": Case(repeated(basic), repeat=2, parameters=INDEX),
    "repeated-limited-optuna": Case(
        repeated(limited(with_optuna, 2)), ["optuna"], room=4, repeat=2, parameters=INDEX
    ),
}

SPACE: dict[str, Any] = {
    "lr": tune.loguniform(1e-4, 1e-1),
    "momentum": tune.quniform(0, 0.9, 0.1),
    "depth": tune.randint(1, 9),
    "width": tune.qrandint(8, 64, 8),
    "kind": tune.choice(["a", "b", "c"]),
    "shape": tune.choice([(1, 2), [3]]),
    "head": {"dropout": tune.uniform(0, 1), "fixed": 3},
    "twice": tune.sample_from(lambda config: config["depth"] * 2),
    "noise": tune.sample_from(lambda: random.random()),
}
CONDITIONAL: dict[str, Any] = {
    "model": tune.choice([{"name": "tree", "leaves": tune.randint(2, 9)}, {"name": "line"}]),
    "x": tune.uniform(-1, 1),
}


@pytest.fixture(params=SEARCHERS, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    case = SEARCHERS[request.param]
    for library in case.needs:
        pytest.importorskip(library)
    return case


@pytest.fixture(autouse=True)
def quiet_samplers() -> Iterator[None]:
    """Samplers warn of being experimental: no matter of ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def prepared(
    case: Case, space: dict[str, Any] | None = None, seed: int = 1, trials: int = -1, **options: Any
) -> Searcher:
    searcher = case.make(seed, **options)
    assert searcher.set_search_properties("loss", "min", SPACE if space is None else space)
    searcher.total(trials)
    return searcher


def loss(config: dict[str, Any]) -> float:
    return float(math.log10(config["lr"]) ** 2 + config["head"]["dropout"] + config["depth"])


def result(config: dict[str, Any], iteration: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "loss": loss(config),
        "training_iteration": iteration,
        "early_stopped": False,
        "done": True,
        **more,
    }


class Trials:
    """Plays the orchestrator: asks for configurations and brings results."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.live: dict[str, dict[str, Any]] = {}
        self.seen: list[dict[str, Any]] = []

    def ask(self) -> dict[str, Any] | str | None:
        name = f"trial_{len(self.seen):05d}"
        suggestion = self.searcher.suggest(name)
        if isinstance(suggestion, dict):
            self.live[name] = suggestion
            self.seen.append(suggestion)
        return suggestion

    def end(self, name: str, outcome: dict[str, Any] | None = None, error: bool = False) -> None:
        config = self.live.pop(name)
        if outcome is None and not error:
            outcome = result(config)
        if outcome is not None:
            self.searcher.on_trial_result(name, outcome)
        self.searcher.on_trial_complete(name, outcome, error)

    def end_oldest(self) -> None:
        self.end(next(iter(self.live)))

    def run(self, count: int) -> list[dict[str, Any]]:
        """Make ``count`` more trials, with up to four of them live; return what is proposed."""
        before = len(self.seen)
        while len(self.seen) < before + count:
            if len(self.live) == 4 or not isinstance(self.ask(), dict):
                self.end_oldest()
        return self.seen[before:]


def test_configurations_are_points_of_the_space(case: Case) -> None:
    trials = Trials(prepared(case))
    for config in trials.run(24):
        assert {*config} == {*SPACE, *case.parameters}
        assert 1e-4 <= config["lr"] <= 1e-1
        assert config["momentum"] in [step / 10 for step in range(10)]
        assert config["depth"] in range(1, 9)
        assert isinstance(config["depth"], int)
        assert config["width"] in range(8, 65, 8)
        assert config["kind"] in ("a", "b", "c")
        assert config["shape"] in [(1, 2), [3]]
        assert 0 <= config["head"]["dropout"] <= 1
        assert config["head"]["fixed"] == 3
        assert config["twice"] == config["depth"] * 2
        assert 0 <= config["noise"] < 1
    assert len({config["lr"] for config in trials.seen}) > 8


def test_conditional_parameters_exist_only_where_they_mean_something(case: Case) -> None:
    if not case.conditional:
        pytest.skip("this library knows no conditional parameters")
    trials = Trials(prepared(case, CONDITIONAL))
    names = set()
    while len(trials.seen) < 24:
        if isinstance(config := trials.ask(), dict):
            names.add(config["model"]["name"])
            wanted = {"name", "leaves"} if config["model"]["name"] == "tree" else {"name"}
            assert set(config["model"]) == wanted
        while len(trials.live) > 2 or (config is None and trials.live):
            name, live = next(iter(trials.live.items()))
            trials.end(name, {"loss": abs(live["x"]), "training_iteration": 1})
    assert names == {"tree", "line"}


def test_the_same_seed_gives_the_same_trials(case: Case) -> None:
    random.seed(1)
    first = Trials(prepared(case, seed=7)).run(12)
    random.seed(2)
    assert first == Trials(prepared(case, seed=7)).run(12)
    assert first != Trials(prepared(case, seed=8)).run(12)


def test_seeds_leave_the_generators_of_the_program_alone(case: Case) -> None:
    searcher = prepared(case, seed=7)
    random.seed(1)
    expected = random.random()
    random.seed(1)
    searcher.suggest("trial")
    assert random.random() == expected


def test_given_points_come_first_and_in_order(case: Case) -> None:
    points = [
        {"lr": 0.01, "depth": 4, "head": {"dropout": 0.25}, "kind": "b"},
        {"shape": [3], "lr": 0.02, "head": {"fixed": 3}},
        {"twice": 99, "lr": 0.03},
    ]
    trials = Trials(prepared(case, points_to_evaluate=points))
    seen = trials.run(4 * case.repeat)[:: case.repeat]
    assert seen[0]["lr"] == pytest.approx(0.01)
    assert (seen[0]["depth"], seen[0]["kind"]) == (4, "b")
    assert seen[0]["head"] == {"dropout": 0.25, "fixed": 3}
    assert seen[1]["lr"] == pytest.approx(0.02)
    assert seen[1]["shape"] == [3]
    assert (seen[2]["lr"], seen[2]["twice"]) == (pytest.approx(0.03), 99)
    assert seen[3]["lr"] not in (0.01, 0.02, 0.03)
    assert seen[3]["twice"] == seen[3]["depth"] * 2


def test_points_that_are_none_of_the_space_are_refused(case: Case) -> None:
    for point, message in (
        ({"rate": 1}, "sets 'rate', which the search space does not have"),
        ({"kind": "d"}, "sets 'kind' to 'd', which is no category"),
        ({"head": {"fixed": 4}}, "sets 'head/fixed' to 4, but it is no parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(case, points_to_evaluate=[point])


def test_results_may_come_in_any_order(case: Case) -> None:
    trials = Trials(prepared(case))
    order = random.Random(0)
    while len(trials.seen) < 20:
        while len(trials.live) < 5 and isinstance(trials.ask(), dict):
            pass
        trials.end(order.choice(list(trials.live)))
    while trials.live:
        trials.end(order.choice(list(trials.live)))
    assert isinstance(trials.ask(), dict)


def test_trials_may_end_in_any_way(case: Case) -> None:
    trials = Trials(prepared(case))
    ways: list[Callable[[dict[str, Any]], tuple[dict[str, Any] | None, bool]]] = [
        lambda config: (result(config), False),
        lambda config: (None, True),
        lambda config: (None, False),
        lambda config: (result(config, early_stopped=True), False),
        lambda config: (result(config, loss=math.nan), False),
        lambda config: (result(config, loss=math.inf), False),
        lambda config: (result(config, loss=-math.inf), False),
        lambda config: (result(config, loss="bad"), False),
        lambda config: (result(config, loss=None), False),
        lambda config: ({"training_iteration": 1}, False),
        lambda config: (result(config, loss=10**400), False),
        lambda config: (result(config, loss=3), True),
    ]
    count = 0
    while count < 3 * len(ways):
        while len(trials.live) < 3 and isinstance(trials.ask(), dict):
            pass
        name, config = next(iter(trials.live.items()))
        outcome, error = ways[count % len(ways)](config)
        del trials.live[name]
        if outcome is not None:
            trials.searcher.on_trial_result(name, outcome)
        trials.searcher.on_trial_complete(name, outcome, error)
        count += 1
    assert len(trials.run(4)) == 4


def test_trials_that_are_unknown_or_have_ended_are_no_error(case: Case) -> None:
    searcher = prepared(case)
    searcher.on_trial_complete("from elsewhere", {"loss": 1.0})
    for name in ("first", "second", "third"):
        assert isinstance(searcher.suggest(name), dict)
        for _ in range(2):
            searcher.on_trial_complete(name, {"loss": 1.0, "training_iteration": 1})


def test_the_objective_may_become_known_with_the_first_result(case: Case) -> None:
    searcher = case.make(1)
    assert searcher.set_search_properties(None, None, SPACE)
    searcher.total(-1)
    trials = Trials(searcher)
    trials.ask()
    assert searcher.set_search_properties("loss", "max", {})
    assert (searcher.metric, searcher.mode) == ("loss", "max")
    assert len(trials.run(8)) == 8


def test_it_never_hands_out_more_than_it_may(case: Case) -> None:
    trials = Trials(prepared(case))
    while len(trials.live) < min(case.room, 9):
        assert isinstance(trials.ask(), dict)
    if case.room == math.inf:
        return
    for _ in range(3):
        assert trials.ask() is None
    assert len(trials.live) == case.room
    for name in list(trials.live):
        assert trials.ask() is None or len(trials.live) <= case.room
        if name in trials.live:
            trials.end(name)
    assert isinstance(trials.ask(), dict)


def test_it_hands_out_what_num_samples_stands_for(case: Case) -> None:
    searcher = case.make(1)
    searcher.set_search_properties("loss", "min", SPACE)
    assert searcher.total(6) == 6
    trials = Trials(searcher)
    assert len(trials.run(6)) == 6
    while trials.live:
        trials.end_oldest()


def play(trials: Trials, count: int) -> list[Any]:
    """Go on for some trials; how they end depends on what is proposed only."""
    before = len(trials.seen)
    step = 0
    while len(trials.seen) < before + count:
        step += 1
        if len(trials.live) < 3 and isinstance(trials.ask(), dict):
            continue
        name, config = next(iter(trials.live.items()))
        if config["kind"] == "c":
            trials.end(name, result(config, early_stopped=True))
        else:
            trials.end(name, error=config["depth"] == 8)
    return trials.seen[before:]


@pytest.mark.parametrize("properties_last", [False, True])
def test_a_restored_searcher_goes_on_as_if_nothing_had_happened(
    case: Case, properties_last: bool, tmp_path: Path
) -> None:
    points = [{"lr": 0.01 * number} for number in range(1, 8)]
    trials = Trials(prepared(case, seed=3, points_to_evaluate=points))
    play(trials, 5)
    path = tmp_path / "searcher.pkl"
    trials.searcher.save(path)
    live, seen = dict(trials.live), list(trials.seen)
    expected = play(trials, 14)

    fresh = case.make(99, points_to_evaluate=points)
    if properties_last:
        fresh.restore(path)
    assert fresh.set_search_properties("loss", "min", SPACE)
    fresh.total(-1)
    if not properties_last:
        fresh.restore(path)
    again = Trials(fresh)
    again.live, again.seen = live, seen
    assert play(again, 14) == expected


def test_a_restored_searcher_takes_the_space_it_is_given(case: Case, tmp_path: Path) -> None:
    """Constants may be others in a resumed run, and are not to come from the state."""
    trials = Trials(prepared(case))
    play(trials, 3)
    trials.searcher.save(tmp_path / "state")
    again = prepared(case, {**SPACE, "data": "elsewhere"})
    again.restore(tmp_path / "state")
    while trials.live:
        again.on_trial_complete(*trials.live.popitem())
    config = again.suggest("next")
    assert isinstance(config, dict)
    if case.repeat == 1:  # a configuration that is repeated stays what it was
        assert config["data"] == "elsewhere"


def test_a_state_can_be_pickled_and_belongs_to_one_kind_of_searcher(
    case: Case, tmp_path: Path
) -> None:
    trials = Trials(prepared(case))
    play(trials, 4)
    assert isinstance(pickle.loads(cloudpickle.dumps(trials.searcher.get_state())), dict)
    trials.searcher.save_to_dir(tmp_path)
    other = _Other()
    with pytest.raises(ValueError, match=r"has the state of a .*, this is a _Other"):
        other.restore_from_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["searcher-state-default.pkl"]


def test_a_searcher_as_a_whole_can_be_pickled(case: Case) -> None:
    trials = Trials(prepared(case))
    play(trials, 5)
    copy = Trials(pickle.loads(cloudpickle.dumps(trials.searcher)))
    copy.live, copy.seen = dict(trials.live), list(trials.seen)
    assert play(copy, 9) == play(trials, 9)


def test_a_space_with_a_mistake_in_it_is_refused(case: Case) -> None:
    with pytest.raises(TypeError, match=r"model/lr: is tune\.uniform itself"):
        prepared(case, {"model": {"lr": tune.uniform}})


def test_a_space_that_is_all_constants(case: Case) -> None:
    trials = Trials(prepared(case, {"a": 1, "b": {"c": [2]}}))
    config = trials.ask()
    assert isinstance(config, dict)
    assert (config["a"], config["b"]) == (1, {"c": [2]})


def train(config: dict[str, Any]) -> None:
    for step in range(1, 10):
        tune.report(loss=loss(config) + 1 / step)


def test_in_a_run_with_a_scheduler_that_ends_trials_early(case: Case, inline: None) -> None:
    analysis = tune.run(
        train,
        config=SPACE,
        search_alg=case.make(5),
        scheduler="asha",
        num_samples=8,
        metric="loss",
        mode="min",
        verbose=0,
    )
    assert len(analysis.trials) == 8
    assert {trial.status for trial in analysis.trials} == {"TERMINATED"}
    assert len({trial.config["lr"] for trial in analysis.trials}) == 8 // case.repeat


class _Other(BasicVariantGenerator):
    pass


def test_names_that_end_a_run_are_constants_of_the_class() -> None:
    assert Searcher.FINISHED == FINISHED
