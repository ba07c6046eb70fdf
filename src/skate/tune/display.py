"""What a run shows while it goes: a live table in a terminal or notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from skate.tune.callback import Callback
from skate.tune.error import describe
from skate.tune.orchestrator import Orchestrator
from skate.tune.progress import Progress
from skate.tune.readable import printable, text_of
from skate.tune.trial import Trial

#: Seconds between two lines where there is no terminal.
LINE_S = 5.0


def display() -> Callback:
    """Return the display that fits standard output."""
    if _in_notebook():
        from skate.tune.notebook_table import NotebookTable

        return NotebookTable()
    if sys.stdout.isatty():
        from skate.tune.live_table import LiveTable

        return LiveTable()
    return PlainLines()


def _in_notebook() -> bool:
    # Who is in a notebook has imported IPython; the shell of a terminal is another class.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


class PlainLines(Callback):
    """Prints a line every few seconds, each failure, and a summary."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._printed = self._began
        self._announced = False
        self._status: Status | None = None

    def setup(self, **info: Any) -> None:
        """Say what begins."""
        self._began = self._printed = time.monotonic()
        self._status = Status(info["orchestrator"])
        print(f"tune: run {info['name']}, results in {info['path']}")

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Print a line if it is time for one."""
        assert self._status is not None
        if not self._announced and (assumption := self._status.assumption()):
            self._announced = True
            print(f"tune: {assumption}")
        now: float = info["now"]
        if now - self._printed >= LINE_S:
            self._printed = now
            self._status.update()
            print(f"tune: {self._status.line(now - self._began)}", flush=True)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with."""
        print(f"tune: {failure_line(trial)}")

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any
    ) -> None:
        """Print what a trial failed with."""
        self.on_trial_error(iteration, trials, trial, **info)

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Print the summary."""
        assert self._status is not None
        for line in [
            *self._status.summary(time.monotonic() - self._began, info["cpu_s"]),
            self._status.scheduler(),
        ]:
            if line:
                print(f"tune: {line}")
        sys.stdout.flush()


class Status:
    """What there is to say about a run, as text.

    ``update`` has to be called before anything is said about a run that goes on.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self.progress = Progress(orchestrator)
        self.update()

    def update(self) -> None:
        """Take note of what has happened."""
        self.progress.update()

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far."""
        return self._orchestrator.trials

    @property
    def objective(self) -> tuple[str, str] | None:
        """Metric and mode, once they are known."""
        return self.progress.objective

    def assumption(self) -> str:
        """Return what was assumed about the objective, "" if nothing or not known yet."""
        objective = self.objective
        if objective is None or not self._orchestrator.objective.assumed:
            return ""
        metric, mode = objective
        verb = "minimizing" if mode == "min" else "maximizing"
        return f"{verb} {metric!r} (assumed; say otherwise with metric=..., mode=...)"

    def best(self) -> Trial | None:
        """Return the best trial so far."""
        return self.progress.best()

    def counts(self) -> str:
        """Return how many trials are in which state."""
        progress, total = self.progress, self._orchestrator.total
        states = Counter(trial.status for trial in progress.live)
        parts = [f"{progress.done}/{'?' if total is None else total} trials done"]
        for number_of, what in (
            (states[Trial.RUNNING], "running"),
            (states[Trial.PAUSED], "paused"),
            (states[Trial.PENDING], "waiting"),
            (progress.stopped_early, "stopped early"),
            (progress.ended[Trial.ERROR], "failed"),
        ):
            if number_of:
                parts.append(f"{number_of} {what}")
        return ", ".join(parts)

    def pace(self, elapsed: float) -> str:
        """Return how long the run has gone on, how long it will, and what it holds."""
        parts = [duration(elapsed)]
        rest = self.progress.rest(elapsed)
        if rest is not None:
            parts.append(f"about {duration(rest)} left")
        held = [
            f"{amount:g}{'' if total is None else f'/{total:g}'} {name}"
            for name, (amount, total) in self.progress.resources().items()
        ]
        if held:
            parts.append(", ".join(held))
        return " | ".join(parts)

    def foot(self, shown: int, left_out: Sequence[str]) -> str:
        """Return what stands below a table: what it does not show, and the scheduler's words."""
        parts = []
        if hidden := len(self.trials) - shown:
            parts.append(f"{hidden} more trials")
        if left_out:
            parts.append(f"no room for {', '.join(left_out)}")
        if words := self.scheduler():
            parts.append(words)
        return "; ".join(parts)

    def scheduler(self) -> str:
        """Return what the scheduler has to say, "" if nothing but its name."""
        scheduler = self._orchestrator.scheduler
        words = scheduler.debug_string()
        return "" if words == type(scheduler).__name__ else words

    def line(self, elapsed: float) -> str:
        """Return the run in one line."""
        parts = [self.pace(elapsed), self.counts()]
        best = self.best()
        if best is not None:
            parts.append(f"best {self.value(best)} ({params(best)})")
        return " | ".join(parts)

    def value(self, trial: Trial) -> str:
        """Return the metric of a trial with its name."""
        assert self.objective is not None
        metric, mode = self.objective
        return f"{printable(metric)}={number(trial.metric(metric, mode))}"

    def summary(self, elapsed: float, cpu_s: float) -> list[str]:
        """Return the run in a few lines: how it ended, the best trial, what the run itself cost.

        Args:
            elapsed: how long it took, in seconds.
            cpu_s: seconds of CPU that its orchestration took, as ``on_experiment_end`` is told.
        """
        self.update()
        reason = self._orchestrator.end_reason
        ended = f", ended by {reason.replace('_', ' ')}" if reason else ""
        lines = [f"{self.counts()} in {duration(elapsed)}{ended}"]
        best = self.best()
        if best is not None:
            lines.append(f"best: {self.value(best)} in trial {best.name}: {params(best)}")
        lines.append(self.cost(elapsed, cpu_s))
        return lines

    def cost(self, elapsed: float, cpu_s: float) -> str:
        """Return what the run cost its driver: orchestration, files and what is shown."""
        share = 100 * cpu_s / elapsed if elapsed > 0 else 0.0
        trials = max(1, len(self.trials))
        return (
            f"the run itself used {cpu_s:.2f}s of CPU, {share:.1f}% of one CPU,"
            f" {1000 * cpu_s / trials:.2g} ms per trial"
        )


def failure_line(trial: Trial) -> str:
    """Return why a trial failed, in one line."""
    again = " (starts again)" if trial.status == Trial.PENDING else ""
    where = f"; see {trial.local_path / 'error.txt'}" if trial.local_path is not None else ""
    return printable(f"trial {trial.name} failed{again}: {describe(trial.error)}{where}")


def params(trial: Trial) -> str:
    """Return the varied parameters of a trial, in one line."""
    shown = [f"{printable(name)}={number(v)}" for name, v in trial.evaluated_params.items()]
    return ", ".join(shown) or "-"


def number(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(text_of(value))
    return text if len(text) <= 24 else text[:21] + "..."


def duration(seconds: float) -> str:
    """Return a time span: 3.2s, 04:10 or 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
