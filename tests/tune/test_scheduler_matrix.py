"""Which schedulers need checkpoints, and which go with search algorithms: a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skate.tune.schedulers import (
    PB2,
    ASHAScheduler,
    FIFOScheduler,
    HyperBandForBOHB,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    PopulationBasedTrainingReplay,
    ResourceChangingScheduler,
    TrialScheduler,
    create_scheduler,
)
from skate.tune.schedulers.compatibility import check_together
from skate.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher


class Model(Searcher):
    """A search algorithm."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return {}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


class TuneBOHB(Model):
    """Stands for the one that models budgets."""


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, dict[str, Any]]:
    policy = tmp_path / "policy.txt"
    policy.write_text('["a", "b", 1, 1, {}, {}]\n')
    return {
        "pbt": {"hyperparam_mutations": {"x": [1, 2]}},
        "pb2": {"hyperparam_bounds": {"x": [0, 1]}},
        "pbt_replay": {"policy_file": policy},
    }


@pytest.mark.parametrize(
    ("name", "kind", "needs_checkpoints", "searchers"),
    [
        ("fifo", FIFOScheduler, False, "any"),
        ("asha", ASHAScheduler, False, "any"),
        ("async_hyperband", ASHAScheduler, False, "any"),
        ("asynchyperband", ASHAScheduler, False, "any"),
        ("median_stopping_rule", MedianStoppingRule, False, "any"),
        ("medianstopping", MedianStoppingRule, False, "any"),
        ("hyperband", HyperBandScheduler, True, "any"),
        ("hb_bohb", HyperBandForBOHB, True, "TuneBOHB"),
        ("pbt", PopulationBasedTraining, True, "none"),
        ("pbt_replay", PopulationBasedTrainingReplay, True, "none"),
        ("pb2", PB2, True, "none"),
        ("resource_changing", ResourceChangingScheduler, True, "any"),
    ],
)
def test_the_matrix(
    name: str,
    kind: type[TrialScheduler],
    needs_checkpoints: bool,
    searchers: str,
    arguments: dict[str, dict[str, Any]],
) -> None:
    scheduler = create_scheduler(name, **arguments.get(name, {}))
    assert type(scheduler) is kind
    assert scheduler.needs_checkpoints is needs_checkpoints
    assert scheduler.debug_string()
    # Random draws go with everything.
    check_together(scheduler, BasicVariantGenerator())
    check_together(scheduler, ConcurrencyLimiter(BasicVariantGenerator(), 2))
    for searcher, fits in (
        (Model(), searchers == "any"),
        (ConcurrencyLimiter(Model(), 2), searchers == "any"),
        (TuneBOHB(), searchers != "none"),
    ):
        refusal = _refusal(scheduler, searcher)
        assert (refusal is None) == fits
        assert refusal is None or "Model" in refusal or "TuneBOHB" in refusal
        assert refusal is None or "ASHAScheduler" in refusal


def _refusal(scheduler: TrialScheduler, searcher: Searcher) -> str | None:
    try:
        check_together(scheduler, searcher)
    except ValueError as error:
        return str(error)
    return None


def test_names_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="did you mean 'hyperband'"):
        create_scheduler("hyperbnd")
