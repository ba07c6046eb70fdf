"""The contract between the orchestrator and whatever judges running trials."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from skate.tune.error import MetricError
from skate.tune.mode import check_mode
from skate.tune.resources import PlacementGroupFactory
from skate.tune.trial import Trial, TrialCheckpoint, as_float

#: When a trial has to wait for a verdict: as soon as one of these fields of a result is at least as
#: large as the number beside it.  Empty: never.  None: after every report.
Gate: TypeAlias = Mapping[str, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class Exploit:
    """Start the trial anew, with ``config`` and the newest checkpoint of ``source``."""

    source: Trial
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resize:
    """Pause the trial, and go on with other resources."""

    resources: PlacementGroupFactory


@dataclass(frozen=True, slots=True)
class Lines:
    """Text for a file in the folder of the run.

    Attributes:
        name: of the file.
        text: whole lines.
        anew: whether they replace what is there.
    """

    name: str
    text: str
    anew: bool = False


#: What is to become of a trial after a report.
Verdict: TypeAlias = str | Exploit | Resize


class Controller(Protocol):
    """What a scheduler sees of the orchestrator."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials so far, in the order of their creation."""

    @property
    def live_trials(self) -> Sequence[Trial]:
        """Those that have not ended."""

    @property
    def exhausted(self) -> bool:
        """Whether there will be no further trials."""

    @property
    def total(self) -> int | None:
        """How many trials there will be; None if that is not known."""

    @property
    def total_resources(self) -> Mapping[str, float] | None:
        """What all trials together may hold, by name; None if there is no limit."""

    def stop_trial(self, trial: Trial) -> None:
        """End a trial that is paused or has not started.

        Raises:
            ValueError: it runs, or has ended; a trial that runs is ended by a verdict.
        """

    def checkpoint_of(self, trial: Trial) -> TrialCheckpoint | None:
        """Return the newest checkpoint of a trial, None if there is none."""

    def exploit_paused(self, trial: Trial, exploit: Exploit) -> None:
        """Have a trial that is paused, or is now, start with ``exploit`` when it runs next.

        The checkpoint is the one that its source has now.
        """


class TrialScheduler(ABC):
    """Judges trials by their results.

    All methods are called from one thread, the one that runs the experiment, and a trial is judged
    in the order of its reports.  ``set_search_properties`` is called once, before the first result.
    """

    #: Verdicts, beside ``Exploit`` and ``Resize``.  ``STOP`` ends a trial that is not worth more,
    #: ``COMPLETE`` one that has had all there is to have.  ``PAUSE`` takes a checkpoint of it
    #: and gives its slot away; ``choose_trial_to_run`` has it go on.
    CONTINUE = "CONTINUE"
    STOP = "STOP"
    COMPLETE = "COMPLETE"
    PAUSE = "PAUSE"

    #: Whether trials have to be able to go on from a checkpoint.  Then ``Trainable`` classes save
    #: one at each gate.
    needs_checkpoints: bool = False
    #: Whether it goes by what the run optimizes.
    needs_metric: bool = True
    #: Whether a searcher may propose the configurations and learn from the results.
    works_with_searchers: bool = True
    #: If not empty: the names of the only search algorithms that it goes with.
    only_searchers: tuple[str, ...] = ()
    #: Whether trials are given other configurations while they run.
    changes_config: bool = False

    def __init__(self, metric: str | None = None, mode: str | None = None) -> None:
        check_mode(mode)
        self.metric = metric
        self.mode = mode

    def set_search_properties(self, metric: str, mode: str) -> None:
        """Learn what the run optimizes."""
        self.metric = metric
        self.mode = mode

    def score(self, result: Mapping[str, object]) -> float | None:
        """Return the metric of a result, signed so that larger is better; None if it has none.

        NaN, of a trial that has diverged, is the worst there is.
        """
        value = result.get(self.metric) if self.metric is not None else None
        if not isinstance(value, (int, float)):
            return None
        number = as_float(value)
        if math.isnan(number):
            return -math.inf
        return -number if self.mode == "min" else number

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
    ) -> Verdict:
        """Return the verdict on a trial after one of its reports."""

    def on_trial_complete(  # noqa: B027
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        """A trial ended, by itself or because it was told to."""

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:  # noqa: B027
        """A trial failed for good."""

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:  # noqa: B027
        """A paused or pending trial was ended from outside: by ``stop_trial``, or with the run."""

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Return which of the trials that are PENDING or PAUSED runs next, None for none of them.

        Here: those that failed and start again, then new ones, then paused ones.
        """
        found: Trial | None = None
        for trial in controller.live_trials:
            if trial.status == Trial.PENDING:
                if trial.failures:
                    return trial
                if found is None or found.status == Trial.PAUSED:
                    found = trial
            elif trial.status == Trial.PAUSED and found is None:
                found = trial
        return found

    def on_idle(self, controller: Controller) -> None:  # noqa: B027
        """Nothing runs, the searcher has nothing to suggest, and nothing was chosen.

        What waits for something else waits in vain.  ``choose_trial_to_run`` is called once more.
        """

    def take_lines(self) -> list[Lines]:
        """Return what is to be written into files of the run since the last call."""
        return []

    def get_state(self) -> dict[str, Any]:
        """Return everything that is to be remembered, to be pickled before the next call."""
        return dict(self.__dict__)

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` of another process returned."""
        self.__dict__.update(state)

    def debug_string(self) -> str:
        """Return a line about the scheduler's state, for people."""
        return type(self).__name__


def progress(result: Mapping[str, object], time_attr: str) -> float:
    """Return how far a trial is, for schedulers that cannot do without.

    Raises:
        MetricError: the result does not say it.
    """
    time = result.get(time_attr)
    if not isinstance(time, (int, float)):
        raise MetricError(
            f"the scheduler compares trials by time_attr={time_attr!r}, which they do not"
            f" report; reported: {', '.join(sorted(result))}"
        )
    return time


class FIFOScheduler(TrialScheduler):
    """Lets every trial run to its end, in the order of their creation."""

    needs_metric = False

    def next_decision(self, trial: Trial) -> Gate:
        """Never."""
        return {}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> str:
        """Go on."""
        return self.CONTINUE
