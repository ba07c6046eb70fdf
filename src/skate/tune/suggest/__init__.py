"""Where searchers were found in 2022; they live in ``skate.tune.search``."""

from skate.tune.search import (
    FINISHED,
    BasicVariantGenerator,
    ConcurrencyLimiter,
    Repeater,
    Searcher,
    create_searcher,
    grid_search,
)

__all__ = [
    "FINISHED",
    "BasicVariantGenerator",
    "ConcurrencyLimiter",
    "Repeater",
    "Searcher",
    "create_searcher",
    "grid_search",
]
