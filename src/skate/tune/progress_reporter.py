"""Reporters: what a run shows, where the user says how.

Without one, the display that fits the surroundings is chosen (see ``display``).
"""

from __future__ import annotations

import html
import importlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from skate.tune.board import Column, board
from skate.tune.callback import Callback
from skate.tune.display import Status, failure_line
from skate.tune.mode import badness, check_mode
from skate.tune.trial import Trial

#: Names of fields, or names -> titles of their columns.
Columns = Sequence[str] | Mapping[str, str]


class ProgressReporter:
    """Base of reporters: ``should_report`` is asked often, and then ``report`` is called."""

    def setup(
        self,
        start_time: float | None = None,
        total_samples: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        """The run begins.

        Args:
            start_time: when, in seconds since 1970.
            total_samples: how many trials there will be, if that is known.
            metric: what the run goes by, if that is known.
            mode: "min" or "max".
            kwargs: what may come in later versions.
        """

    def should_report(self, trials: Sequence[Trial], done: bool = False) -> bool:
        """Say whether it is time to report; with ``done`` the run is over."""
        raise NotImplementedError

    def report(self, trials: Sequence[Trial], done: bool, *sys_info: str) -> None:
        """Report.

        Args:
            trials: all trials so far.
            done: whether the run is over.
            sys_info: lines about the run: how long it has gone on, what it holds.
        """
        raise NotImplementedError


class TuneReporterBase(ProgressReporter):
    """Base of reporters that show a table.

    Args:
        metric_columns: what is shown of the last results: names, or a dict from names to titles.
            None: iteration, the metric of the run and the time, and others as there is room.
        parameter_columns: which parameters are shown, likewise; None for those that vary, as there
            is room.
        total_samples: ignored: the run knows.
        max_progress_rows: at most so many trials.
        max_error_rows: at most so many failures are told of.
        max_column_length: titles are cut to so many characters.
        max_report_frequency: seconds between two reports, at least.
        infer_limit: ignored: with ``metric_columns=None`` there is what has room.
        print_intermediate_tables: whether there is a table before the end, or only a line.
        metric: ignored where the run has a metric: sorts otherwise.
        mode: "min" or "max", with ``metric``.
        sort_by_metric: whether the best trials come first.

    Raises:
        ValueError: the mode is none.
    """

    WIDTH = 130

    def __init__(
        self,
        *,
        metric_columns: Columns | None = None,
        parameter_columns: Columns | None = None,
        total_samples: int | None = None,
        max_progress_rows: int = 20,
        max_error_rows: int = 20,
        max_column_length: int = 20,
        max_report_frequency: float = 5,
        infer_limit: int = 3,
        print_intermediate_tables: bool | None = None,
        metric: str | None = None,
        mode: str | None = None,
        sort_by_metric: bool = False,
    ) -> None:
        check_mode(mode)
        self._metrics = _titles(metric_columns)
        self._parameters = _titles(parameter_columns)
        self._rows = max_progress_rows
        self._max_errors = max_error_rows
        self._longest = max_column_length
        self._pause = max_report_frequency
        self._tables = print_intermediate_tables is not False
        self._metric, self._mode = metric, mode
        self._sorted = sort_by_metric
        self._began = self._reported = time.monotonic()
        #: What the run has cost, once it has ended, in seconds of CPU.
        self.cpu_s = 0.0
        self._status: Status | None = None
        self._errors = 0

    def add_metric_column(self, metric: str, representation: str | None = None) -> None:
        """Show one more field of results, under the title ``representation``."""
        self._metrics = {**(self._metrics or {}), metric: representation or metric}

    def add_parameter_column(self, parameter: str, representation: str | None = None) -> None:
        """Show one more parameter, under the title ``representation``."""
        self._parameters = {**(self._parameters or {}), parameter: representation or parameter}

    def follow(self, status: Status) -> None:
        """Show this run from now on."""
        self._status = status
        self._began = self._reported = time.monotonic()

    def should_report(self, trials: Sequence[Trial], done: bool = False) -> bool:
        """Say whether it is time for the next report, or for the last one."""
        now = time.monotonic()
        if not done and now - self._reported < self._pause:
            return False
        self._reported = now
        return True

    def lines(self, done: bool) -> list[str]:
        """Return what is to be shown above the table."""
        assert self._status is not None
        elapsed = time.monotonic() - self._began
        if done:
            return self._status.summary(elapsed, self.cpu_s)
        return [self._status.line(elapsed)]

    def table(self, done: bool) -> list[Column]:
        """Return the columns of the table, none if there is to be none."""
        if self._status is None or not (done or self._tables):
            return []
        shown = board(self._status, self._rows, self.WIDTH, self._metrics, self._parameters)
        for column in shown.columns:
            column.title = column.title[: self._longest]
        objective = self._status.objective
        if objective is None and self._metric is not None:
            objective = self._metric, self._mode or "max"
        if self._sorted and objective is not None:
            metric, mode = objective
            ranks = [badness(trial.metric(metric, mode), mode) for trial in shown.trials]
            order = sorted(range(len(ranks)), key=ranks.__getitem__)
            for column in shown.columns:
                column.cells = [column.cells[position] for position in order]
        return shown.columns

    def failure(self, trial: Trial) -> str | None:
        """Return what is to be said about a trial that failed, None after too many."""
        self._errors += 1
        return failure_line(trial) if self._errors <= self._max_errors else None


class CLIReporter(TuneReporterBase):
    """Prints a table of trials every few seconds; see ``TuneReporterBase``."""

    def report(self, trials: Sequence[Trial], done: bool, *sys_info: str) -> None:
        """Print."""
        for line in self.lines(done):
            print(f"tune: {line}")
        columns = self.table(done)
        widths = [column.width for column in columns]
        rows = zip(*[[column.title, *column.cells] for column in columns], strict=True)
        for row in rows:
            cells = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(row, widths, columns, strict=True)
            ]
            print("  ".join(cells).rstrip())
        print(flush=True)


