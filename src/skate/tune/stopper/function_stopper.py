"""A function of the user as a criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skate.tune.stopper.stopper import Stopper


class FunctionStopper(Stopper):
    """Stops a trial when ``function(trial_id, result)`` returns something true.

    Trials wait for it after every report.
    """

    def __init__(self, function: Callable[[str, Mapping[str, Any]], Any]) -> None:
        self.function = function

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Ask the function."""
        return bool(self.function(trial_id, result))

    def get_state(self) -> dict[str, Any]:
        """Nothing: what a function remembers is out of reach."""
        return {}

    @classmethod
    def is_valid_function(cls, fn: object) -> bool:
        """Say whether ``fn`` can be asked.

        Raises:
            ValueError: it is a stopper by its methods, but does not derive from ``Stopper``.
        """
        if callable(fn) and not isinstance(fn, Stopper) and hasattr(fn, "stop_all"):
            raise ValueError(
                f"stop: {type(fn).__name__} has the methods of a Stopper; derive it from"
                " tune.Stopper, so that stop_all is asked as well"
            )
        return callable(fn) and not isinstance(fn, Stopper)
