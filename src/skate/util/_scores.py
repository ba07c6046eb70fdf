"""Which scores of a training are reported, and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

#: Names, or names in the report -> names of the scores.
Metrics: TypeAlias = str | Sequence[str] | Mapping[str, str]


class ScoreChoice:
    """Chooses among the scores of a round.

    Args:
        metrics: the scores; None for all of them.
        asked_by: whose argument that is, for the error.
        without_scores: what the error says where there are none at all.
    """

    def __init__(self, metrics: Metrics | None, asked_by: str, without_scores: str) -> None:
        self._asked_by = asked_by
        self._without_scores = without_scores
        self._names: dict[str, str] | None = None
        if isinstance(metrics, str):
            self._names = {metrics: metrics}
        elif isinstance(metrics, Mapping):
            self._names = dict(metrics)
        elif metrics is not None:
            self._names = {name: name for name in metrics}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be reported."""
        return self._names == {}

    def of(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be reported of ``scores``.

        Raises:
            ValueError: a metric that was asked for is not among them.
        """
        for name in self.missing(scores):
            raise ValueError(
                f"{self._asked_by}: there is no score {name!r}, only:"
                f" {', '.join(scores) or self._without_scores}"
            )
        return self.present(scores)

    def missing(self, scores: Mapping[str, Any]) -> list[str]:
        """Return the metrics that were asked for and are not among ``scores``."""
        return [name for name in (self._names or {}).values() if name not in scores]

    def present(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be reported of ``scores``, as far as it is there."""
        if self._names is None:
            return dict(scores)
        return {shown: scores[name] for shown, name in self._names.items() if name in scores}
