"""Where ``OptunaSearch`` was found in 2022."""

from skate.tune.search.optuna import OptunaSearch

__all__ = ["OptunaSearch"]
