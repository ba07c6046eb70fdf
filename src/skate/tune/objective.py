"""What a run optimizes, and what is assumed when the user does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skate.tune.error import MetricError
from skate.tune.mode import check_mode
from skate.tune.trial import user_metrics

#: Parts of a name that say "more is better".  Everything else is minimized: what trainings report
#: without a name of this kind is nearly always a loss or an error.
_MAXIMIZED = re.compile(
    r"(^|[^a-z])(acc|accuracy|auc|auroc|auprc|score|reward|return|f1|precision|recall|r2|map|ndcg|"
    r"iou|dice|bleu|rouge|hits?)([^a-z]|\d|$)"
)


@dataclass(slots=True)
class Objective:
    """The metric and its direction; None as long as neither the user nor a result has named it."""

    metric: str | None = None
    mode: str | None = None
    #: Whether a part of it is a guess that the user should see.
    assumed: bool = False

    def __post_init__(self) -> None:
        check_mode(self.mode)
        if self.metric is not None and not isinstance(self.metric, str):
            raise TypeError(f"metric has to be the name of one metric, got {self.metric!r}")
        if self.metric is not None and self.mode is None:
            self.mode = guess_mode(self.metric)
            self.assumed = True

    def learn(self, result: Mapping[str, Any], required: bool = True) -> bool:
        """Complete the objective from a result of the run, flat; say whether it is complete now.

        Args:
            result: the first one, or another if those before had no number in them.
            required: whether the run cannot do without.

        Raises:
            MetricError: the result does not have the metric, or no number at all.
        """
        reported = user_metrics(result)
        if self.metric is not None:
            require(self.metric, result)
            return True
        numbers = [n for n, v in reported.items() if isinstance(v, (int, float))]
        if not numbers and not required:
            return False
        if not numbers:
            raise MetricError(
                "there is nothing to compare trials by: the first report has no number in it;"
                f" reported: {_names(reported)}"
            )
        self.metric = numbers[0]
        if self.mode is None:
            self.mode = guess_mode(self.metric)
        self.assumed = True
        return True


def require(metric: str, result: Mapping[str, Any]) -> None:
    """Check that a flat result has ``metric``.

    Raises:
        MetricError: it does not, or it is no number.
    """
    if metric not in result:
        raise MetricError(
            f"metric {metric!r} is not among what the trials report: {_names(user_metrics(result))}"
        )
    if not isinstance(result[metric], (int, float)):
        raise MetricError(
            f"metric {metric!r} has to be a number; the trials report {result[metric]!r:.100}"
        )


def guess_mode(metric: str) -> str:
    """Return "max" for names such as accuracy, "min" for all others."""
    # Words may be joined in any fashion: valAccuracy, val_accuracy, val/accuracy.
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", metric).lower()
    return "max" if _MAXIMIZED.search(words) else "min"


def _names(reported: Mapping[str, Any]) -> str:
    return ", ".join(sorted(reported)) or "nothing"
