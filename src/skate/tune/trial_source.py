"""Where trials come from: what a run asks its searcher, and what it tells it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skate.tune.error import TuneError
from skate.tune.resources import PlacementGroupFactory
from skate.tune.search.searcher import FINISHED, Searcher
from skate.tune.search.space import has_variables, merged, varying
from skate.tune.trial import Trial


class TrialSource:
    """Makes trials of what a searcher suggests, and tells it what becomes of them.

    A searcher hears of the end of each trial once.  When one that failed has another try in a
    resumed run, it has heard of the failure, and hears nothing more.

    Args:
        searcher: suggests configurations.
        num_samples: passes over the grid, or trials of other searchers; -1 for no limit.
        space: the search space, for naming the parameters that vary.
        id_prefix: what the trial ids of this run begin with.
        resources_of: what the trial with a configuration needs; one CPU if None.
        christen: gives new trials their names.
    """

    def __init__(
        self,
        searcher: Searcher,
        num_samples: int,
        space: Mapping[str, Any],
        id_prefix: str,
        resources_of: Callable[[dict[str, Any]], PlacementGroupFactory] | None = None,
        christen: Callable[[Trial], None] | None = None,
    ) -> None:
        self._searcher = searcher
        self._space = space
        self._id_prefix = id_prefix
        self._resources_of = resources_of
        self._christen = christen
        #: How many trials there will be at most; None if that is not known.
        self.total = searcher.total(num_samples)
        #: Whether all of them have been made.
        self.exhausted = False

    def make(self, before: Sequence[Trial], idle: bool) -> Trial | None:
        """Return a new trial, None if there is none now.

        Args:
            before: the trials so far.
            idle: whether nothing runs or waits to run, so that the searcher learns nothing more.

        Raises:
            TuneError: the searcher suggests nothing although it learns nothing more; what it
                suggests is no configuration.
        """
        if self.exhausted:
            return None
        if self.total is not None and len(before) >= self.total:
            self.exhausted = True
            return None
        trial_id = f"{self._id_prefix}_{len(before):05d}"
        suggestion = self._searcher.suggest(trial_id)
        if suggestion is None:
            if idle:
                raise TuneError(
                    f"{type(self._searcher).__name__} suggests nothing although no trial is running"
                )
            return None
        if suggestion == FINISHED:
            self.exhausted = True
            if not before:
                warnings.warn(
                    f"{type(self._searcher).__name__} has nothing to suggest, so there are no"
                    " trials: if an earlier run has used it, make a new one for each run",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None
        if not isinstance(suggestion, dict):
            raise TuneError(
                f"{type(self._searcher).__name__}.suggest returned {suggestion!r} instead of a dict"
            )
        if not has_variables(self._space):
            # The searcher has a space of its own; what the run says beside it are constants.
            suggestion = merged(self._space, suggestion)
        resources = None if self._resources_of is None else self._resources_of(suggestion)
        trial = Trial(trial_id, suggestion, varying(self._space, suggestion), resources)
        if self._christen is not None:
            self._christen(trial)
        self.exhausted = len(before) + 1 == self.total
        return trial

    def reported(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Tell of an intermediate result."""
        if not trial.searcher_done:
            self._searcher.on_trial_result(trial.trial_id, result)

    def paused(self, trial: Trial) -> None:
        """Tell that a scheduler has paused a trial."""
        if not trial.searcher_done:
            self._searcher.on_pause(trial.trial_id)

    def unpaused(self, trial: Trial) -> None:
        """Tell that a paused trial goes on."""
        if not trial.searcher_done:
            self._searcher.on_unpause(trial.trial_id)

    def ended(self, trial: Trial, result: Mapping[str, Any] | None, error: bool = False) -> None:
        """Tell how a trial ended; ``result`` is its last one, None if there is none."""
        if not trial.searcher_done:
            trial.searcher_done = True
            self._searcher.on_trial_complete(trial.trial_id, result, error)
