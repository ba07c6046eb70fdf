"""Fewer configurations at a time than the run has room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.tune.search.wrapper import Wrapper, check_searcher


class ConcurrencyLimiter(Wrapper):
    """Hands out at most ``max_concurrent`` configurations of another searcher at a time.

    A searcher that has heard of more results proposes better ones: what it loses by waiting, it may
    gain by knowing.

    Args:
        searcher: proposes.  If it says that it limits itself, it does.
        max_concurrent: how many trials may run at a time.
        batch: wait until all of them have ended before the searcher hears of any.  Those that have
            ended count until then, so that no more than ``max_concurrent`` make a batch.

    Raises:
        TypeError, ValueError: the arguments make no sense.
    """

    def __init__(self, searcher: Any, max_concurrent: int, batch: bool = False) -> None:
        check_searcher("ConcurrencyLimiter", searcher)
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent has to be at least 1, got {max_concurrent}")
        super().__init__(searcher)
        self.max_concurrent = max_concurrent
        self.batch = batch
        self.live_trials: set[str] = set()
        #: Results of the batch that the searcher has not heard of, in the order of their arrival.
        self._kept: dict[str, tuple[Mapping[str, Any] | None, bool]] = {}
        self._limits = batch or not searcher.set_max_concurrency(max_concurrent)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take another limit if it is lower: of limiters around limiters the strictest counts."""
        self.max_concurrent = min(self.max_concurrent, max_concurrent)
        return self._limits or self.searcher.set_max_concurrency(max_concurrent)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what the searcher inside proposes, or None while too many trials are live."""
        if self._limits and len(self.live_trials) >= self.max_concurrent:
            return None
        suggestion = self.searcher.suggest(trial_id)
        if isinstance(suggestion, dict):
            self.live_trials.add(trial_id)
        return suggestion

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on to the searcher inside; of a batch when the last of it has ended."""
        if trial_id not in self.live_trials or trial_id in self._kept:
            return
        if self.batch:
            self._kept[trial_id] = (result, error)
            if len(self._kept) < len(self.live_trials):
                return
            for name, (kept, failed) in self._kept.items():
                self.searcher.on_trial_complete(name, kept, failed)
            self._kept.clear()
            self.live_trials.clear()
            return
        self.live_trials.discard(trial_id)
        self.searcher.on_trial_complete(trial_id, result, error)
