"""The table of trials in a notebook: one output cell that is replaced as the run goes on."""

from __future__ import annotations

import html
import importlib
import time
from collections.abc import Sequence
from typing import Any

from skate.tune.board import Board, board, status_words
from skate.tune.callback import Callback
from skate.tune.display import Status, failure_line
from skate.tune.trial import Trial

#: Seconds between two drawings: each goes through the notebook's server to the browser.
REDRAW_S = 0.5
#: Trials that are shown, and the width of the table in characters.
ROWS = 15
WIDTH = 130

_COLOURS = {
    "waiting": "#656d76",
    "running": "#0969da",
    "paused": "#656d76",
    "done": "#1a7f37",
    "stopped": "#9a6700",
    "failed": "#c23b3b",
}


class NotebookTable(Callback):
    """Shows what ``LiveTable`` shows, as HTML that IPython displays."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._handle: Any = None
        self._name = ""
        self._path = ""
        self._began = 0.0
        self._drawn = 0.0
        self._failures: list[str] = []

    def setup(self, **info: Any) -> None:
        """Make the output cell."""
        self._status = Status(info["orchestrator"])
        self._name, self._path = info["name"], str(info["path"])
        self._began = time.monotonic()
        self._handle = _display().display(_display().HTML(self.render(0.0)), display_id=True)

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Redraw if it is time."""
        now: float = info["now"]
        if now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._show(self.render(now - self._began))

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Remember what a trial failed with: the last few are shown."""
        self._failures = [*self._failures, failure_line(trial)][-5:]

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Remember what a trial failed with."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Leave the last table and a summary."""
        if self._handle is not None:
            self._show(self.render(time.monotonic() - self._began, info["cpu_s"]))

    def render(self, elapsed: float, cpu_s: float | None = None) -> str:
        """Return the table with what stands above and below it, as HTML.

        Args:
            elapsed: how long the run has gone on, in seconds.
            cpu_s: what it has cost, if it has ended.
        """
        assert self._status is not None
        status = self._status
        status.update()
        best = status.best()
        if cpu_s is not None:
            lines = status.summary(elapsed, cpu_s)
        else:
            lines = [status.counts(), status.pace(elapsed)]
            if best is not None:
                lines.append(f"best: {status.value(best)} in {best.name}")
        lines += filter(None, [status.assumption()])
        shown = board(status, ROWS, WIDTH)
        below = [*self._failures, status.foot(len(shown.trials), shown.hidden)]
        if cpu_s is not None:
            below.append(f"results in {self._path}")
        return (
            f"<div><b>{html.escape(self._name)}</b><br>{_lines(lines)}</div>"
            f"{_table(shown, best)}<div style='color:#656d76'>{_lines(below)}</div>"
        )

    def _show(self, page: str) -> None:
        self._handle.update(_display().HTML(page))


def _display() -> Any:
    """Return the module of IPython, which whoever is in a notebook has."""
    return importlib.import_module("IPython.display")


def _lines(lines: Sequence[str]) -> str:
    return "<br>".join(html.escape(line) for line in lines if line)


def _table(shown: Board, best: Trial | None) -> str:
    head = "".join(
        f"<th style='text-align:{_side(column.right)}'>{html.escape(column.title)}</th>"
        for column in shown.columns
    )
    rows = []
    for position, trial in enumerate(shown.trials):
        cells = []
        for index, column in enumerate(shown.columns):
            style = f"text-align:{_side(column.right)}"
            if index == 1:
                style += f";color:{_COLOURS[status_words(trial)[1]]}"
            cells.append(f"<td style='{style}'>{html.escape(column.cells[position])}</td>")
        weight = " style='font-weight:bold'" if trial is best else ""
        rows.append(f"<tr{weight}>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _side(right: bool) -> str:
    return "right" if right else "left"
