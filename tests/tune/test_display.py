"""What a run shows: the live table, the lines, the texts of both."""

from __future__ import annotations

import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from skate import tune
from skate.exceptions import TaskError
from skate.tune.board import board as make_board
from skate.tune.board import choose
from skate.tune.display import PlainLines, Status, display, duration, failure_line, number
from skate.tune.error import describe
from skate.tune.limits import Limits
from skate.tune.live_table import LiveTable
from skate.tune.notebook_table import NotebookTable
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
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
        Limits(slots=1000, num_samples=trials + 5, resources={"CPU": 1000.0}),
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
        "2/1000 CPU", "about 02:01 left",
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
    status = Status(run)
    best = status.best()
    assert best is not None
    shown = choose(status, 10)
    assert len(shown) == 10
    assert best in shown


@pytest.mark.parametrize(("width", "columns"), [(60, 6), (80, 8), (200, 12)])
def test_columns_that_fit(width: int, columns: int) -> None:
    run = board(3)
    for trial in run.trials:
        trial.evaluated_params = {f"parameter_{i}": 0.123456 for i in range(6)}
        trial.last_result["accuracy"] = 0.5
    shown = make_board(Status(run), 10, width)
    titles = [column.title for column in shown.columns]
    assert titles[:2] == ["trial", "status"]
    assert {"iter", "loss", "time"} <= set(titles)
    assert ("accuracy" in titles) == (width == 200)
    assert len(titles) == columns
    assert shown.hidden == [f"parameter_{i}" for i in range(min(6, columns - 5), 6)]
    assert sum(column.width + 2 for column in shown.columns) <= width + 2


