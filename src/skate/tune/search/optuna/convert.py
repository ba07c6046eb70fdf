"""Between the domains of Skate and the distributions of Optuna."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from skate.tune.search.sample import Categorical, Domain, Float, Integer, Normal

if TYPE_CHECKING:
    import optuna

#: Normal parameters are suggested as a quantile; the outermost two in a million are cut off.
_QUANTILE_EDGE = 1e-6


def distribution(domain: Domain) -> optuna.distributions.BaseDistribution:
    """Return what Optuna is to model for ``domain``.

    Optuna has no steps on a logarithmic scale and no normal distribution: it models the value
    before rounding, and the quantile.

    Raises:
        TypeError: there is nothing that stands for it.
    """
    from optuna import distributions as kinds

    if isinstance(domain, Float):
        step = None if domain.log else domain.q
        return kinds.FloatDistribution(domain.lower, domain.upper, log=domain.log, step=step)
    if isinstance(domain, Integer):
        step = 1 if domain.log else domain.q
        return kinds.IntDistribution(domain.lower, domain.last, log=domain.log, step=step)
    if isinstance(domain, Normal):
        return kinds.FloatDistribution(_QUANTILE_EDGE, 1 - _QUANTILE_EDGE)
    if isinstance(domain, Categorical):
        return kinds.CategoricalDistribution(
            domain.categories if _native(domain) else tuple(range(len(domain.categories)))
        )
    raise TypeError(f"Optuna cannot model {domain!r}")


def from_optuna(domain: Domain, value: Any) -> Any:
    """Return the value of a parameter for what Optuna suggested."""
    if isinstance(domain, (Float, Integer)):
        return domain.round(value)
    if isinstance(domain, Normal):
        return domain.quantile(value)
    if isinstance(domain, Categorical) and not _native(domain):
        return domain.categories[value]
    return value


def to_optuna(domain: Domain, value: Any) -> Any:
    """Return what Optuna would have to suggest for ``from_optuna`` to return ``value``."""
    if isinstance(domain, Normal):
        probability = NormalDist(domain.mean, domain.sd).cdf(float(value))
        return min(max(probability, _QUANTILE_EDGE), 1 - _QUANTILE_EDGE)
    if isinstance(domain, Categorical):
        return value if _native(domain) else domain.index(value)
    return float(value) if isinstance(domain, Float) else int(value)


def _native(domain: Categorical) -> bool:
    """Say whether Optuna can name the categories themselves instead of their positions."""
    plain = all(c is None or type(c) in (bool, int, float, str) for c in domain.categories)
    # Optuna finds categories by ==, for which 1 and True are one.
    return plain and len(set(domain.categories)) == len(domain.categories)
