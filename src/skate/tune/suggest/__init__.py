"""Where searchers were found in 2022; they live in ``skate.tune.search``."""

from skate.tune.search import (
    FINISHED,
    BasicVariantGenerator,
    ConcurrencyLimiter,
    Searcher,
    create_searcher,
)

__all__ = [
    "FINISHED",
    "BasicVariantGenerator",
    "ConcurrencyLimiter",
    "Searcher",
    "create_searcher",
]
