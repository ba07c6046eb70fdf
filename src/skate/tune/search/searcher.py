"""The contract between the orchestrator and whatever proposes configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

#: Returned by ``suggest`` when there will be no further configuration.
FINISHED = "FINISHED"


class Searcher(ABC):
    """Proposes configurations and learns from results.

    All methods are called from one thread, the one that runs the experiment.  Each trial id is
    passed to ``suggest`` once (again only after ``None``), then any number of times to
    ``on_trial_result``, and exactly once to ``on_trial_complete``.

    ``metric`` and ``mode`` ("min" or "max") may be None until the first result arrived: then
    ``set_search_properties`` is called a second time, before the first ``on_trial_result``.
    """

    def __init__(self, metric: str | None = None, mode: str | None = None) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode has to be 'min' or 'max', got {mode!r}")
        self.metric = metric
        self.mode = mode

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Learn what to optimize and over which space.

        Returns:
            False if the searcher keeps a space of its own and cannot take ``config``.
        """
        self.metric = metric
        self.mode = mode
        return not config

    def total(self, num_samples: int) -> int | None:
        """Return how many trials ``num_samples`` stands for; -1 stands for no limit (None)."""
        return None if num_samples == -1 else num_samples

    @abstractmethod
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a configuration, ``FINISHED``, or None for "ask again after the next result"."""

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:  # noqa: B027
        """Learn from an intermediate result.  Optional."""

    @abstractmethod
    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn how a trial ended.

        ``result`` is its last one, None if there is none.  ``result["early_stopped"]`` is true if a
        scheduler ended the trial: it was not the best the configuration could do.
        """


class ConcurrencyLimiter(Searcher):
    """Hands out at most ``max_concurrent`` configurations of another searcher at a time."""

    def __init__(self, searcher: Searcher, max_concurrent: int) -> None:
        if not isinstance(searcher, Searcher):
            raise TypeError(f"ConcurrencyLimiter wants a Searcher, got {searcher!r}")
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent has to be at least 1, got {max_concurrent}")
        super().__init__(searcher.metric, searcher.mode)
        self.searcher = searcher
        self.max_concurrent = max_concurrent
        self._live: set[str] = set()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Pass on to the searcher inside."""
        self.metric = metric
        self.mode = mode
        return self.searcher.set_search_properties(metric, mode, config, **spec)

    def total(self, num_samples: int) -> int | None:
        """Pass on to the searcher inside."""
        return self.searcher.total(num_samples)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what the searcher inside proposes, or None while too many trials are live."""
        if len(self._live) >= self.max_concurrent:
            return None
        suggestion = self.searcher.suggest(trial_id)
        if isinstance(suggestion, dict):
            self._live.add(trial_id)
        return suggestion

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Pass on to the searcher inside."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on to the searcher inside."""
        self._live.discard(trial_id)
        self.searcher.on_trial_complete(trial_id, result, error)
