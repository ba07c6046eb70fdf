"""The contract between the orchestrator and whatever ends trials that no scheduler minds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from skate.tune.error import MetricError
from skate.tune.schedulers.trial_scheduler import Gate


class Stopper(ABC):
    """Decides after each result whether a trial has reached its end, or the whole run has.

    All methods are called from one thread, the one that runs the experiment, with the results of a
    trial in their order.  A stopper remembers what it needs between the calls in its attributes:
    they are what is saved when a run is to be resumed.
    """

    @abstractmethod
    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Say whether the trial stops."""

    def stop_all(self) -> bool:
        """Say whether the whole run stops: trials that run are ended, and none is started."""
        return False

    @property
    def may_stop_all(self) -> bool:
        """Whether ``stop_all`` may ever say so."""
        return type(self).stop_all is not Stopper.stop_all

    def gate(self) -> Gate:
        """Return when a trial has to wait for the decision, as in ``TrialScheduler``.

        A stopper that says nothing looks at every result before the trial goes on.
        """
        return None

    def on_trial_restore(self, trial_id: str, results: int) -> None:  # noqa: B027
        """A trial goes on from what it was after ``results`` of its reports.

        Those that came later do not count any more: it will make them again.
        """

    def get_state(self) -> dict[str, Any]:
        """Return everything that is to be remembered, to be pickled before the next call."""
        return dict(self.__dict__)

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` of another process returned."""
        self.__dict__.update(state)


class CombinedStopper(Stopper):
    """Stops when any of several stoppers would.

    All of them see every result, also when the first has decided already.

    Raises:
        TypeError: one of them is no ``Stopper``.
    """

    def __init__(self, *stoppers: Stopper) -> None:
        for stopper in stoppers:
            _check(stopper)
        self.stoppers = stoppers

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Ask all of them."""
        verdicts = [stopper(trial_id, result) for stopper in self.stoppers]
        return any(verdicts)

    def stop_all(self) -> bool:
        """Ask all of them."""
        verdicts = [stopper.stop_all() for stopper in self.stoppers]
        return any(verdicts)

    @property
    def may_stop_all(self) -> bool:
        """Whether one of them may ever stop the run."""
        return any(stopper.may_stop_all for stopper in self.stoppers)

    def gate(self) -> Gate:
        """Wherever one of them has to decide."""
        merged: Gate = {}
        for stopper in self.stoppers:
            merged = merge(merged, stopper.gate())
        return merged

    def on_trial_restore(self, trial_id: str, results: int) -> None:
        """Tell all of them."""
        for stopper in self.stoppers:
            stopper.on_trial_restore(trial_id, results)

    def get_state(self) -> dict[str, Any]:
        """Return the states of all of them."""
        return {"stoppers": [stopper.get_state() for stopper in self.stoppers]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` returned."""
        for stopper, its in zip(self.stoppers, state["stoppers"], strict=True):
            stopper.set_state(its)


def merge(first: Gate, second: Gate) -> Gate:
    """Return the gate at which either of two would have a trial wait."""
    if first is None or second is None:
        return None
    merged = dict(first)
    for name, bound in second.items():
        merged[name] = min(bound, merged.get(name, bound))
    return merged


def reported(what: str, metric: str, result: Mapping[str, Any]) -> Any:
    """Return the metric of a result that ``what`` looks at.

    Raises:
        MetricError: the result has none, or it is no number.
    """
    value = result.get(metric)
    if value is None:
        raise MetricError(
            f"{what} looks at {metric!r}, which the trials do not report;"
            f" reported: {', '.join(sorted(result))}"
        )
    if not isinstance(value, (int, float)):
        raise MetricError(
            f"{what} looks at {metric!r}, which has to be a number; the trials report"
            f" {value!r:.100}"
        )
    return value


def _check(stopper: object) -> None:
    if not isinstance(stopper, Stopper):
        raise TypeError(f"CombinedStopper wants Stoppers, got {stopper!r}")
