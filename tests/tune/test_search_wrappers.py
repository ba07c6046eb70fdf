"""Searchers around searchers: limits, batches, repetitions."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from skate import tune
from skate.tune.search import (
    FINISHED,
    BasicVariantGenerator,
    ConcurrencyLimiter,
    Repeater,
    Searcher,
)
from skate.tune.search.repeater import TRIAL_INDEX

SPACE = {"x": tune.uniform(0, 1)}


class Log(Searcher):
    """Proposes numbers in their order, and remembers what it is told."""

    def __init__(self, limits_itself: bool = False) -> None:
        super().__init__("loss", "min")
        self.limits_itself = limits_itself
        self.asked: list[str] = []
        self.told: list[tuple[str, Mapping[str, Any] | None, bool]] = []
        self.heard: list[str] = []

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return self.limits_itself

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.asked.append(trial_id)
        return {"n": len(self.asked), "inner": {"list": [1]}}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self.heard.append(f"result of {trial_id}")

    def on_pause(self, trial_id: str) -> None:
        self.heard.append(f"pause of {trial_id}")

    def on_unpause(self, trial_id: str) -> None:
        self.heard.append(f"unpause of {trial_id}")

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        self.told.append((trial_id, result, error))


def test_a_batch_is_told_when_the_last_of_it_has_ended() -> None:
    log = Log()
    limited = ConcurrencyLimiter(log, 2, batch=True)
    assert isinstance(limited.suggest("a"), dict)
    assert isinstance(limited.suggest("b"), dict)
    assert limited.suggest("c") is None
    limited.on_trial_complete("b", {"loss": 1.0})
    assert log.told == []
    assert limited.suggest("c") is None  # b has ended, but its batch has not
    limited.on_trial_complete("b", {"loss": 2.0})
    limited.on_trial_complete("a", None, error=True)
    assert log.told == [("b", {"loss": 1.0}, False), ("a", None, True)]
    assert isinstance(limited.suggest("c"), dict)
    # A batch need not be full: the run may have room for fewer trials.
    limited.on_trial_complete("c", {"loss": 3.0})
    assert log.told[-1] == ("c", {"loss": 3.0}, False)


def test_a_batch_is_filled_up_while_some_of_it_have_ended() -> None:
    log = Log()
    limited = ConcurrencyLimiter(log, 3, batch=True)
    limited.suggest("a")
    limited.suggest("b")
    limited.on_trial_complete("a", {"loss": 1.0})
    assert isinstance(limited.suggest("c"), dict)
    assert limited.suggest("d") is None  # a counts until the batch is told
    limited.on_trial_complete("c", {"loss": 2.0})
    limited.on_trial_complete("b", {"loss": 3.0})
    assert [name for name, _, _ in log.told] == ["a", "c", "b"]


def test_a_searcher_that_limits_itself_is_left_alone() -> None:
    log = Log(limits_itself=True)
    limited = ConcurrencyLimiter(log, 1)
    assert isinstance(limited.suggest("a"), dict)
    assert isinstance(limited.suggest("b"), dict)
    assert ConcurrencyLimiter(log, 1, batch=True).set_max_concurrency(3)


def test_a_limiter_passes_everything_on() -> None:
    log = Log()
    limited = ConcurrencyLimiter(log, 2)
    limited.suggest("a")
    limited.on_trial_result("a", {"loss": 1})
    limited.on_pause("a")
    limited.on_unpause("a")
    assert log.heard == ["result of a", "pause of a", "unpause of a"]
    assert (limited.metric, limited.mode) == ("loss", "min")
    limited.metric, limited.mode = "acc", "max"
    assert (log.metric, log.mode) == ("acc", "max")
    with pytest.raises(NotImplementedError, match="Log cannot learn from other evaluations"):
        limited.add_evaluated_point({"n": 1}, 2.0)


def test_repetitions_differ_by_their_number_and_nothing_else() -> None:
    log = Log()
    repeater = Repeater(log, repeat=3)
    configs = [repeater.suggest(name) for name in "abcdef"]
    assert log.asked == ["a", "d"]
    assert [config["n"] for config in configs if isinstance(config, dict)] == [1, 1, 1, 2, 2, 2]
    assert [c[TRIAL_INDEX] for c in configs if isinstance(c, dict)] == [0, 1, 2, 0, 1, 2]
    assert isinstance(configs[0], dict)
    assert isinstance(configs[1], dict)
    configs[0]["inner"]["list"].append(2)  # a trial may do with its configuration what it likes
    assert configs[1]["inner"] == {"list": [1]}
    assert Repeater(Log(), 2, set_index=False).suggest("a") == {"n": 1, "inner": {"list": [1]}}


def test_the_searcher_hears_of_the_mean_when_all_repetitions_have_ended() -> None:
    log = Log()
    repeater = Repeater(log, repeat=3)
    for name in "abc":
        repeater.suggest(name)
        repeater.on_trial_result(name, {"loss": 9.0})
    repeater.on_trial_complete("c", {"loss": 1.0, "training_iteration": 4})
    repeater.on_trial_complete("a", {"loss": 2.0, "training_iteration": 4})
    repeater.on_trial_complete("a", {"loss": 100.0})
    assert (log.told, log.heard) == ([], [])
    repeater.on_trial_complete("b", {"loss": 6.0, "training_iteration": 4})
    ((name, result, error),) = log.told
    assert (name, error) == ("a", False)
    assert result == {"loss": 3.0, "training_iteration": 4, "early_stopped": False}


def test_repetitions_that_brought_nothing_do_not_count() -> None:
    log = Log()
    repeater = Repeater(log, repeat=4)
    for name in "abcd":
        repeater.suggest(name)
    repeater.on_trial_complete("a", None, error=True)
    repeater.on_trial_complete("b", {"loss": math.nan})
    repeater.on_trial_complete("c", {"loss": 4.0, "early_stopped": True})
    repeater.on_trial_complete("d", {"loss": 6.0})
    assert log.told == [("a", {"loss": 5.0, "early_stopped": True}, False)]


def test_a_configuration_whose_repetitions_all_fail_has_failed() -> None:
    log = Log()
    repeater = Repeater(log, repeat=2)
    for name in "ab":
        repeater.suggest(name)
        repeater.on_trial_complete(name, None, error=True)
    assert log.told == [("a", None, True)]


def test_means_of_several_objectives() -> None:
    log = Log()
    log.metric, log.mode = ["loss", "size"], ["min", "min"]
    repeater = Repeater(log, repeat=2)
    for name, size in (("a", 2), ("b", 4)):
        repeater.suggest(name)
        repeater.on_trial_complete(name, {"loss": 1.0, "size": size})
    assert log.told[0][1] == {"loss": 1.0, "size": 3.0, "early_stopped": False}


def test_the_number_of_samples_counts_repetitions() -> None:
    def made() -> Repeater:
        repeater = Repeater(BasicVariantGenerator(), repeat=5)
        repeater.set_search_properties(None, None, {"a": tune.grid_search([1, 2])})
        return repeater

    assert made().total(-1) is None
    assert made().total(15) == 30  # three passes over the grid of two, each five times
    with pytest.warns(UserWarning, match="no multiple of repeat=5: the last 3 trials"):
        assert made().total(8) == 10
    with pytest.raises(ValueError, match="num_samples=4 counts repetitions"):
        made().total(4)
    repeater = made()
    repeater.total(5)
    suggestions = [repeater.suggest(str(number)) for number in range(11)]
    assert suggestions[-1] == FINISHED
    assert [s["a"] for s in suggestions[:-1] if isinstance(s, dict)] == [1] * 5 + [2] * 5


def test_wrappers_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match="Repeater wants a Searcher"):
        Repeater("optuna", 2)
    with pytest.raises(ValueError, match="repeat has to be at least 1"):
        Repeater(Log(), 0)
    with pytest.raises(ValueError, match="at least 1"):
        ConcurrencyLimiter(Log(), 0)


def noisy(config: dict[str, Any]) -> None:
    tune.report(loss=config["x"] + config[TRIAL_INDEX])


def test_repetitions_in_a_run(engine: str) -> None:
    inner = BasicVariantGenerator(random_state=0)
    analysis = tune.run(
        noisy,
        config=SPACE,
        search_alg=Repeater(inner, repeat=3),
        num_samples=6,
        metric="loss",
        mode="min",
        verbose=0,
    )
    by_x: dict[float, set[int]] = {}
    for trial in analysis.trials:
        by_x.setdefault(trial.config["x"], set()).add(trial.config[TRIAL_INDEX])
    assert list(by_x.values()) == [{0, 1, 2}, {0, 1, 2}]


class Own(Searcher):
    """A searcher of the user, as Ray's documentation has it: it brings its own space."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return {"x": 1.0, "model": {"depth": 2}}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        pass


