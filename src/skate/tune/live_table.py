"""The table of trials in a terminal, redrawn a few times per second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skate.tune.board import Board, board, status_words
from skate.tune.callback import Callback
from skate.tune.display import Status, failure_line
from skate.tune.trial import Trial

#: Seconds between two drawings.
REDRAW_S = 0.2
#: The table has at most so many rows, fewer in a low terminal.
MAX_ROWS = 20
#: Lines around the rows: titles, counts, the prompt.
_AROUND = 11

_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "paused": "dim",
    "done": "green",
    "stopped": "yellow",
    "failed": "bold red",
}


class LiveTable(Callback):
    """Shows the trials that run, the best ones, and how far the run is."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._status: Status | None = None
        self._name = ""
        self._path = ""
        self._began = 0.0
        self._drawn = 0.0

    def setup(self, **info: Any) -> None:
        """Begin to draw."""
        self._status = Status(info["orchestrator"])
        self._name, self._path = info["name"], str(info["path"])
        self._began = time.monotonic()
        # Redrawn from the loop of the run, which wakes up often enough: no thread of its own.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Redraw if it is time."""
        now: float = info["now"]
        if now - self._drawn >= REDRAW_S and self._live is not None:
            self._drawn = now
            self._live.update(self.render(now - self._began), refresh=True)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with, above the table."""
        self._console.print(Text(failure_line(trial), style="red"))

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with, above the table."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Leave the last table and a summary on the screen."""
        if self._live is None or self._status is None:
            return
        self._live.stop()
        elapsed = time.monotonic() - self._began
        self._console.print(self.render(elapsed, ended=True))
        for position, line in enumerate(self._status.summary(elapsed, info["cpu_s"])):
            self._console.print(Text(line, style="bold" if position < 2 else "dim"))
        self._console.print(Text(f"results in {self._path}", style="dim"))

    def render(self, elapsed: float, ended: bool = False) -> RenderableType:
        """Return the table with what stands above and below it.

        Of a run that has ended, the summary says the rest.
        """
        assert self._status is not None
        status = self._status
        status.update()
        best = status.best()
        parts: list[RenderableType] = []
        if not ended:
            parts.append(Text.assemble((self._name, "bold"), f"  {status.counts()}"))
            parts.append(Text(status.pace(elapsed)))
            if best is not None:
                value = (status.value(best), "bold green")
                parts.append(Text.assemble("best: ", value, f" in {best.name}"))
        if assumption := status.assumption():
            parts.append(Text(assumption, style="yellow"))
        limit = max(3, min(MAX_ROWS, self._console.height - _AROUND))
        shown = board(status, limit, self._console.width)
        parts.append(_table(shown, best))
        if foot := status.foot(len(shown.trials), shown.hidden):
            parts.append(Text(foot, style="dim"))
        return Group(*parts)


def _table(shown: Board, best: Trial | None) -> Table:
    table = Table(header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), box=SIMPLE_HEAD)
    for column in shown.columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for position, trial in enumerate(shown.trials):
        cells = [Text(column.cells[position]) for column in shown.columns]
        cells[1].stylize(_STYLES[status_words(trial)[1]])
        table.add_row(*cells, style="bold" if trial is best else "")
    return table
