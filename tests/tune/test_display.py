"""What a run shows: the live table, the lines, the texts of both."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skate import tune
from skate.exceptions import TaskError
from skate.tune.display import PlainLines, Status, duration, failure_line, number
from skate.tune.error import describe
from skate.tune.live_table import LiveTable, choose
from skate.tune.objective import Objective
from skate.tune.orchestrator import Limits, Orchestrator
from skate.tune.schedulers import ASHAScheduler
from skate.tune.search import BasicVariantGenerator
from skate.tune.stopper import NoopStopper
from skate.tune.trial import Trial

SPACE = {"lr": tune.uniform(0, 1), "model": {"depth": tune.randint(1, 9)}}


def board(trials: int, metric: str | None = "loss") -> Orchestrator:
    """Return a run in the middle: each trial reported once, every third goes on."""
    searcher = BasicVariantGenerator(random_state=0)
    searcher.set_search_properties(metric, "min", SPACE)
    run = Orchestrator(
        searcher,
        ASHAScheduler(max_t=10),
        NoopStopper(),
        Objective(metric, "min" if metric else None),
        Limits(slots=1000, num_samples=trials + 5),
        SPACE,
        "abcdef",
    )
    run.limits.slots = trials
    for position, start in enumerate(run.fill()):
        trial = start.trial
        result = {"training_iteration": 1, "time_total_s": 1.5, "loss": 1000.0 - position}
        run.on_reports(trial, [result])
        if position % 3:
            run.on_finished(trial)
    return run


def rendered(run: Orchestrator, width: int = 100, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    table = LiveTable(console)
    table._status = Status(run)
    table._name = "experiment"
    with console.capture() as captured:
        console.print(table.render(75.0))
    return captured.get().splitlines()


def test_the_table_has_what_one_wants_to_know() -> None:
    text = "\n".join(rendered(board(6)))
    for expected in (
        "experiment", "01:15", "4/11 trials done", "2 running", "best: loss=995 in abcdef_00005",
        "lr", "model/depth", "iter", "loss", "time", "arrived at rungs: 6 at 1",
    ):  # fmt: skip
        assert expected in text


@pytest.mark.parametrize("trials", [0, 1, 5, 1000])
@pytest.mark.parametrize(("width", "height"), [(100, 40), (60, 15), (200, 100)])
def test_the_table_fits_the_terminal(trials: int, width: int, height: int) -> None:
    run = board(trials) if trials else board(1)
    lines = rendered(run, width, height)
    assert len(lines) <= max(height, 13)
    assert max(map(len, lines)) <= width


def test_the_best_trial_is_always_shown() -> None:
    run = board(300)
    best = Status(run).best()
    assert best is not None
    shown = choose(run.trials, best, 10, ("loss", "min"))
    assert len(shown) == 10
    assert best in shown


def test_what_was_assumed_is_said() -> None:
    run = board(3, metric=None)
    assert "minimizing 'loss' (assumed" in "\n".join(rendered(run))
    assert Status(board(3)).assumption() == ""


def test_the_live_table_through_a_run(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    table = LiveTable(console)
    run = board(4)
    table.setup(name="experiment", path=tmp_path, orchestrator=run)
    table.on_step_end(1, run.trials, now=10.0)
    run.trials[0].error = ValueError("no such layer")
    table.on_trial_error(1, run.trials, run.trials[0])
    run.end("time budget")
    table.on_experiment_end(run.trials)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "no such layer" in text
    assert "ended by time budget" in text
    assert str(tmp_path) in text.replace("\n", "")


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = PlainLines()
    run = board(4, metric=None)
    lines.setup(name="experiment", path=tmp_path, orchestrator=run)
    began = lines._began
    lines.on_step_end(1, run.trials, now=began + 1)
    lines.on_step_end(2, run.trials, now=began + 6)
    lines.on_step_end(3, run.trials, now=began + 7)
    run.trials[0].error = ValueError("no such layer")
    lines.on_trial_error(4, run.trials, run.trials[0])
    lines.on_experiment_end(run.trials)
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("tune: run experiment, results in")
    assert output[1].startswith("tune: minimizing 'loss' (assumed")
    assert output[2].startswith("tune: 6.0s | 2/9 trials done, 2 running | best loss=997 (lr=0.")
    assert output[3] == "tune: trial abcdef_00000 failed: ValueError: no such layer"
    assert output[4].startswith("tune: 2/9 trials done")
    assert output[5].startswith("tune: best: loss=997 in trial abcdef_00003: lr=")
    assert len(output) == 6


def test_silence(inline: None, capsys: pytest.CaptureFixture[str]) -> None:
    tune.run(lambda config: {"loss": 1.0}, verbose=0)
    assert capsys.readouterr().out == ""
    tune.run(lambda config: {"loss": 1.0})
    assert "1/1 trials done" in capsys.readouterr().out


def test_errors_in_one_line() -> None:
    def fail() -> None:
        raise LookupError("no such thing\nsecond line")

    remote = None
    try:
        fail()
    except LookupError as error:
        remote = TaskError.from_exception("train", error, 1, "ab").as_instanceof_cause()
    assert describe(remote) == "LookupError: no such thing"
    assert describe(ValueError()) == "ValueError"
    assert describe(None) == ""
    trial = Trial("t1", {}, {})
    trial.error = remote
    trial.status = Trial.PENDING
    assert failure_line(trial) == "trial t1 failed (starts again): LookupError: no such thing"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (lambda: duration(3.21), "3.2s"),
        (lambda: duration(250), "04:10"),
        (lambda: duration(3723), "1:02:03"),
        (lambda: number(0.123456), "0.1235"),
        (lambda: number(1e-9), "1e-09"),
        (lambda: number(12345), "12345"),
        (lambda: number("x" * 50), "x" * 21 + "..."),
    ],
)
def test_texts(shown: Callable[[], Any], expected: str) -> None:
    assert shown() == expected
