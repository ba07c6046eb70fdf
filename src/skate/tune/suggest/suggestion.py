"""Where ``Searcher`` and ``ConcurrencyLimiter`` were found in 2022."""

from skate.tune.search.concurrency_limiter import ConcurrencyLimiter
from skate.tune.search.searcher import Searcher

__all__ = ["ConcurrencyLimiter", "Searcher"]
