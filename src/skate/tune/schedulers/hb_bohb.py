"""HyperBand as BOHB wants it."""

from __future__ import annotations

from skate.tune.schedulers.hyperband import HyperBandBracket, HyperBandScheduler
from skate.tune.trial import Trial


class HyperBandForBOHB(HyperBandScheduler):
    """HyperBand for a searcher that models each budget by itself (``TuneBOHB``).

    It differs from ``HyperBandScheduler`` in two ways: bands begin with the largest bracket, so
    that the model learns from many short trials first; and results at milestones have the budget
    that they were compared at, as ``result["hyperband_info"]["budget"]``.

    Source: Falkner et al., "BOHB: robust and efficient hyperparameter optimization at scale", ICML
    2018.  Arguments as of ``HyperBandScheduler``.
    """

    only_searchers = ("TuneBOHB",)

    def halvings(self, position: int) -> int:
        """The largest bracket first."""
        return self.s_max - position

    def on_arrival(self, bracket: HyperBandBracket, trial: Trial) -> None:
        """Add the budget to the result that searcher and user will see."""
        trial.last_result["hyperband_info"] = {"budget": bracket.milestone}
