"""Search with Optuna (Tree-structured Parzen Estimators unless another sampler is given)."""

from skate.tune.search.optuna.search import OptunaSearch

__all__ = ["OptunaSearch"]
