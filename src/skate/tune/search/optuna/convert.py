"""Between the domains of Skate and the ``suggest_*`` calls of an Optuna trial."""

from __future__ import annotations

import random
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from skate.tune.search.sample import Categorical, Domain, Float, Integer, Normal

if TYPE_CHECKING:
    import optuna

#: Normal parameters are suggested as a quantile; the outermost two in a million are cut off.
_QUANTILE_EDGE = 1e-6


def suggest(trial: optuna.trial.Trial, name: str, domain: Domain, rng: random.Random) -> Any:
    """Return Optuna's value for ``domain``; what Optuna has no notion of is drawn from ``rng``."""
    if isinstance(domain, Float):
        if domain.log or domain.q is None:
            # Optuna has no steps on a logarithmic scale: it models the value before rounding.
            value = trial.suggest_float(name, domain.lower, domain.upper, log=domain.log)
        else:
            value = trial.suggest_float(name, domain.lower, domain.upper, step=domain.q)
        return domain.round(value)
    if isinstance(domain, Integer):
        if domain.log:
            return domain.round(trial.suggest_int(name, domain.lower, domain.last, log=True))
        return trial.suggest_int(name, domain.lower, domain.last, step=domain.q)
    if isinstance(domain, Normal):
        return domain.quantile(trial.suggest_float(name, _QUANTILE_EDGE, 1 - _QUANTILE_EDGE))
    if isinstance(domain, Categorical):
        if _native(domain):
            return trial.suggest_categorical(name, domain.categories)
        return domain.categories[trial.suggest_categorical(name, range(len(domain.categories)))]
    return domain.sample(rng)


def to_optuna(domain: Domain | None, value: Any) -> Any:
    """Return what ``suggest`` would have had from Optuna for it to return ``value``."""
    if isinstance(domain, Normal):
        probability = NormalDist(domain.mean, domain.sd).cdf(float(value))
        return min(max(probability, _QUANTILE_EDGE), 1 - _QUANTILE_EDGE)
    if isinstance(domain, Categorical) and not _native(domain):
        return domain.index(value)
    return value


def _native(domain: Categorical) -> bool:
    """Say whether Optuna can name the categories themselves instead of their positions."""
    plain = all(c is None or type(c) in (bool, int, float, str) for c in domain.categories)
    # Optuna finds categories by ==, for which 1 and True are one.
    return plain and len(set(domain.categories)) == len(domain.categories)
