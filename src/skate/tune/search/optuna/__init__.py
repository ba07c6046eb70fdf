"""Search with Optuna (Tree-structured Parzen Estimators unless another sampler is given)."""

from skate.tune.search.optuna.optuna_search import OptunaSearch

__all__ = ["OptunaSearch"]
