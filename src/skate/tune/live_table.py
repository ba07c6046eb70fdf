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

from skate.tune.callback import Callback
from skate.tune.display import Status, duration, failure_line, number
from skate.tune.trial import Trial

#: Seconds between two drawings.
REDRAW_S = 0.2
#: The table has at most so many rows, fewer in a low terminal.
MAX_ROWS = 20
#: Lines around the rows: titles, counts, the prompt.
_AROUND = 9
#: Columns for parameters; more of them would leave no room for the numbers.
_MAX_PARAMETERS = 6

_STYLES = {
    Trial.PENDING: "dim",
    Trial.RUNNING: "cyan",
    Trial.PAUSED: "dim",
    Trial.TERMINATED: "green",
    Trial.ERROR: "bold red",
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

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Leave the last table and a summary on the screen."""
        if self._live is None or self._status is None:
            return
        self._live.stop()
        elapsed = time.monotonic() - self._began
        self._console.print(self.render(elapsed, ended=True))
        for line in self._status.summary(elapsed):
            self._console.print(Text(line, style="bold"))
        self._console.print(Text(f"results in {self._path}", style="dim"))

    def render(self, elapsed: float, ended: bool = False) -> RenderableType:
        """Return the table with what stands above and below it.

        Of a run that has ended, the summary says the rest.
        """
        assert self._status is not None
        status = self._status
        best = status.best()
        parts: list[RenderableType] = []
        if not ended:
            counts = f"  {duration(elapsed)}  {status.counts()}"
            parts.append(Text.assemble((self._name, "bold"), counts))
        if best is not None and not ended:
            parts.append(
                Text.assemble("best: ", (status.value(best), "bold green"), f" in {best.trial_id}")
            )
        if assumption := status.assumption():
            parts.append(Text(assumption, style="yellow"))
        limit = max(3, min(MAX_ROWS, self._console.height - _AROUND))
        shown = choose(status.trials, best, limit, status.objective)
        parts.append(self._table(shown, best))
        hidden = len(status.trials) - len(shown)
        foot = f"{hidden} more trials; " if hidden else ""
        parts.append(Text(f"{foot}{status.scheduler()}", style="dim"))
        return Group(*parts)

    def _table(self, shown: Sequence[Trial], best: Trial | None) -> Table:
        assert self._status is not None
        objective = self._status.objective
        names = list(dict.fromkeys(n for t in self._status.trials[:50] for n in t.evaluated_params))
        names = names[:_MAX_PARAMETERS]
        table = Table(header_style="bold", pad_edge=False, box=SIMPLE_HEAD)
        table.add_column("trial", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right", overflow="ellipsis", no_wrap=True)
        table.add_column("iter", justify="right", no_wrap=True)
        if objective is not None:
            table.add_column(objective[0], justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        for trial in shown:
            cells: list[str | Text] = [trial.trial_id, status_text(trial)]
            cells += [
                Text(number(trial.evaluated_params[name]) if name in trial.evaluated_params else "")
                for name in names
            ]
            cells.append(str(trial.iterations or ""))
            if objective is not None:
                cells.append(number(trial.metric(*objective)) if trial.iterations else "")
            spent = trial.last_result.get("time_total_s")
            cells.append("" if spent is None else duration(spent))
            table.add_row(*cells, style="bold" if trial is best else "")
        return table


def status_text(trial: Trial) -> Text:
    """Return the status of a trial, with the reason if it was ended early."""
    if trial.early_stopped:
        reason = "stopped early" if trial.stop_reason == "scheduler" else trial.stop_reason
        return Text(reason, style="yellow")
    words = {Trial.TERMINATED: "done", Trial.ERROR: "failed"}
    return Text(words.get(trial.status, trial.status.lower()), style=_STYLES[trial.status])


def choose(
    trials: Sequence[Trial], best: Trial | None, limit: int, objective: tuple[str, str] | None
) -> list[Trial]:
    """Return at most ``limit`` trials to show: those that run, then the best, then others."""
    running = [trial for trial in trials if trial.status == Trial.RUNNING][-limit:]
    others = [trial for trial in trials if trial.status != Trial.RUNNING]

    def rank(trial: Trial) -> tuple[bool, float]:
        if objective is None or not trial.iterations:
            return (True, 0.0)
        metric, mode = objective
        value = trial.metric(metric, mode)
        if value != value:
            return (True, 0.0)
        return (False, value if mode == "min" else -value)

    others.sort(key=rank)
    chosen = running + others[: max(0, limit - len(running))]
    if best is not None and best not in chosen and chosen:
        chosen[-1] = best
    return chosen
