"""Distributed training inside Tune trials: who pays for the actors, and what is reported."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import skate
from skate.util._scores import Metrics, ScoreChoice
from skate.util.placement_group import get_current_placement_group
from skate.xgboost.messages import Scores
from skate.xgboost.params import ActorPlan


class TuneReportCallback:
    """Chooses what a training inside a trial reports; pass it to ``train(callbacks=[...])``.

    Without it every score is reported after each round, as ``{"eval-logloss": 0.1, ...}``.

    Args:
        metrics: what to report: names (``"eval-logloss"``), or a dict from the name in the report
            to the name of the score.  None: all scores; ``[]``: nothing.
        frequency: report after every so many rounds.
    """

    def __init__(
        self,
        metrics: Metrics | None = None,
        frequency: int = 1,
    ) -> None:
        if frequency < 1:
            raise ValueError(f"frequency must be at least 1, but is {frequency!r}")
        self._frequency = frequency
        self._choice = ScoreChoice(metrics, "TuneReportCallback", "none (train without evals)")

    def __call__(self, rounds: int, scores: Scores) -> None:
        """Report the scores after ``rounds`` rounds.

        Raises:
            ValueError: a metric that was asked for is not among the scores.
        """
        if rounds % self._frequency or self._choice.is_empty:
            return
        flat = {
            f"{data}-{metric}": score
            for data, metrics in scores.items()
            for metric, score in metrics.items()
        }
        chosen = self._choice.of(flat)
        if chosen:
            from skate import tune

            tune.report(chosen)


def in_trial() -> bool:
    """Say whether the calling code runs inside a Tune trial."""
    # A process that runs trials has imported Tune.
    module = sys.modules.get("skate.tune")
    return module is not None and bool(module.is_session_enabled())


def split(
    callbacks: Sequence[Any], inside: bool
) -> tuple[Callable[[int, Scores], None] | None, list[Any]]:
    """Return who reports rounds (None outside of trials), and the callbacks for the actors."""
    reporting = [item for item in callbacks if isinstance(item, TuneReportCallback)]
    others = [item for item in callbacks if not isinstance(item, TuneReportCallback)]
    if not inside:
        return None, others
    reporting = reporting or [TuneReportCallback()]

    def report(rounds: int, scores: Scores) -> None:
        for callback in reporting:
            callback(rounds, scores)

    return report, others


def reservations(plan: ActorPlan) -> list[dict[str, float]]:
    """Return what each actor has to ask the cluster for, by name.

    Rank 0 asks for all, so that a training gets either all that it needs or nothing.  If each
    actor asked for its own, two trainings might end up with half of their actors each, and wait for
    the other half for ever.  In the placement group of a trial all is there already, in bundles
    of one actor each.
    """
    reserved = to_reserve(plan)
    if reserved and in_trial() and _bundles_for(plan) >= plan.num_actors:
        own = {name: plan.amounts[name] for name in reserved}
        return [own] * plan.num_actors
    return [reserved, *[{}] * (plan.num_actors - 1)]


def _bundles_for(plan: ActorPlan) -> int:
    """Return how many bundles of the placement group around this trial have room for an actor."""
    group = get_current_placement_group()
    if group is None:
        return 0
    return sum(
        all(bundle.get(name, 0) >= amount for name, amount in plan.amounts.items())
        for bundle in group.bundle_specs
    )


def to_reserve(plan: ActorPlan) -> dict[str, float]:
    """Return what all actors together have to ask the cluster for, by name.

    A trial only waits while its actors train, so it lends them what it holds itself.  If they
    asked for CPUs of their own, trials could hold all there are and wait for each other's.
    """
    total = plan.total()
    if not in_trial():
        return total
    held = skate.get_runtime_context().get_assigned_resources()
    for name, amount in total.items():
        if 0 < held.get(name, 0) < amount:
            warnings.warn(
                f"{plan.num_actors} training actors share the {held[name]:g} {name} of their trial;"
                " for resources of their own pass"
                " resources_per_trial=ray_params.get_tune_resources() to tune.run",
                stacklevel=3,
            )
    return {name: amount for name, amount in total.items() if not held.get(name)}
