"""Every configuration several times, for trainings that turn out differently each time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skate.tune.search.searcher import as_list, finite
from skate.tune.search.wrapper import Wrapper, check_searcher

#: The parameter that numbers the repetitions of a configuration, from 0: something to seed with.
TRIAL_INDEX = "__trial_index__"


@dataclass(slots=True)
class _Group:
    """The trials of one configuration; the searcher inside knows the first of them."""

    first: str
    config: dict[str, Any]
    handed_out: int = 0
    #: What became of each trial, None if it failed or reported nothing.
    results: list[Mapping[str, Any] | None] = field(default_factory=list)


class Repeater(Wrapper):
    """Runs each configuration of another searcher ``repeat`` times and tells it the mean.

    ``num_samples`` counts repetitions: 15 stands for 3 configurations, 5 times each.  Repetitions
    that fail or report no finite number do not count, unless all do.  A repetition that a scheduler
    ends early spoils the mean; leave schedulers that do so out.

    Args:
        searcher: proposes, and hears of each configuration once.
        repeat: how often each is run.
        set_index: whether configurations get the parameter ``__trial_index__`` (``TRIAL_INDEX``)
            with the number of the repetition, to make a seed of.

    Raises:
        TypeError, ValueError: the arguments make no sense.
    """

    def __init__(self, searcher: Any, repeat: int = 1, set_index: bool = True) -> None:
        check_searcher("Repeater", searcher)
        if repeat < 1:
            raise ValueError(f"repeat has to be at least 1, got {repeat}")
        super().__init__(searcher)
        self.repeat = repeat
        self.set_index = set_index
        self._current: _Group | None = None
        #: Groups with trials that have not ended, by the ids of these.
        self._group_of: dict[str, _Group] = {}

    def total(self, num_samples: int) -> int | None:
        """Return ``repeat`` times what ``num_samples / repeat`` is to the searcher inside.

        Raises:
            ValueError: it is not enough to repeat one configuration.
        """
        if num_samples == -1:
            return self.searcher.total(-1)
        groups, rest = divmod(num_samples, self.repeat)
        if groups == 0:
            raise ValueError(
                f"num_samples={num_samples} counts repetitions: with repeat={self.repeat} it has to"
                f" be a multiple of {self.repeat}"
            )
        if rest:
            warnings.warn(
                f"num_samples={num_samples} is no multiple of repeat={self.repeat}: the last {rest}"
                " trials would be no whole configuration and are left out",
                stacklevel=2,
            )
        total = self.searcher.total(groups)
        return None if total is None else total * self.repeat

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the current configuration again, or the next one of the searcher inside."""
        group = self._current
        if group is None or group.handed_out == self.repeat:
            suggestion = self.searcher.suggest(trial_id)
            if not isinstance(suggestion, dict):
                return suggestion
            group = self._current = _Group(trial_id, suggestion)
        config: dict[str, Any] = _copy(group.config)
        if self.set_index:
            config[TRIAL_INDEX] = group.handed_out
        group.handed_out += 1
        self._group_of[trial_id] = group
        return config

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Nothing: the searcher inside hears of means, when all repetitions have ended."""

    def on_pause(self, trial_id: str) -> None:
        """Nothing, as with results."""

    def on_unpause(self, trial_id: str) -> None:
        """Nothing, as with results."""

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the searcher inside the means when the last repetition has ended."""
        group = self._group_of.pop(trial_id, None)
        if group is None:
            return
        group.results.append(None if error else result)
        if len(group.results) < self.repeat:
            return
        results = [one for one in group.results if one is not None]
        if results:
            self.searcher.on_trial_complete(group.first, self._mean(results))
        else:
            self.searcher.on_trial_complete(group.first, None, error=True)

    def _mean(self, results: list[Mapping[str, Any]]) -> dict[str, Any]:
        mean = {
            **results[-1],
            "early_stopped": any(result.get("early_stopped", False) for result in results),
        }
        for metric in as_list(self.metric):
            values = [finite(result.get(metric)) for result in results]
            known = [value for value in values if value is not None]
            mean[metric] = math.fsum(known) / len(known) if known else math.nan
        return mean


def _copy(node: Any) -> Any:
    """Return a copy of the dicts and lists; what is in them is shared."""
    if isinstance(node, dict):
        return {key: _copy(child) for key, child in node.items()}
    return [_copy(child) for child in node] if isinstance(node, list) else node