def test_a_run_of_many_trials_is_looked_at_once() -> None:
    run = board(1000)
    status = Status(run)
    ended = [trial for trial in run.trials if trial.is_finished]

    class Untouchable(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise AssertionError("looked at again")

    assert status.progress.best() is not None
    shown = status.progress.leaders()
    for trial in ended:
        if trial not in shown:
            trial.last_result = Untouchable()
    status.update()
    assert status.counts() == "666/1005 trials done, 334 running"
    assert status.progress.rest(10.0) is not None
    assert len(choose(status, 20)) == 20


def test_the_rest_of_a_run() -> None:
    run = board(10)  # 6 done, 4 of them one tenth through, 5 to come
    rest = Status(run).progress.rest(64.0)
    assert rest == pytest.approx(64 / 6.4 * (15 - 6.4))
    assert Status(board(1)).progress.rest(0.0) is None
    run.end("time budget")
    status = Status(run)
    assert status.progress.done == 10


def test_a_table_in_a_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    pages: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            pages.append(page.data)

    def show(page: Any, display_id: bool) -> Handle:
        assert display_id
        pages.append(page.data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", show)
    run = board(4)
    table = NotebookTable()
    table.setup(name="a <run>", path=tmp_path, orchestrator=run)
    table.on_step_end(1, run.trials, now=table._began + 10.0)
    table.on_step_end(2, run.trials, now=table._began + 10.1)
    assert len(pages) == 2
    run.trials[0].error = ValueError("no <such> layer")
    table.on_trial_error(3, run.trials, run.trials[0])
    run.end("time budget")
    table.on_experiment_end(run.trials, cpu_s=0.5)
    assert "a &lt;run&gt;" in pages[1]
    assert "2/9 trials done" in pages[1]
    assert "model/depth" in pages[1]
    assert "no &lt;such&gt; layer" in pages[-1]
    assert "ended by time budget" in pages[-1]
    assert "ms per trial" in pages[-1]
    assert pages[-1].count("<tr") == 5


def test_which_display(monkeypatch: pytest.MonkeyPatch) -> None:
    class ZMQInteractiveShell:
        pass

    assert isinstance(display(), PlainLines)
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(isatty=lambda: True))
    assert isinstance(display(), LiveTable)
    ipython = types.SimpleNamespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    assert isinstance(display(), NotebookTable)


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
    table.on_experiment_end(run.trials, cpu_s=0.5)
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
    lines.on_experiment_end(run.trials, cpu_s=0.5)
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("tune: run experiment, results in")
    assert output[1].startswith("tune: minimizing 'loss' (assumed")
    assert output[2].startswith("tune: 6.0s | about ")
    assert " left | 2/1000 CPU | 2/9 trials done, 2 running | best loss=997 (lr=0." in output[2]
    assert output[3] == "tune: trial abcdef_00000 failed: ValueError: no such layer"
    assert output[4].startswith("tune: 2/9 trials done")
    assert output[5].startswith("tune: best: loss=997 in trial abcdef_00003: lr=")
    assert re.fullmatch(
        r"tune: the run itself used 0\.50s of CPU, .*% of one CPU, .* ms per trial", output[6]
    )
    assert output[7] == "tune: arrived at rungs: 4 at 1, 0 at 4"
    assert len(output) == 8


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


# --------------------------------------------------------------------------- reporters


def steps(config: dict[str, Any]) -> None:
    for step in range(1, 4):
        tune.report(loss=config["lr"] + 1 / step, nested={"acc": 0.5}, other=7)


def reported(reporter: Any, **more: Any) -> tune.ExperimentAnalysis:
    options: dict[str, Any] = {"metric": "loss", "mode": "min", **more}
    space = {"lr": tune.grid_search([2.0, 1.0, 3.0]), "fix": {"a": 4}}
    return tune.run(steps, config=space, progress_reporter=reporter, **options)


def test_a_reporter_shows_the_columns_that_are_asked_for(
    inline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = tune.CLIReporter(
        metric_columns={"training_iteration": "epochs", "loss": "loss", "nested/acc": "accuracy"},
        parameter_columns=["lr", "fix/a"],
        sort_by_metric=True,
        max_column_length=7,
    )
    reporter.add_metric_column("other", "else")
    analysis = reported(reporter)
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("tune: 3/3 trials done in ")
    (titles,) = [n for n, line in enumerate(output) if line.startswith("trial ")]
    assert output[titles].split() == [
        "trial", "status", "lr", "fix/a", "epochs", "loss", "accurac", "else",
    ]  # fmt: skip
    rows = [line.split() for line in output[titles + 1 : titles + 4]]
    assert [row[2:] for row in rows] == [
        ["1", "4", "3", "1.333", "0.5", "7"],
        ["2", "4", "3", "2.333", "0.5", "7"],
        ["3", "4", "3", "3.333", "0.5", "7"],
    ]
    assert rows[0][0] == analysis.trials[1].trial_id


def test_reporters_of_the_user(inline: None, capsys: pytest.CaptureFixture[str]) -> None:
    class Ends(tune.CLIReporter):
        """Reports when another trial has ended."""

        ended = 0

        def should_report(self, trials: Any, done: bool = False) -> bool:
            before, self.ended = self.ended, [t.status for t in trials].count(Trial.TERMINATED)
            return self.ended > before

    class Own(tune.ProgressReporter):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def setup(self, **info: Any) -> None:  # type: ignore[override]  # takes what there is
            self.seen.append((info["total_samples"], info["metric"], info["mode"]))

        def should_report(self, trials: Any, done: bool = False) -> bool:
            return done

        def report(self, trials: Any, done: bool, *sys_info: str) -> None:
            self.seen.append((len(trials), done, len(sys_info)))

    reported(Ends(), max_concurrent_trials=1)
    assert capsys.readouterr().out.count("trial  ") == 3
    own = Own()
    reported(own)
    assert own.seen == [(3, "loss", "min"), (3, True, 1)]
    assert capsys.readouterr().out == ""
    reported(tune.CLIReporter(), verbose=0)
    assert capsys.readouterr().out == ""
    with pytest.raises(TypeError, match="progress_reporter wants an object such as"):
        reported(tune.CLIReporter)


def test_a_reporter_tells_of_failures(inline: None, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: dict[str, Any]) -> None:
        raise ValueError("no such layer")

    reporter = tune.CLIReporter(max_error_rows=2, print_intermediate_tables=False)
    tune.run(fail, num_samples=4, progress_reporter=reporter, raise_on_failed_trial=False)
    output = capsys.readouterr().out
    assert output.count("failed: ValueError: no such layer") == 2
    assert "4 failed" in output


def test_a_reporter_in_a_notebook(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython")
    pages: list[str] = []
    updates: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            updates.append(page.data)

    def show(page: Any, display_id: bool) -> Handle:
        pages.append(page.data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", show)
    reported(tune.JupyterNotebookReporter(max_report_frequency=0, parameter_columns=["lr"]))
    assert len(pages) == 1
    assert "<td>1.333</td>" in updates[-1]
    assert "3/3 trials done" in updates[-1]
    pages.clear()
    reported(tune.JupyterNotebookReporter(overwrite=False, max_report_frequency=0))
    assert len(pages) > 1


@pytest.mark.usefixtures("inline")
def test_seconds_of_a_functions_own_are_no_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: dict[str, Any]) -> None:
        for _ in range(2):
            tune.report(loss=1.0, time_total_s="long")

    reporter = tune.CLIReporter(max_report_frequency=1)
    tune.run(train, num_samples=3, progress_reporter=reporter)
    assert "3/3 trials done" in capsys.readouterr().out