def test_constants_of_the_run_reach_the_trials_of_a_searcher_with_its_own_space(
    engine: str,
) -> None:
    def train(config: dict[str, Any]) -> dict[str, Any]:
        return {"loss": config["x"] + config["model"]["depth"] + config["model"]["width"]}

    analysis = tune.run(
        train,
        config={"model": {"width": 10}, "data": "here"},
        search_alg=Own(metric="loss", mode="min"),
        verbose=0,
    )
    assert analysis.best_config == {"x": 1.0, "model": {"depth": 2, "width": 10}, "data": "here"}
    with pytest.raises(ValueError, match="Own has a search space of its own"):
        tune.run(train, config=SPACE, search_alg=Own(metric="loss", mode="min"), verbose=0)


class Life(RuleBasedStateMachine):
    """Wrappers around wrappers, with trials that end in any order and saves in between."""

    @initialize(
        layers=st.lists(
            st.one_of(
                st.tuples(st.just("limit"), st.integers(1, 4)),
                st.tuples(st.just("batch"), st.integers(1, 4)),
                st.tuples(st.just("repeat"), st.integers(1, 3)),
            ),
            max_size=3,
        )
    )
    def build(self, layers: list[tuple[str, int]]) -> None:
        self.layers = layers
        self.log = Log()
        self.searcher = self.wrapped(self.log)
        self.live: list[str] = []
        self.made = 0

    def wrapped(self, searcher: Searcher) -> Searcher:
        for kind, number in self.layers:
            if kind == "repeat":
                searcher = Repeater(searcher, number)
            else:
                searcher = ConcurrencyLimiter(searcher, number, batch=kind == "batch")
        return searcher

    @rule()
    def ask(self) -> None:
        suggestion = self.searcher.suggest(f"t{self.made}")
        if suggestion is not None:
            assert isinstance(suggestion, dict)
            self.live.append(f"t{self.made}")
            self.made += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data(), ending=st.sampled_from(["value", "error", "nothing", "nan"]))
    def end(self, data: st.DataObject, ending: str) -> None:
        name = data.draw(st.sampled_from(self.live))
        self.live.remove(name)
        result = {"value": {"loss": 1.0}, "nan": {"loss": math.nan}}.get(ending)
        self.searcher.on_trial_complete(name, result, error=ending == "error")

    @rule()
    def save_and_restore(self) -> None:
        state = pickle.loads(pickle.dumps(self.searcher.get_state()))
        self.log = Log()
        self.searcher = self.wrapped(self.log)
        self.searcher.set_state(state)

    @invariant()
    def nobody_hears_of_what_it_did_not_propose_or_twice(self) -> None:
        told = [name for name, _, _ in self.log.told]
        assert len(set(told)) == len(told)
        assert set(told) <= set(self.log.asked)

    @invariant()
    def the_innermost_limit_holds(self) -> None:
        if self.layers and self.layers[0][0] != "repeat":
            assert len(self.log.asked) - len(self.log.told) <= self.layers[0][1]
        if self.layers and self.layers[-1][0] != "repeat":
            assert len(self.live) <= self.layers[-1][1]

    def teardown(self) -> None:
        """Whatever happened: when all trials end and new ones start, everything is told."""
        if not hasattr(self, "log"):
            return
        wanted = len(self.log.told) + 3
        for _ in range(500):
            if len(self.log.told) >= wanted:
                break
            before = self.made
            self.ask()
            if self.made == before:
                assert self.live, "nothing is proposed although nothing is live"
                self.searcher.on_trial_complete(self.live.pop(0), {"loss": 1.0})
            elif len(self.live) > 20:
                self.searcher.on_trial_complete(self.live.pop(0), {"loss": 1.0})
        assert len(self.log.told) >= wanted


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
