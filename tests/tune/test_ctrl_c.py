"""Ctrl-C never cuts the run's own work in two: it is let in where the run waits."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from skate import tune
from skate.tune.ctrl_c import CtrlC


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def train(config: dict[str, Any]) -> None:
    pause = threading.Event()
    for step in range(10**6):
        tune.report(loss=1 / (step + 1))
        pause.wait(0.01)


class Pressed(tune.Callback):
    """Ctrl-C is pressed while this works on a result."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.begun = 0
        self.done = 0
        self.ended = 0

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        if result["training_iteration"] == 3 and not self.begun:
            self.begun += 1
            for _ in range(self.times):
                press()
            self.done += 1

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        self.ended += 1


def run(callback: tune.Callback) -> Any:
    return tune.run(
        train, config={"x": tune.uniform(0, 1)}, num_samples=4, callbacks=[callback], verbose=0
    )


@pytest.mark.usefixtures("engine")
def test_what_is_being_done_is_done_to_its_end() -> None:
    before = signal.getsignal(signal.SIGINT)
    callback = Pressed(1)
    trials = run(callback).trials
    assert {trial.stop_reason for trial in trials if trial.iterations} == {"interrupted"}
    assert (callback.begun, callback.done, callback.ended) == (1, 1, 1)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("engine")
def test_the_second_one_ends_it_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    callback = Pressed(2)
    run(callback)
    assert (callback.begun, callback.done, callback.ended) == (1, 0, 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_one_that_was_never_let_in_comes_at_the_end() -> None:
    reached = []

    def work() -> None:
        with CtrlC():
            press()
            reached.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [1]


def test_all_but_the_first_pass() -> None:
    with CtrlC() as ctrl_c:
        with pytest.raises(KeyboardInterrupt), ctrl_c.waiting():
            press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_handler_of_the_user_is_called() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *args: seen.append(args[0]))
    try:
        with CtrlC() as ctrl_c:
            press()
            assert seen == []
            with ctrl_c.waiting():
                assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_it_is_ignored_it_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with CtrlC() as ctrl_c, ctrl_c.waiting():
            press()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_nothing_to_do_with_it() -> None:
    seen = []

    def enter() -> None:
        before = signal.getsignal(signal.SIGINT)
        with CtrlC() as ctrl_c, ctrl_c.waiting():
            seen.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [True]
