"""What callbacks save with the state of a run, and the turns of its loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skate import tune
from skate.tune.callback import Callback, restore_states, states_of


class Counting(tune.Callback):
    """Counts reports, over all parts of a run."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.reports: list[int] = []
        self.at_setup: list[int] | None = None

    def setup(self, **info: Any) -> None:
        self.at_setup = list(self.reports)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self.reports.append(result["step"])

    def get_state(self) -> dict[str, Any] | None:
        return {"name": self.name, "reports": list(self.reports)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.name, self.reports = state["name"], state["reports"]


class Other(Counting):
    pass


class Stateless(tune.Callback):
    def set_state(self, state: dict[str, Any]) -> None:
        raise AssertionError(state)


def train(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begin = 0 if checkpoint is None else checkpoint.to_dict()["step"]
    for step in range(begin + 1, 4):
        if step == 3 and begin == 0:
            raise ValueError("once")
        saved = tune.Checkpoint.from_dict({"step": step})
        tune.report({"loss": 1.0, "step": step}, checkpoint=saved)


def test_states_go_to_callbacks_of_the_same_class_in_their_order() -> None:
    states = states_of([Counting("a"), Stateless(), Other("b"), Counting("c")])
    assert [state["name"] for _, state in states] == ["a", "b", "c"]
    given: list[Callback] = [Other(), Counting(), Counting(), Counting("new"), Stateless()]
    restore_states(given, states)
    assert [each.name for each in given if isinstance(each, Counting)] == ["b", "a", "c", "new"]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("by_tuner", [True, False])
def test_callbacks_go_on_with_what_they_had_saved(tmp_path: Path, by_tuner: bool) -> None:
    options: dict[str, Any] = {"name": "run", "storage_path": tmp_path, "verbose": 0}
    first = Counting("first")
    tune.run(train, callbacks=[first, Stateless()], raise_on_failed_trial=False, **options)
    assert first.reports == [1, 2]
    assert first.at_setup == []
    again = Counting()
    if by_tuner:
        folder = tmp_path / "run"
        tune.Tuner.restore(folder, train, resume_errored=True, callbacks=[again]).fit()
    else:
        tune.run(train, callbacks=[again], resume="AUTO+ERRORED", **options)
    assert again.name == "first"
    assert again.at_setup == [1, 2]
    assert again.reports == [1, 2, 3]


@pytest.mark.usefixtures("inline")
def test_a_state_that_cannot_be_saved_is_told_of(tmp_path: Path) -> None:
    class Failing(Counting):
        def get_state(self) -> dict[str, Any] | None:
            raise ValueError("not that")

    with pytest.warns(RuntimeWarning, match="this run cannot be resumed.*not that"):
        analysis = tune.run(
            lambda config: {"loss": 1, "step": 1},
            storage_path=tmp_path,
            callbacks=[Failing()],
            verbose=0,
        )
    assert len(analysis.trials) == 1


@pytest.mark.usefixtures("engine")
def test_turns_begin_and_end(tmp_path: Path) -> None:
    class Turns(tune.Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, int]] = []

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            self.seen.append(("begin", iteration, len(trials)))

        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            self.seen.append(("end", iteration, len(trials)))

    turns = Turns()
    tune.run(
        lambda config: {"loss": 1},
        num_samples=3,
        max_concurrent_trials=1,
        storage_path=tmp_path,
        callbacks=[turns],
        verbose=0,
    )
    assert turns.seen[0] == ("begin", 0, 0)
    assert turns.seen[1][:1] + turns.seen[1][2:] == ("end", 1)
    kinds = [kind for kind, _, _ in turns.seen]
    assert kinds == ["begin", "end"] * (len(kinds) // 2) + ["begin"]
    assert [turn for kind, turn, _ in turns.seen if kind == "begin"] == list(
        range(len(kinds) // 2 + 1)
    )
