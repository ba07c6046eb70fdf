"""The contract between the orchestrator and whatever judges running trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from skate.tune.trial import Trial

#: When a trial has to wait for a verdict: as soon as one of these fields of a result is at least as
#: large as the number beside it.  Empty: never.  None: after every report.
Gate: TypeAlias = Mapping[str, float] | None


class Controller(Protocol):
    """What a scheduler sees of the orchestrator."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, in the order of their creation."""


class TrialScheduler(ABC):
    """Judges trials by their results.

    All methods are called from one thread, the one that runs the experiment, and a trial is judged
    in the order of its reports.  ``set_search_properties`` is called once, before the first result.
    """

    #: Verdicts.  ``STOP`` ends a trial that is not worth going on with, ``COMPLETE`` one that has
    #: had all there is to have.
    CONTINUE = "CONTINUE"
    STOP = "STOP"
    COMPLETE = "COMPLETE"

    def __init__(self, metric: str | None = None, mode: str | None = None) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode has to be 'min' or 'max', got {mode!r}")
        self.metric = metric
        self.mode = mode

    def set_search_properties(self, metric: str, mode: str) -> None:
        """Learn what the run optimizes."""
        self.metric = metric
        self.mode = mode

    def score(self, result: Mapping[str, object]) -> float | None:
        """Return the metric of a result, signed so that larger is better; None if it has none."""
        value = result.get(self.metric) if self.metric is not None else None
        if not isinstance(value, (int, float)):
            return None
        return -float(value) if self.mode == "min" else float(value)

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:  # noqa: B027
        """A trial was made, and will start."""

    def next_decision(self, trial: Trial) -> Gate:
        """Return when the trial has to wait for a verdict again.

        Reports before that reach the scheduler in batches, while the trial goes on: the less often
        a trial has to wait, the less it costs.
        """
        return None

    @abstractmethod
    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> str:
        """Return the verdict on a trial after one of its reports."""

    def on_trial_complete(  # noqa: B027
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        """A trial ended, by itself or because it was told to."""

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:  # noqa: B027
        """A trial failed for good."""

    def debug_string(self) -> str:
        """Return a line about the scheduler's state, for people."""
        return type(self).__name__


class FIFOScheduler(TrialScheduler):
    """Lets every trial run to its end, in the order of their creation."""

    def next_decision(self, trial: Trial) -> Gate:
        """Never."""
        return {}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> str:
        """Go on."""
        return self.CONTINUE