class JupyterNotebookReporter(TuneReporterBase):
    """Shows a table of trials in a notebook, in one output that is replaced.

    Args:
        overwrite: whether it is; otherwise each report comes below the one before.
        options: see ``TuneReporterBase``.
    """

    def __init__(self, overwrite: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self._overwrite = overwrite
        self._handle: Any = None

    def report(self, trials: Sequence[Trial], done: bool, *sys_info: str) -> None:
        """Show.

        Raises:
            ImportError: IPython is not installed.
        """
        display: Any = importlib.import_module("IPython.display")

        page = display.HTML(self._page(done))
        if self._handle is not None and self._overwrite:
            self._handle.update(page)
        else:
            self._handle = display.display(page, display_id=True)

    def _page(self, done: bool) -> str:
        columns = self.table(done)
        titles = "".join(f"<th>{html.escape(column.title)}</th>" for column in columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in zip(*[column.cells for column in columns], strict=True)
        )
        above = "<br>".join(map(html.escape, self.lines(done)))
        return f"<div>{above}</div><table><tr>{titles}</tr>{rows}</table>"


class ReporterCallback(Callback):
    """Has a reporter show a run."""

    def __init__(self, reporter: ProgressReporter) -> None:
        if not isinstance(reporter, ProgressReporter):
            raise TypeError(
                f"progress_reporter wants an object such as tune.CLIReporter(), got {reporter!r}"
            )
        self._reporter = reporter
        self._status: Status | None = None
        self._began = 0.0

    def setup(self, **info: Any) -> None:
        """Tell the reporter what begins."""
        self._began = time.monotonic()
        orchestrator = info["orchestrator"]
        self._status = Status(orchestrator)
        self._reporter.setup(
            start_time=time.time(),
            total_samples=orchestrator.total,
            metric=orchestrator.objective.metric,
            mode=orchestrator.objective.mode,
        )
        if isinstance(self._reporter, TuneReporterBase):
            self._reporter.follow(self._status)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Report if it is time."""
        self._report(trials, False)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with."""
        if isinstance(self._reporter, TuneReporterBase) and (line := self._reporter.failure(trial)):
            print(f"tune: {line}", flush=True)

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Report for the last time."""
        if isinstance(self._reporter, TuneReporterBase):
            self._reporter.cpu_s = info["cpu_s"]
        self._report(trials, True)

    def _report(self, trials: Sequence[Trial], done: bool) -> None:
        if self._status is not None and self._reporter.should_report(trials, done):
            self._status.update()
            self._reporter.report(trials, done, self._status.pace(time.monotonic() - self._began))


def _titles(columns: Columns | None) -> dict[str, str] | None:
    if columns is None:
        return None
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
