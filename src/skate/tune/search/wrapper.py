"""What searchers that wrap another one have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.tune.search.searcher import Names, Searcher


class Wrapper(Searcher):
    """Passes everything on to ``searcher``; what a wrapper changes, it overrides."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.needs_metric = searcher.needs_metric

    # The objective is that of the searcher inside, whatever it learns.

    @property
    def metric(self) -> Names | None:
        """What to optimize."""
        return self.searcher.metric

    @metric.setter
    def metric(self, metric: Names | None) -> None:
        self.searcher.metric = metric

    @property
    def mode(self) -> Names | None:
        """Whether less or more of it is better."""
        return self.searcher.mode

    @mode.setter
    def mode(self, mode: Names | None) -> None:
        self.searcher.mode = mode

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Pass on to the searcher inside."""
        return self.searcher.set_search_properties(metric, mode, config, **spec)

    @property
    def is_endless(self) -> bool:
        """Whether the searcher inside is."""
        return self.searcher.is_endless

    def total(self, num_samples: int) -> int | None:
        """Pass on to the searcher inside."""
        return self.searcher.total(num_samples)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Pass on to the searcher inside."""
        self.searcher.on_trial_result(trial_id, result)

    def on_pause(self, trial_id: str) -> None:
        """Pass on to the searcher inside."""
        self.searcher.on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Pass on to the searcher inside."""
        self.searcher.on_unpause(trial_id)

    def add_evaluated_point(
        self, parameters: Mapping[str, Any], value: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Pass on to the searcher inside."""
        self.searcher.add_evaluated_point(parameters, value, *args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        """Return what is to be remembered, that of the searcher inside with it."""
        return {**self.__dict__, "searcher": self.searcher.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_state`` returned."""
        own = dict(state)
        self.searcher.set_state(own.pop("searcher"))
        self.__dict__.update(own)


def check_searcher(what: str, searcher: object) -> None:
    """Check that there is something to wrap.

    Raises:
        TypeError: there is not.
    """
    if not isinstance(searcher, Searcher):
        raise TypeError(f"{what} wants a Searcher, got {searcher!r}")
